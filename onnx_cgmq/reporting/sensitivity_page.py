"""The sections of what each tensor costs in accuracy, operations and bytes."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_cgmq.api.sensitivity import Sensitivity, TensorSensitivity
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.reporting.file_sections import notes_section, settings_section
from onnx_cgmq.reporting.page import Cell, Fact, Facts, Row, Section, Table


def sensitivity_sections(found: Sensitivity, command: Sequence[str] | None) -> list[Section]:
    """Makes the sections of a page: a summary, the ranked table, notes, versions."""
    facts = [
        Fact("Tensors that dominate", str(len(found.dominant)), found.text),
        Fact("Measured on", f"{found.samples:,} samples"),
        Fact("Bit operations", f"{found.bops:,}", "for one sample, at these widths"),
        Fact("Weights and biases", f"{found.weight_bytes:,} bytes", "at these widths"),
    ]
    return [
        Section("summary", "Summary", [Facts(facts, tiles=True)]),
        notes_section(found.notes),
        sensitivity_section(found),
        settings_section([], command),
    ]


def sensitivity_section(found: Sensitivity) -> Section:
    """Shows all tensors, the costliest first."""
    widths = sorted({width for tensor in found.tensors for width in tensor.alone})
    columns = ["tensor", "rank#", "role", "bits#"]
    columns += [f"loss, {width} bits#" for width in widths]
    columns += ["among all#", "share of BOPs#", "bytes#"]
    largest = max((tensor.loss for tensor in found.tensors), default=0.0) or 1.0
    rows = [
        _row(rank, tensor, widths, largest, found.bops)
        for rank, tensor in enumerate(found.tensors, 1)
    ]
    text = (
        "The increase of the loss if one tensor alone is quantized, at each width; and, under "
        "'among all', by how much the loss falls if it alone stays float while every other tensor "
        "has its bits. Tensors are ranked by the loss at their own bits, which the bar shows. "
        "Nothing is learned here: what learned rounding wins back is not in it."
    )
    return Section("sensitivity", "What each tensor costs", [Table(columns, rows)], text)


def _row(
    rank: int, tensor: TensorSensitivity, widths: Sequence[int], largest: float, bops: int
) -> Row:
    role, share = tensor.role.value, tensor.bops[tensor.width] / max(1, bops)
    losses = []
    for width in widths:
        loss = tensor.alone.get(width)
        bar = tensor.loss / largest if width == tensor.width else None
        losses.append(Cell("") if loss is None else Cell(f"{loss:.3g}", loss, bar, role))
    size = tensor.stored_bytes[tensor.width]
    return Row(
        [
            Cell(tensor.name),
            Cell(str(rank), rank),
            Cell(role),
            Cell(str(tensor.width), tensor.width),
            *losses,
            Cell(f"{tensor.among:.3g}", tensor.among),
            Cell(f"{share:.1%}", share),
            Cell(f"{size:,}" if tensor.role is Role.WEIGHT else "", size),
        ]
    )
