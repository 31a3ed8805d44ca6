"""Chooses the factors of a site by the error that quantization at 8 bits is predicted to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onnx_cgmq.graph.affine import Constant
from onnx_cgmq.ort.channel_statistics import ChannelStatistics

_CODES: Final = 255
"""Steps in the range of an activation of 8 bits; weights have so many between -1 and 1 times their
largest magnitude, but one."""

_SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""How much of the differences between channels of the activation is evened out; the rest of the
factors evens out weights."""

_WIDEST: Final = 10
"""Logarithm to base 2 of the largest factor. The smallest is its inverse. Our choice."""

_LEAST_WEIGHT: Final = 1e-3
"""Reach of a channel's weights below which it counts as that: channels that no row needs get no
endless factors. Our choice."""


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
            kernels: Weights of the node (:meth:`~ConstantMac.kernels`).
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

    def error(self, factors: Constant) -> float:
        """The mean squared error of the node's output, as a share of its mean square.

        Operands have 8 bits, one range for the whole activation, and one for each output channel of
        the weight. Errors of rounding are taken as uniform and independent.

        Args:
            factors: By what the value is divided and the weights are multiplied, for each channel.
        """
        steps = [
            (max((high / factors).max(), 0) - min((low / factors).min(), 0)) / _CODES
            for low, high in zip(self.lows, self.highs, strict=True)
        ]
        factors, groups = np.repeat(factors, self.repeat), len(self.reach)
        of_values = np.square(steps).sum() * (factors**2 * self.power).sum()
        rows = (self.reach * factors.reshape(groups, 1, -1)).max(axis=2) / (_CODES / 2)
        inputs = (self.mean_square / factors**2).reshape(groups, -1).sum(axis=1)
        of_weights = self.elements * (np.square(rows).sum(axis=1) * inputs).sum()
        return float((of_values + of_weights) / 12 / self._signal)

    def reach_of_value(self) -> Constant:
        """The largest magnitude of each channel of the operand, as a share of that of all."""
        reach = np.maximum(np.abs(self.lows[-1]), np.abs(self.highs[-1]))
        return reach / reach.max()

    def reach_of_weights(self) -> Constant:
        """The largest weight of each channel of the site, as a share of the largest of its row."""
        rows = self.reach.max(axis=2, keepdims=True)
        shares = np.divide(self.reach, rows, out=np.zeros_like(self.reach), where=rows > 0)
        return shares.max(axis=1).reshape(-1, self.repeat).max(axis=1)

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
    ones = np.ones(len(value))
    start = sum(reader.error(ones) for reader in readers)
    best, least = ones, 1.0
    for share in _SHARES:
        factors = _powers(value, weights, share)
        error = sum(reader.error(factors) for reader in readers) / start
        if error < least:
            best, least = factors, error
    return best, least


def _powers(value: Constant, weights: Constant, share: float) -> Constant:
    """Factors ``value ** share / weights ** (1 - share)`` as powers of two, with a mean of about 1.

    Channels that are always 0 have the factor 1.
    """
    used = value > 0
    logarithms = np.zeros(len(value))
    logarithms[used] = share * np.log2(value[used])
    logarithms[used] -= (1 - share) * np.log2(np.maximum(weights[used], _LEAST_WEIGHT))
    logarithms[used] -= np.round(logarithms[used].mean())
    return np.exp2(np.clip(np.round(logarithms), -_WIDEST, _WIDEST))
