"""The tensors of a page in graph order, with what file, plan and samples say of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnx_cgmq.contract.bits import FLOAT_BITS, Role
from onnx_cgmq.contract.plan import TensorPlan
from onnx_cgmq.inspection.report import TensorReport, width_counts
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
        tensor: What the file says of it, or the plan.
        anchor: What links to its row in the table lead to.
        error: Its error, if it was measured.
    """

    tensor: TensorReport
    anchor: str
    error: TensorError | None


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
        tensor = reported[name] if name in reported else _carried((planned or {})[name])
        rows.append(TensorRow(tensor, f"tensor-{number}", (errors or {}).get(name)))
    return tuple(rows)


def _carried(plan: TensorPlan) -> TensorReport:
    """Reports on a tensor that only the plan has."""
    return TensorReport(
        name=plan.name,
        role=plan.role,
        granularity=plan.granularity,
        shape=plan.shape,
        widths=plan.widths,
        counts=width_counts(plan.widths),
        mean_bits=plan.mean_bits,
        range=(float(plan.low.min()), float(plan.high.max())),
        share=0.0,
        stored=_CARRIED,
        stored_bytes=0,
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
        if row.tensor.role is role:
            height = value(row)
            shown = "" if height is None else f": {height:.3g} {text}"
            found.append(Mark(height, f"{row.tensor.name}{shown}", row.anchor))
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
    tensor = row.tensor
    bar = min(1.0, tensor.mean_bits / FLOAT_BITS)
    return Row(
        [
            Cell(tensor.name),
            Cell(tensor.role.value),
            Cell(tensor.shape_text),
            Cell(tensor.bits_text, tensor.mean_bits, bar, tensor.role.value),
            *errors,
            Cell(tensor.range_text),
            Cell(tensor.stored),
            Cell(f"{tensor.stored_bytes:,}" if tensor.stored_bytes else "", tensor.stored_bytes),
            Cell(f"{tensor.share:.1%}" if tensor.share else "", tensor.share),
        ],
        row.anchor,
    )


def error_cell(error: float | None) -> Cell:
    """Makes the cell of a relative error."""
    return Cell("") if error is None else Cell(f"{error:.2%}", error)
