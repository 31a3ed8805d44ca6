"""Counts products of widths over all multiply-accumulates of an operator, without listing these.

A *tap* is one index over which an operator sums its products: input channel and offset in the
filter for a convolution, ``K`` for a matrix product. All multiply-accumulates with one tap combine
every element of operand ``a`` that this tap reads with every such element of operand ``b``. So::

    sum over MACs of width_a * width_b
        = sum over taps of (sum of width_a at the tap) * (sum of width_b at the tap)

The sums at the taps depend linearly on the widths, axis by axis. Hence widths of any granularity
are counted exactly, at the cost of a few small matrix products. (The method is ours.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.errors import ModelError

Array = npt.NDArray[np.float64]
"""Whole numbers below 2**53 as float64, which holds them exactly and multiplies matrices fast."""

_MOST: Final = 2.0**62
_LARGEST_FILTER: Final = 2**24


@dataclass(frozen=True, eq=False)
class Window:
    """What a sliding filter reads along one axis.

    Attributes:
        size: Length of the input's axis.
        filter_size: Length of the filter's axis.
        stride: Stride.
        dilation: Dilation.
        begin: Padding at the beginning.
        end: Padding at the end.
    """

    size: int
    filter_size: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def positions(self) -> int:
        """Number of output positions; every tap reads one element at each."""
        reach = self.dilation * (self.filter_size - 1) + 1
        return max(0, (self.size + self.begin + self.end - reach) // self.stride + 1)

    @cached_property
    def matrix(self) -> Array:
        """How many output positions read an element at an offset, ``[filter_size, size]``."""
        positions, matrix = self.positions, np.zeros((self.filter_size, self.size))
        for offset in range(self.filter_size):
            start = offset * self.dilation - self.begin  # position p reads p * stride + start
            # Positions before the first element, and behind the last one, read the nearest.
            before = min(positions, max(0, -(start // self.stride)))
            behind = min(positions, max(before, -((start - self.size) // self.stride)))
            matrix[offset, np.arange(before, behind) * self.stride + start] = 1
            matrix[offset, 0] += before
            matrix[offset, -1] += positions - behind
        return matrix


@dataclass(frozen=True, eq=False)
class Part:
    """One axis of an operand, or a factor of an axis (channels split into groups).

    Attributes:
        size: Length of the part.
        tap: Index of the tap axis that the part maps to, or ``None`` if widths are summed over it.
        window: How often each tap reads each element. ``None`` if every tap reads one element, and
            every element once.
    """

    size: int
    tap: int | None
    window: Window | None = None


@dataclass(frozen=True, eq=False)
class Side:
    """How the elements of one operand map onto taps.

    Attributes:
        axes: The parts of every axis of the operand, the outermost part first.
        tap_shape: Number of taps along every tap axis of the operator.
    """

    axes: tuple[tuple[Part, ...], ...]
    tap_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the operand."""
        return tuple(int(np.prod([part.size for part in axis])) for axis in self.axes)

    def taps(self, widths: npt.NDArray[np.int64] | Array) -> Array:
        """Sums the widths of all elements that each tap reads.

        Args:
            widths: Widths, in a shape that broadcasts to the operand's.

        Returns:
            The sums, in a shape that broadcasts to ``tap_shape``: along an axis of length 1 all
            entries are equal.
        """
        view, parts = self._view(np.asarray(widths, dtype=np.float64))
        result = view
        for index, part in enumerate(parts):
            full = result.shape[index] == part.size
            if part.tap is None:
                summed = result.sum(axis=index, keepdims=True)
                result = summed if full else summed * part.size
            elif part.window is not None:
                if full:
                    result = np.moveaxis(
                        np.tensordot(part.window.matrix, result, (1, index)), 0, index
                    )
                else:
                    counts = np.full(
                        part.window.filter_size, part.window.positions, dtype=np.float64
                    )
                    result = result * counts.reshape(-1, *[1] * (result.ndim - index - 1))
        order = [part.tap for part in parts]
        kept = [index for index, tap in enumerate(order) if tap is not None]
        squeezed = result.reshape([result.shape[index] for index in kept])
        taps = [tap for tap in order if tap is not None]
        squeezed = squeezed.transpose(np.argsort(taps))
        shape = [1] * len(self.tap_shape)
        for position, tap in enumerate(sorted(taps)):
            shape[tap] = squeezed.shape[position]
        by_tap: Array = squeezed.reshape(shape)
        return by_tap

    def spread(self, taps: Array, shape: tuple[int, ...]) -> Array:
        """Sums numbers at taps over all taps that read an element: the transpose of :meth:`taps`.

        With the sums of the other operand's widths as ``taps``, the result is what one bit more of
        each element costs.

        Args:
            taps: The numbers, in a shape that broadcasts to ``tap_shape``.
            shape: Shape of the result, which broadcasts to the operand's. The result is summed over
                the axes along which it has length 1.

        Returns:
            The sums, in ``shape``.
        """
        target = (1,) * (len(self.axes) - len(shape)) + shape
        owned = {part.tap for axis in self.axes for part in axis}
        for tap, size in enumerate(self.tap_shape):
            if tap not in owned:
                taps = _sum_axis(taps, tap, size)
        order = [part.tap for axis in self.axes for part in axis if part.tap is not None]
        free = [tap for tap in range(len(self.tap_shape)) if tap not in owned]
        result = taps.transpose([*order, *free]).reshape([taps.shape[tap] for tap in order])
        index = 0
        for axis, wanted in zip(self.axes, target, strict=True):
            reduced = wanted == 1
            for part in axis:
                if part.tap is None:
                    result = np.expand_dims(result, index)
                    if reduced:
                        result = result * part.size
                    else:
                        result = np.repeat(result, part.size, axis=index)
                else:
                    result = self._spread_along(result, index, part, reduced)
                index += 1
        return np.ascontiguousarray(result).reshape(shape)

    def _spread_along(self, result: Array, index: int, part: Part, reduced: bool) -> Array:
        """Replaces a tap axis by the axis of the part that maps to it.

        Args:
            result: The numbers, with the tap axis at ``index``.
            index: The axis.
            part: The part.
            reduced: Whether to sum over the part.
        """
        assert part.tap is not None
        size = self.tap_shape[part.tap]
        if part.window is not None:
            full = np.repeat(result, size, axis=index) if result.shape[index] != size else result
            back = np.moveaxis(np.tensordot(part.window.matrix, full, (0, index)), 0, index)
            return back.sum(axis=index, keepdims=True) if reduced else back
        if reduced or part.size != size:
            return _sum_axis(result, index, size)
        return np.repeat(result, size, axis=index) if result.shape[index] != size else result

    def _view(self, widths: Array) -> tuple[Array, list[Part]]:
        """Gives widths one axis for every part, of length 1 where they are equal along it."""
        widths = widths.reshape((1,) * (len(self.axes) - widths.ndim) + widths.shape)
        shape: list[int] = []
        sizes: tuple[int, ...] = widths.shape
        for axis, size in zip(self.axes, sizes, strict=True):
            shape += [part.size if size > 1 else 1 for part in axis]
        return widths.reshape(shape), [part for axis in self.axes for part in axis]


def _sum_axis(array: Array, axis: int, size: int) -> Array:
    """Sums over an axis of length ``size``, which may be held as one entry for equal ones."""
    total: Array = array.sum(axis=axis, keepdims=True)
    return total if array.shape[axis] == size else total * size


def tap_product(taps_a: Array, taps_b: Array, tap_shape: tuple[int, ...]) -> int:
    """Computes ``sum(taps_a * taps_b)`` over all taps, exactly.

    Args:
        taps_a: Sums of one operand at the taps, in a shape that broadcasts to ``tap_shape``.
        taps_b: Sums of the other operand, likewise.
        tap_shape: Number of taps along every tap axis.

    Raises:
        ModelError: The sum is larger than that of any real model.
    """
    if 0 in tap_shape:
        return 0
    if float(np.sum(taps_a * taps_b)) > _MOST or max(taps_a.max(), taps_b.max()) > _MOST:
        raise ModelError(
            f"an operator of the model has more than {_MOST:.0e} bit operations; check the sizes "
            "of its inputs and the attributes of its convolutions, and export it again"
        )
    product = taps_a.astype(np.int64) * taps_b.astype(np.int64)
    return int(product.sum()) * (math.prod(tap_shape) // product.size)


def convolution(
    a_shape: tuple[int, ...],
    b_shape: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    group: int,
) -> tuple[Side, Side]:
    """Maps both operands of a convolution onto taps.

    A multiply-accumulate that reads padding counts with the width of the nearest element (our
    choice). So for equal widths the count is the usual ``MACs x width x width``.

    Args:
        a_shape: Shape of the input: ``[1, C, spatial..]``.
        b_shape: Shape of the weight: ``[M, C/group, filter..]``.
        strides: Strides of the spatial axes.
        dilations: Dilations of the spatial axes.
        pads: Pads: the beginnings of all spatial axes, then the ends.
        group: Number of groups of channels.

    Returns:
        The sides of input and weight.

    Raises:
        ValueError: The groups do not divide the channels, the filter is too large or has another
            rank, or a stride, a dilation or the number of groups is below 1.
    """
    spatial, filter_shape = a_shape[2:], b_shape[2:]
    rank = len(spatial)
    per_group = b_shape[1]
    if len(filter_shape) != rank or min((*strides, *dilations, group), default=1) < 1:
        raise ValueError("strides, dilations or groups below 1, or a filter of another rank")
    if math.prod(filter_shape) > _LARGEST_FILTER:
        raise ValueError(f"a filter of more than {_LARGEST_FILTER:,} elements")
    if a_shape[1] != group * per_group or b_shape[0] % group:
        raise ValueError(
            f"{group} groups do not fit {a_shape[1]} input channels, {b_shape[0]} output channels "
            f"and weights of {per_group} channels"
        )
    windows = [
        Window(spatial[i], filter_shape[i], strides[i], dilations[i], pads[i], pads[rank + i])
        for i in range(rank)
    ]
    tap_shape = (group, per_group, *filter_shape)
    a_axes = (
        (Part(a_shape[0], None),),
        (Part(group, 0), Part(per_group, 1)),
        *((Part(spatial[i], 2 + i, windows[i]),) for i in range(rank)),
    )
    b_axes = (
        (Part(group, 0), Part(b_shape[0] // group, None)),
        *((Part(size, 1 + i),) for i, size in enumerate(b_shape[1:])),
    )
    return Side(a_axes, tap_shape), Side(b_axes, tap_shape)


Axis = tuple[tuple[str, int], ...]
"""Label and size of an axis; several pairs, outermost first, if the axis joins several."""


def contraction(a: Sequence[Axis], b: Sequence[Axis]) -> tuple[Side, Side]:
    """Maps the operands of a sum of products over labelled axes (as in einsum) onto taps.

    A label that both operands have is a tap axis. A size of 1 broadcasts to the other operand's
    size. An operand is summed over all labels that only it has.

    Args:
        a: Axes of the first operand, each label once.
        b: Axes of the second operand, likewise.

    Returns:
        The sides of both operands.

    Raises:
        ValueError: A label has two sizes.
    """
    sizes_a, sizes_b = (dict(part for axis in axes for part in axis) for axes in (a, b))
    taps = [label for label in sizes_a if label in sizes_b]
    for label in taps:
        smaller, larger = sorted((sizes_a[label], sizes_b[label]))
        if smaller not in (1, larger):
            raise ValueError(f"sizes {smaller} and {larger} of axis {label} differ")
    tap_shape = tuple(_broadcast(sizes_a[label], sizes_b[label]) for label in taps)

    def side(axes: Sequence[Axis]) -> Side:
        parts = (
            tuple(Part(size, taps.index(label) if label in taps else None) for label, size in axis)
            for axis in axes
        )
        return Side(tuple(parts), tap_shape)

    return side(a), side(b)


def _broadcast(one: int, other: int) -> int:
    """Returns the size that two sizes broadcast to."""
    return other if one == 1 else one
