"""Multiply-accumulates as bilinear forms: which element of one operand meets which of the other.

Every MAC operator is ``sum over taps of taps_a * taps_b``: a tap is one index of the contraction
(input channel and kernel offset of a convolution, ``K`` of a matrix product). Each operand maps
linearly onto taps, axis by axis, so that widths of any granularity are counted exactly without ever
listing the multiply-accumulates.
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
"""Whole numbers below 2**53, in which float64 is exact and matrix products are fast."""

_MOST: Final = 2.0**62
_LARGEST_KERNEL: Final = 2**24


@dataclass(frozen=True, eq=False)
class Window:
    """What a sliding kernel reads along one axis.

    Attributes:
        size: Elements.
        kernel: Taps.
        stride: Elements between positions.
        dilation: Elements between taps.
        begin: Padding before the first element.
        end: Padding behind the last one.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @property
    def positions(self) -> int:
        """Places of the kernel; every tap reads an element at each."""
        reach = self.dilation * (self.kernel - 1) + 1
        return max(0, (self.size + self.begin + self.end - reach) // self.stride + 1)

    @cached_property
    def matrix(self) -> Array:
        """``[kernel, size]``: how many positions read an element at a kernel offset."""
        positions, matrix = self.positions, np.zeros((self.kernel, self.size))
        for offset in range(self.kernel):
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
    """One axis of an operand, or a factor of one (groups of channels).

    Attributes:
        size: Its length.
        tap: Index of the tap axis that it maps to; ``None`` if it is summed.
        window: How often a tap reads an element; ``None`` maps one to one.
    """

    size: int
    tap: int | None
    window: Window | None = None


@dataclass(frozen=True, eq=False)
class Side:
    """How one operand maps onto taps.

    Attributes:
        axes: For every axis of the operand, its parts, outermost first.
        tap_shape: Shape of all taps of the operator.
    """

    axes: tuple[tuple[Part, ...], ...]
    tap_shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the operand."""
        return tuple(int(np.prod([part.size for part in axis])) for axis in self.axes)

    def taps(self, widths: npt.NDArray[np.int64] | Array) -> Array:
        """Sums widths over all that a tap meets.

        Args:
            widths: Broadcasts to the operand's shape.

        Returns:
            Broadcasts to ``tap_shape``; an axis of length 1 stands for equal entries.
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
                    counts = np.full(part.window.kernel, part.window.positions, dtype=np.float64)
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
        """The transpose of :meth:`taps`: what each element meets, summed to a shape.

        Args:
            taps: Broadcasts to ``tap_shape``.
            shape: Broadcasts to the operand's shape; axes that it lacks are summed.

        Returns:
            Array of ``shape``.
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
                    result = self._back(result, index, part, reduced)
                index += 1
        return np.ascontiguousarray(result).reshape(shape)

    def _back(self, result: Array, index: int, part: Part, reduced: bool) -> Array:
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
        """Widths with one axis for every part (length 1 where they are equal along it)."""
        widths = widths.reshape((1,) * (len(self.axes) - widths.ndim) + widths.shape)
        shape: list[int] = []
        sizes: tuple[int, ...] = widths.shape
        for axis, size in zip(self.axes, sizes, strict=True):
            shape += [part.size if size > 1 else 1 for part in axis]
        return widths.reshape(shape), [part for axis in self.axes for part in axis]


def _sum_axis(array: Array, axis: int, size: int) -> Array:
    """Sum over an axis of length ``size`` that may be held as a single entry."""
    total: Array = array.sum(axis=axis, keepdims=True)
    return total if array.shape[axis] == size else total * size


def tap_product(taps_a: Array, taps_b: Array, tap_shape: tuple[int, ...]) -> int:
    """``sum(taps_a * taps_b)`` over all taps, exact.

    Raises:
        ModelError: It is more than any model has.
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
    """Conv: ``a`` is ``[1, C, spatial..]``, ``b`` is ``[M, C/group, kernel..]``.

    A tap that falls into the padding counts with the width of the nearest element. The count is
    thus linear in widths, and for equal widths it is the usual ``MACs x bits x bits``.
    """
    spatial, kernel = a_shape[2:], b_shape[2:]
    rank = len(spatial)
    per_group = b_shape[1]
    if len(kernel) != rank or min((*strides, *dilations, group), default=1) < 1:
        raise ValueError("strides, dilations or groups below 1, or a kernel of another rank")
    if math.prod(kernel) > _LARGEST_KERNEL:
        raise ValueError(f"a kernel of more than {_LARGEST_KERNEL:,} elements")
    if a_shape[1] != group * per_group or b_shape[0] % group:
        raise ValueError(f"{group} groups do not divide the channels")
    windows = [
        Window(spatial[i], kernel[i], strides[i], dilations[i], pads[i], pads[rank + i])
        for i in range(rank)
    ]
    tap_shape = (group, per_group, *kernel)
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
"""Labels and sizes of one axis, outermost first: more than one where an axis joins several."""


def contraction(a: Sequence[Axis], b: Sequence[Axis]) -> tuple[Side, Side]:
    """A sum of products over labelled axes, as einsum writes it.

    A label that both operands have is a tap; a size of 1 is broadcast to the other's. All other
    labels are summed by their own operand.

    Args:
        a: Axes of the first operand, each label once.
        b: Axes of the second operand.

    Raises:
        ValueError: The sizes of a label differ.
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
    return other if one == 1 else one
