"""Bit-widths, gates and integer grids: pure functions, no torch, no onnx.

The formulas are those of CGMQ (arXiv 2409.20138) and Bayesian Bits (arXiv 2005.07093): for a range
``[low, high]`` and a width of ``b`` bits the step is ``(high - low) / (2**b - 1)``, so that every
coarser symmetric grid is a subset of every finer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the command line shows its help without loading NumPy
    import numpy as np
    import numpy.typing as npt

FLOAT_BITS = 32
"""The width that stands for the float value, which is not quantized."""

INTEGER_KERNEL_BITS = 8
"""The widest width for which onnxruntime's CPU provider has integer MAC kernels."""


class Role(str, Enum):
    """What a quantized tensor is to the operator that reads it."""

    WEIGHT = "weight"
    BIAS = "bias"
    ACTIVATION = "activation"


class Granularity(str, Enum):
    """How many gates a tensor has: one, one per channel, or one per element."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    ELEMENT = "element"


class Ranges(str, Enum):
    """What has a range of its own in a weight with one gate.

    BLOCK: As many neighbours of an output channel as the block size says, along the axis that a
        matrix product sums over.
    """

    TENSOR = "tensor"
    CHANNEL = "channel"
    BLOCK = "block"


BLOCK_SIZES: Final = (16, 32, 64, 128, 256)
"""The block sizes for which onnxruntime has kernels of packed weights."""


def in_blocks(shape: tuple[int, ...], axis: int | None, block: int | None) -> tuple[int, ...]:
    """The shape in which every block of a matrix is a row along an axis of its own.

    Args:
        shape: Shape of the tensor.
        axis: Its channel axis. The blocks are along the other one, and the axis of a block's
            elements comes right behind it.
        block: Elements in a block; ``None`` without blocks, so that the shape stays as it is.
    """
    if block is None or axis is None:
        return shape
    along = 1 - axis
    return (*shape[:along], shape[along] // block, block, *shape[along + 1 :])


class GridForm(str, Enum):
    """The kind of a grid: which integer codes it has.

    SYMMETRIC: ``-(2**(b-1)-1) .. 2**(b-1)-1``, zero point 0 (weights, biases).
    UNSIGNED: ``0 .. 2**b-1``, zero point 0 (activations that can't be negative).
    AFFINE: ``0 .. 2**b-1`` with an integer zero point (all other activations).
    DYNAMIC: As AFFINE, over the range that the whole tensor has in each run.
    """

    SYMMETRIC = "symmetric"
    UNSIGNED = "unsigned"
    AFFINE = "affine"
    DYNAMIC = "dynamic"

    @property
    def is_symmetric(self) -> bool:
        """Whether the codes are signed, with zero in the middle."""
        return self is GridForm.SYMMETRIC


def code_range(bits: int, form: GridForm) -> tuple[int, int]:
    """The smallest and the largest integer code of a grid.

    Args:
        bits: The width, from 0 (pruned: only the code 0) to 16.
        form: The kind of the grid.

    Returns:
        ``(smallest, largest)``, both inclusive.

    Raises:
        ValueError: If ``bits`` is not a width with integer codes.
    """
    if not 0 <= bits < FLOAT_BITS:
        raise ValueError(f"{bits} bits have no integer codes; expected 0 to {FLOAT_BITS - 1}")
    if bits == 0:
        return 0, 0
    if form.is_symmetric:
        largest = 2 ** (bits - 1) - 1
        return -largest, largest
    return 0, 2**bits - 1


def intervals(bits: int, form: GridForm = GridForm.SYMMETRIC) -> int:
    """How many steps span the range at a width: ``2**bits - 1``.

    The range of a symmetric grid reaches half a step beyond its largest code.
    """
    smallest, largest = code_range(bits, form)
    return largest - smallest + (1 if form.is_symmetric and bits else 0)


def rounded_step(
    step: npt.NDArray[np.float32], significant_bits: int, up: bool = False
) -> npt.NDArray[np.float32]:
    """Rounds steps to a number of significant bits; with 1 bit they become powers of two.

    Sums of products of values on such steps are exact in float32, as long as they stay below
    ``2**24`` in units of the product's last bit. So float and integer kernels agree.

    Args:
        step: Positive steps, any shape.
        significant_bits: How many bits to keep, at least 1.
        up: Whether no step may become smaller; otherwise they are rounded to the nearest.
    """
    import numpy as np

    mantissa, exponent = np.frexp(step)
    scale = np.float32(2**significant_bits)
    whole = np.ceil(mantissa * scale) if up else np.round(mantissa * scale)
    rounded = np.ldexp(whole / scale, exponent)
    return np.asarray(rounded, dtype=np.float32)


def nesting_factor(coarse: int, fine: int) -> int:
    """The factor between the codes of one value on two symmetric grids over the same range.

    A code of the coarser grid times this factor is the code of the same value on the finer grid.
    The factors from 2 to 4, 4 to 8 and 8 to 16 bits are 5, 17 and 257.

    Raises:
        ValueError: If the grids are not nested.
    """
    factor, rest = divmod(intervals(fine), intervals(coarse))
    if rest:
        raise ValueError(f"a {coarse}-bit grid is not a subset of a {fine}-bit grid")
    return factor


@dataclass(frozen=True)
class Ladder:
    """The widths that a gate may select, ascending; 0 is "pruned", 32 is "float".

    A gate ``g`` in ``(k-1, k]`` selects the ``k``-th non-zero width, and a larger gate the widest
    one. A gate ``g <= 0`` selects width 0 if the ladder has it, else the narrowest width. This is
    the table ``T(g)`` of CGMQ.
    """

    widths: tuple[int, ...] = (2, 4, 8, 16, 32)

    def __post_init__(self) -> None:
        allowed = {0, 2, 4, 8, 16, 32}
        if not self.nonzero or tuple(sorted(set(self.widths))) != self.widths:
            raise ValueError(
                f"widths {self.widths} must be ascending, distinct, and more than just 0"
            )
        if not set(self.widths) <= allowed:
            raise ValueError(f"widths {self.widths} must be among {sorted(allowed)}")

    @property
    def nonzero(self) -> tuple[int, ...]:
        """The widths above 0."""
        return tuple(width for width in self.widths if width > 0)

    @property
    def quantized(self) -> tuple[int, ...]:
        """The widths that have an integer grid (above 0 and below 32)."""
        return tuple(width for width in self.nonzero if width < FLOAT_BITS)

    @property
    def prunes(self) -> bool:
        """Whether width 0 is allowed."""
        return self.widths[0] == 0

    @property
    def gate_min(self) -> float:
        """The smallest gate value: the middle of the interval of the narrowest width."""
        return -0.5 if self.prunes else 0.5

    @property
    def gate_max(self) -> float:
        """The largest gate value, at which gates start (5.5 for the five widths of the paper)."""
        return len(self.nonzero) + 0.5

    def gate_of(self, width: int) -> float:
        """The gate value in the middle of a width's interval."""
        return -0.5 if width == 0 else self.nonzero.index(width) + 0.5

    def threshold(self, width: int) -> float:
        """The largest gate value that still selects ``width`` (infinity for the widest)."""
        if width == self.widths[-1]:
            return float("inf")
        return 0.0 if width == 0 else float(self.nonzero.index(width) + 1)

    def widths_of(self, gate: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """The widths that an array of gates selects: ``T(g)``, same shape, int64."""
        import numpy as np

        index = np.clip(np.ceil(gate).astype(np.int64), 0, len(self.nonzero))
        lowest = 0 if self.prunes else self.nonzero[0]
        return np.array((lowest, *self.nonzero), dtype=np.int64)[index]
