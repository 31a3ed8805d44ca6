"""The tensors of a page in graph order, with what file, plan and samples say of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from onnx_cgmq.contract.bits import FLOAT_BITS, Role
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.inspection import TensorReport
from onnx_cgmq.reporting.charts import Mark
from onnx_cgmq.reporting.page import Cell, Row, Table

if TYPE_CHECKING:  # it loads torch
    from onnx_cgmq.learn.tensor_errors import TensorError

_CARRIED: Final = "carried"
"""What stands for the type in the file of a tensor that no MAC node multiplies."""


@dataclass(frozen=True)
class TensorRow:
    """A tensor of a page.

    Attributes:
        name: Its name.
        role: Weight, bias or activation.
        shape: Its shape; 0 for unknown sizes.
        counts: Number of elements, or of channels, by their width.
        mean_bits: The mean width.
        range: The smallest start and the largest end of its ranges, if it has any.
        stored: The type of its codes in the file.
        stored_bytes: Bytes that a weight or bias takes there.
        share: Share of the model's bit operations of the nodes that multiply it.
        anchor: What links to its row in the table lead to.
        error: Its error, if it was measured.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    counts: Mapping[int, int]
    mean_bits: float
    range: tuple[float, float] | None
    stored: str
    stored_bytes: int
    share: float
    anchor: str = ""
    error: TensorError | None = None

    @property
    def is_float(self) -> bool:
        """Whether no part of it is quantized."""
        return set(self.counts) == {FLOAT_BITS}


def tensor_rows(
    reported: Mapping[str, TensorReport],
    planned: Mapping[str, TensorPlan] | None = None,
    errors: Mapping[str, TensorError] | None = None,
) -> tuple[TensorRow, ...]:
    """Makes the rows of all tensors in graph order.

    Args:
        reported: The tensors that the file shows.
        planned: Those of the plan, if there is one: also those that no node multiplies.
        errors: Errors by name, if they were measured.
    """
    names = dict.fromkeys((*(planned or ()), *reported))
    rows = []
    for number, name in enumerate(names):
        row = _reported(reported[name]) if name in reported else _planned((planned or {})[name])
        rows.append(replace(row, anchor=f"tensor-{number}", error=(errors or {}).get(name)))
    return tuple(rows)


def _reported(tensor: TensorReport) -> TensorRow:
    return TensorRow(
        name=tensor.name,
        role=tensor.role,
        shape=tensor.shape,
        counts=tensor.counts,
        mean_bits=tensor.mean_bits,
        range=tensor.range,
        stored=tensor.stored,
        stored_bytes=tensor.stored_bytes,
        share=tensor.share,
    )


def _planned(tensor: TensorPlan) -> TensorRow:
    widths, counts = np.unique(tensor.widths, return_counts=True)
    return TensorRow(
        name=tensor.name,
        role=tensor.role,
        shape=tensor.shape,
        counts={int(width): int(count) for width, count in zip(widths, counts, strict=True)},
        mean_bits=tensor.mean_bits,
        range=(float(tensor.low.min()), float(tensor.high.max())),
        stored=_CARRIED,
        stored_bytes=0,
        share=0.0,
    )


def marks(
    rows: Sequence[TensorRow], role: Role, value: Callable[[TensorRow], float | None], text: str
) -> tuple[Mark, ...]:
    """Makes the marks of a chart, one for each tensor of a role.

    Args:
        rows: All tensors.
        role: The role.
        value: Gives the height of a mark.
        text: What follows a tensor's name and the height, such as ``bits``.
    """
    found = []
    for row in rows:
        if row.role is role:
            height = value(row)
            shown = "" if height is None else f": {height:.3g} {text}"
            found.append(Mark(height, f"{row.name}{shown}", row.anchor))
    return tuple(found)


def tensor_table(rows: Sequence[TensorRow]) -> Table:
    """Makes the table of tensors; it has errors if these were measured."""
    measured = any(row.error is not None for row in rows)
    columns = ["tensor", "role", "shape", "bits#"]
    columns += ["error#", "against float#"] if measured else []
    columns += ["range", "stored as", "bytes#", "share of BOPs#"]
    return Table(columns, [_row(row, measured=measured) for row in rows])


def _row(row: TensorRow, *, measured: bool) -> Row:
    errors: tuple[Cell, ...] = ()
    if measured:
        own = None if row.error is None else row.error.own
        from_float = None if row.error is None else row.error.from_float
        errors = (error_cell(own), error_cell(from_float))
    bar = min(1.0, row.mean_bits / FLOAT_BITS)
    return Row(
        [
            Cell(row.name),
            Cell(row.role.value),
            Cell("x".join(str(size or "?") for size in row.shape) or "scalar"),
            Cell(bits_text(row), row.mean_bits, bar, row.role.value),
            *errors,
            Cell(_range_text(row)),
            Cell(row.stored),
            Cell(f"{row.stored_bytes:,}" if row.stored_bytes else "", row.stored_bytes),
            Cell(f"{row.share:.1%}" if row.share else "", row.share),
        ],
        row.anchor,
    )


def error_cell(error: float | None) -> Cell:
    """Makes the cell of a relative error."""
    return Cell("") if error is None else Cell(f"{error:.2%}", error)


def bits_text(row: TensorRow) -> str:
    """Writes the width of a tensor, or the mean of several and their shares."""
    if len(row.counts) == 1:
        return str(next(iter(row.counts)))
    total = sum(row.counts.values())
    shares = ", ".join(f"{width}: {count / total:.0%}" for width, count in row.counts.items())
    return f"{row.mean_bits:.2f} ({shares})"


def _range_text(row: TensorRow) -> str:
    if row.range is None or row.is_float:
        return ""
    low, high = row.range
    return f"±{high:.3g}" if low == -high else f"{low:.3g} to {high:.3g}"
