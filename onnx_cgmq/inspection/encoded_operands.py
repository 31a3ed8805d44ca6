"""Encodings of single tensors, from codes in a file and from what is read about operands."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, GridForm, Role
from onnx_cgmq.contract.encodings import WIDTHS, Encoding, largest_code, listed, smallest_code
from onnx_cgmq.graph.layouts import transposes_above
from onnx_cgmq.graph.operators import lookup_spec, mac_spec
from onnx_cgmq.inspection.file_grid import FileGrid
from onnx_cgmq.inspection.operands import Operands
from onnx_cgmq.inspection.patterns.grid import range_bits
from onnx_cgmq.inspection.reading import Reading, tensor_name
from onnx_cgmq.writing.embedded_plan import embedded_tensors

_Ints = npt.NDArray[np.int64]


class EncodedOperands:
    """What a file says about the operands of its MAC nodes, before it is taken apart.

    Attributes:
        notes: What encodings can't say of it.
    """

    def __init__(self, model: ir.Model) -> None:
        """Reads the operands of a normalized model."""
        self._claims = embedded_tensors(model)
        operands = Operands(model, self._claims)
        self._readings: dict[ir.Value, Reading] = {}
        for node in model.graph.all_nodes():
            spec = mac_spec(node) or lookup_spec(node)
            for index, value in spec.operand_values(node) if spec is not None else ():
                path = transposes_above(value)
                stored = path[-1].inputs[0] if path else value
                reading = operands.readings.get(operands.source(node, index).name)
                if stored is not None and reading is not None:
                    self._readings[stored] = reading
        self._mixed: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What the encodings do not say."""
        if not self._mixed:
            return ()
        return (f"{listed(self._mixed)} with several widths: the encodings have the widest one",)

    def activation(self, output: ir.Value, grid: FileGrid, ends: tuple[int, int]) -> Encoding:
        """The encoding of a value that DequantizeLinear makes of codes.

        Args:
            output: The value.
            grid: The grid of the codes.
            ends: The smallest and the largest code that is possible.
        """
        claim = self._claims.get(tensor_name(output), {})
        claimed = np.asarray(claim.get("widths", 0))
        return _encoding(Role.ACTIVATION, grid, ends, int(claimed) if claimed.ndim == 0 else 0)

    def weight(self, values: Iterable[ir.Value], grid: FileGrid, codes: _Ints) -> Encoding | None:
        """The encoding of a constant; ``None`` if it is no operand, such as a bias.

        Args:
            values: The values as which a node may read it.
            grid: The grid of its codes.
            codes: Its codes.
        """
        found = (self._readings[value] for value in values if value in self._readings)
        reading = next(found, None)
        if reading is None or int(reading.widths.max()) == FLOAT_BITS:
            return None
        if np.unique(reading.widths).size > 1:
            self._mixed.append(reading.name)
        less_zero = codes - grid.zero_point.reshape(grid.shape_along(codes.ndim))
        ends = int(less_zero.min(initial=0)), int(less_zero.max(initial=0))
        centred = FileGrid(grid.step, np.zeros_like(grid.zero_point), grid.axis)
        return _encoding(Role.WEIGHT, centred, ends, int(reading.widths.max()))


def codes_of(encoding: Encoding) -> tuple[int, int]:
    """The smallest and the largest code of an encoding with one step, less its zero point."""
    return int(smallest_code(encoding)), int(largest_code(encoding))


def _encoding(role: Role, grid: FileGrid, ends: tuple[int, int], claimed: int) -> Encoding:
    """The narrowest encoding that has all codes between two ends, or one of the claimed width."""
    zero = grid.zero_point
    smallest, largest = int((ends[0] - zero).min()), int((ends[1] - zero).max())
    bits = max(claimed, range_bits(smallest, largest))
    width = next((width for width in WIDTHS if width >= bits), 0)
    half = 2 ** (width - 1) - 1
    form, zero_point = GridForm.AFFINE, zero
    symmetric = smallest == -largest if role is Role.ACTIVATION else smallest >= -half
    if symmetric and (largest == half or role is Role.WEIGHT):
        form, zero_point = GridForm.SYMMETRIC, np.zeros_like(zero)
    elif ends[0] < 0 or ends[1] >= 2**width:  # codes of another type than 0 .. 2**width - 1
        zero_point = np.broadcast_to(np.int64(-min(smallest, 0)), zero.shape)
    if form is GridForm.AFFINE and not zero_point.any():
        form = GridForm.UNSIGNED
    axis = grid.axis if grid.step.ndim else None
    return Encoding(
        role=role, width=width, form=form, step=grid.step, zero_point=zero_point, axis=axis
    )
