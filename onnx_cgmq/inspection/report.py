"""The report on a quantized model: widths and cost of every tensor and node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Group
from rich.text import Text

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.cost.table import Pairs
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.inspection.terminal import Column, FittedTable, number_text, size_text

_TOTALS: Final = ("macs", "bops", "rbop", "weight_bytes", "peak_activation_bytes")


@dataclass(frozen=True, eq=False)
class TensorReport:
    """One weight, bias or activation.

    Attributes:
        name: Name of the float tensor.
        role: Weight, bias or activation.
        granularity: Whether the tensor has one width, or one per channel or element.
        shape: Shape of the tensor; 0 for unknown sizes.
        widths: Widths, int64, in a shape that broadcasts to the tensor's.
        counts: Number of elements by their width, in ascending order of widths. For activations it
            is the number of entries in ``widths``.
        mean_bits: The mean width.
        range: The smallest start and the largest end of the ranges, as the embedded plan has them;
            ``None`` without a plan.
        share: Share of the model's bit operations of the nodes that multiply the tensor.
        stored: Type of the codes in the file, as ONNX names it; ``FLOAT`` if there are none.
        stored_bytes: Bytes that a weight or bias takes in the file. If floats hold its codes, as in
            QONNX, these are the bytes of the codes. 0 for an activation.
    """

    name: str
    role: Role
    granularity: Granularity
    shape: tuple[int, ...]
    widths: npt.NDArray[np.int64] = field(repr=False)
    counts: Mapping[int, int]
    mean_bits: float
    range: tuple[float, float] | None
    share: float
    stored: str
    stored_bytes: int

    @property
    def is_float(self) -> bool:
        """Whether no part of it is quantized."""
        return set(self.counts) == {FLOAT_BITS}

    @property
    def shape_text(self) -> str:
        """The shape in a few signs, such as ``?x3x224x224``."""
        return "x".join(str(size or "?") for size in self.shape) or "scalar"

    @property
    def bits_text(self) -> str:
        """The width, or the mean of several and their shares: ``3.00 (2: 50%, 4: 50%)``."""
        if len(self.counts) == 1:
            return str(next(iter(self.counts)))
        total = sum(self.counts.values())
        shares = ", ".join(f"{width}: {count / total:.0%}" for width, count in self.counts.items())
        return f"{self.mean_bits:.2f} ({shares})"

    @property
    def range_text(self) -> str:
        """The range, such as ``0 to 5.9`` or ``±1.2``; empty if there is none."""
        if self.range is None or self.is_float:
            return ""
        low, high = self.range
        return f"\u00b1{high:.3g}" if low == -high else f"{low:.3g} to {high:.3g}"


def width_counts(widths: npt.NDArray[np.int64]) -> dict[int, int]:
    """Counts the elements by their width, in ascending order of widths."""
    distinct, counts = np.unique(widths, return_counts=True)
    return {int(width): int(count) for width, count in zip(distinct, counts, strict=True)}


@dataclass(frozen=True)
class NodeReport:
    """One MAC node, or one product of a MAC node that has several.

    Attributes:
        name: Name of the node. If it has several products, each has a suffix.
        op_type: Operator of the node.
        operands: Names of the two tensors that the node multiplies; ``(inside)`` for a value inside
            the operator.
        macs: Multiply-accumulates for one sample.
        bops: Bit operations for one sample.
        rbop: ``bops`` as a share of those at 32 bits.
        bits: Mean widths of the two operands.
        kernel: Arithmetic of the kernel that onnxruntime runs; ``None`` if it was not looked up or
            is unknown.
        reason: Why the kernel is float, slow or unknown, or what a packed one does; otherwise
            empty.
        slow: Whether it is an integer kernel that is slower than another one would be.
    """

    name: str
    op_type: str
    operands: tuple[str, str]
    macs: int
    bops: int
    rbop: float
    bits: tuple[float, float]
    kernel: Kernel | None = None
    reason: str = ""
    slow: bool = False


@dataclass(frozen=True)
class Report:
    """Widths and cost of a model.

    Attributes:
        tensors: The tensors by name, in graph order.
        nodes: The products of the MAC nodes, in graph order.
        macs: Multiply-accumulates for one sample.
        bops: Bit operations for one sample.
        rbop: ``bops`` as a share of the float model's.
        weight_bytes: Bytes of the stored weights and biases of MAC nodes, and of embedding tables;
            also of constants that these are computed from.
        notes: Sentences on what could not be read, and how it was counted.
        pairs: Multiply-accumulates by their pair of widths: of the weight, of the activation.
        peak_activation_bytes: The most bytes of activations that are needed at the same time, for
            one sample. ``None`` if the file does not say which ones are; it says so if a bound
            limited them.
        float_activation_bytes: The same bytes for the float model.
        other_bytes: Bytes of all other constants, such as steps, shapes and normalisations.
    """

    tensors: Mapping[str, TensorReport]
    nodes: tuple[NodeReport, ...]
    macs: int
    bops: int
    rbop: float
    weight_bytes: int
    notes: tuple[str, ...] = ()
    pairs: Pairs = field(default_factory=dict)
    peak_activation_bytes: int | None = None
    float_activation_bytes: int | None = None
    other_bytes: int = 0

    def to_json(self, indent: int | None = 2) -> str:
        """Makes JSON text of the report, in which widths are counts.

        Args:
            indent: Spaces of an indentation; ``None`` puts all on one line.
        """
        tensors = [
            {
                "name": tensor.name,
                "role": tensor.role.value,
                "granularity": tensor.granularity.value,
                "shape": tensor.shape,
                "widths": {str(width): count for width, count in tensor.counts.items()},
                "mean_bits": tensor.mean_bits,
                "range": tensor.range,
                "share": tensor.share,
                "stored": tensor.stored,
                "stored_bytes": tensor.stored_bytes,
            }
            for tensor in self.tensors.values()
        ]
        total = {key: getattr(self, key) for key in _TOTALS}
        pairs = {f"{weight}x{activation}": n for (weight, activation), n in self.pairs.items()}
        nodes = [vars(node) for node in self.nodes]
        fields = {**total, "pairs": pairs, "nodes": nodes, "tensors": tensors, "notes": self.notes}
        return json.dumps(fields, indent=indent)

    def table(self) -> Group:
        """Makes tables for a terminal, which rich prints."""
        return _tables(self)


_NAME, _NAME_BESIDE_TEXT = 34, 20
"""To how many characters a table may shorten names: of numbers, and where text needs room too."""


def _tables(report: Report) -> Group:
    """Makes the tables of tensors, nodes and slow kernels, the line of sizes, and the notes."""
    size = f"weights and biases: {size_text(report.weight_bytes)}"
    if report.peak_activation_bytes is not None:
        size += f"; activations: {size_text(report.peak_activation_bytes)} at a time"
    notes = (f"note: {note}" for note in report.notes)
    tables = (_tensor_table(report), _node_table(report), _slow_table(report))
    spaced = (part for table in tables if table is not None for part in (table, Text("")))
    return Group(*spaced, *(Text(line, overflow="ignore") for line in (size, *notes)))


def _tensor_table(report: Report) -> FittedTable:
    table = FittedTable(
        Column("tensor", shortest=_NAME),
        Column("role"),
        Column("shape", priority=3),
        Column("bits", wraps=True, shortest=13),
        Column("range", priority=1),
        Column("stored as", priority=4),
        Column("bytes", right=True, priority=2),
        Column("BOPs", right=True),
        title="Tensors",
    )
    for tensor in report.tensors.values():
        table.add_row(
            tensor.name,
            tensor.role.value,
            tensor.shape_text,
            tensor.bits_text,
            tensor.range_text,
            tensor.stored,
            number_text(tensor.stored_bytes) if tensor.stored_bytes else "",
            f"{tensor.share:.1%}" if tensor.share else "",
        )
    return table


def _node_table(report: Report) -> FittedTable:
    """Makes the table of nodes; it has kernels if they were looked up."""
    known = any(node.kernel or node.reason for node in report.nodes)
    table = FittedTable(
        Column("node", shortest=_NAME),
        Column("operator", priority=3),
        Column("bits", right=True),
        Column("MACs", right=True, priority=2),
        Column("BOPs", right=True, priority=4),
        Column("share", right=True),
        Column("RBOP", right=True, priority=1),
        *([Column("kernel")] if known else []),
        title="Cost for one sample",
    )
    for node in report.nodes:
        table.add_row(
            node.name,
            node.op_type,
            " x ".join(f"{bits:.3g}" for bits in node.bits),
            number_text(node.macs),
            number_text(node.bops),
            f"{node.bops / max(1, report.bops):.1%}",
            f"{node.rbop:.3%}",
            *([_kernel_text(node)] if known else []),
        )
    table.add_section()
    total = (number_text(report.macs), number_text(report.bops), "", f"{report.rbop:.3%}")
    table.add_row("total", "", "", *total, *([""] if known else []))
    return table


def _slow_table(report: Report) -> FittedTable | None:
    """Makes the table of nodes that don't run in a fast integer kernel, if there are any."""
    slow = [node for node in report.nodes if node.reason]
    if not slow:
        return None
    table = FittedTable(
        Column("node", shortest=_NAME_BESIDE_TEXT),
        Column("kernel"),
        Column("why not fast", wraps=True, shortest=_NAME_BESIDE_TEXT),
        title="Kernels that are not fast",
    )
    for node in slow:
        table.add_row(node.name, _kernel_text(node), node.reason)
    return table


def _kernel_text(node: NodeReport) -> str:
    """Writes the kernel of a node, and whether it is a slow one."""
    name = node.kernel.value if node.kernel else "?"
    return f"{name}, slow" if node.slow else name
