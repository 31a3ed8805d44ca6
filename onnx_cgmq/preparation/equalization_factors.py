"""Chooses the factors of a site by the error that quantization at 8 bits is predicted to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onnx_cgmq.graph.affine import Constant
from onnx_cgmq.ort.channel_statistics import ChannelStatistics

_WIDTH: Final = 8
"""Bits of activations, and of weights."""

_NARROW_WIDTH: Final = 4
"""Bits of weights at which factors must not make the error larger: gates may choose fewer than 8,
and errors of weights then count most. Our choice."""

_SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""How much of the differences between channels of the activation is evened out; the rest of the
factors evens out weights."""

_LEAST: Final = 2.0**-5
"""The smallest reach of a channel, as a share of that of all, that factors follow: a channel that
is nearly always 0 may reach further on other data. The same goes for weights. Our choice."""


@dataclass(frozen=True)
class Reader:
    """What is known of a MAC node that reads the channels of a site.

    Attributes:
        lows: For each value that is quantized on the way, the smallest element of each channel.
        highs: The largest elements.
        mean_square: The mean of the squares of each input channel of the node.
        reach: The largest magnitude of the weights of each input channel in each row; axes are
            groups, rows of a group, input channels of a group.
        power: The sum of the squares of the weights of each input channel.
        elements: How many elements a kernel has.
        repeat: How many input channels of the node belong to one channel of the site.
    """

    lows: tuple[Constant, ...]
    highs: tuple[Constant, ...]
    mean_square: Constant
    reach: Constant
    power: Constant
    elements: int
    repeat: int

    @classmethod
    def of(cls, places: Sequence[ChannelStatistics], kernels: Constant, count: int) -> Reader:
        """Describes a reader.

        Args:
            places: Statistics of the values that are quantized, the operand of the node last.
            kernels: Weights of the node, by
                :meth:`~onnx_cgmq.graph.constant_macs.ConstantMac.kernels`.
            count: Number of channels of the site.
        """
        mean_square = places[-1].mean_square
        return cls(
            tuple(place.low.reshape(count, -1).min(axis=1) for place in places),
            tuple(place.high.reshape(count, -1).max(axis=1) for place in places),
            mean_square,
            reach=np.abs(kernels).max(axis=3),
            power=np.square(kernels).sum(axis=(1, 3)).reshape(-1),
            elements=kernels.shape[3],
            repeat=len(mean_square) // count,
        )

    def error(self, factors: Constant, width: int) -> float:
        """The mean squared error of the node's output, as a share of its mean square.

        The activation has 8 bits and one range, the weight a range for each output channel. Errors
        of rounding are taken as uniform and independent.

        Args:
            factors: By what the value is divided and the weights are multiplied, for each channel.
            width: Bits of the weight.
        """
        steps = [
            (max((high / factors).max(), 0) - min((low / factors).min(), 0)) / (2**_WIDTH - 1)
            for low, high in zip(self.lows, self.highs, strict=True)
        ]
        factors, groups = np.repeat(factors, self.repeat), len(self.reach)
        of_values = np.square(steps).sum() * (factors**2 * self.power).sum()
        rows = (self.reach * factors.reshape(groups, 1, -1)).max(axis=2) / (2 ** (width - 1) - 1)
        inputs = (self.mean_square / factors**2).reshape(groups, -1).sum(axis=1)
        of_weights = self.elements * (np.square(rows).sum(axis=1) * inputs).sum()
        return float((of_values + of_weights) / 12 / self._signal)

    def reach_of_value(self) -> Constant:
        """The largest magnitude of each channel of the operand, as a share of that of all."""
        reach = np.maximum(np.abs(self.lows[-1]), np.abs(self.highs[-1]))
        return np.asarray(reach / reach.max())

    def reach_of_weights(self) -> Constant:
        """The largest weight of each channel of the site, as a share of the largest of its row."""
        rows = self.reach.max(axis=2, keepdims=True)
        shares = np.divide(self.reach, rows, out=np.zeros_like(self.reach), where=rows > 0)
        return np.asarray(shares.max(axis=1).reshape(-1, self.repeat).max(axis=1))

    @property
    def has_signal(self) -> bool:
        """Whether values and weights are finite, and their products not all zero."""
        ends = np.concatenate([*self.lows, *self.highs])
        return bool(np.isfinite(ends).all() and np.isfinite(self._signal) and self._signal > 0)

    @property
    def _signal(self) -> float:
        return float((self.mean_square * self.power).sum())


def best_factors(readers: Sequence[Reader]) -> tuple[Constant, float]:
    """Chooses a factor for each channel: a power of two, so that moving it rounds nothing.

    Args:
        readers: All readers of the channels; each has a signal.

    Returns:
        The factors, and the predicted error with them as a share of that without.
    """
    value = np.max([reader.reach_of_value() for reader in readers], axis=0)
    weights = np.max([reader.reach_of_weights() for reader in readers], axis=0)
    best, least = np.ones(len(value)), 1.0
    start, narrow = (_error(readers, best, width) for width in (_WIDTH, _NARROW_WIDTH))
    for share in _SHARES:
        factors = _powers(value, weights, share)
        left = _error(readers, factors, _WIDTH) / start
        if left < least and _error(readers, factors, _NARROW_WIDTH) <= narrow:
            best, least = factors, left
    return best, least


def _error(readers: Sequence[Reader], factors: Constant, width: int) -> float:
    return sum(reader.error(factors, width) for reader in readers)


def _powers(value: Constant, weights: Constant, share: float) -> Constant:
    """Factors ``value ** share / weights ** (1 - share)`` as powers of two, with a mean of about 1.

    Channels that are always 0 have the factor 1.
    """
    logarithms = share * np.log2(np.maximum(value, _LEAST))
    logarithms -= (1 - share) * np.log2(np.maximum(weights, _LEAST))
    used = value > 0
    logarithms -= np.round(logarithms[used].mean())
    return np.where(used, np.exp2(np.round(logarithms)), 1.0)
