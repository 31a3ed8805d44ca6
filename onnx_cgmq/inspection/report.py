"""The report on a quantized model: widths and cost of every tensor and node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.cost.table import Pairs
from onnx_cgmq.gating.predicted_kernels import Kernel

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


def _tables(report: Report) -> Group:
    """Makes the tables of tensors and nodes, the line of sizes, and the notes."""
    tensors = Table(title="Tensors", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    tensors.add_column("tensor", overflow="fold")  # the only column in which words may be broken
    for column in ("role", "shape", "bits", "range", "stored as"):
        tensors.add_column(column, no_wrap=column != "bits")
    for column in ("bytes", "BOPs"):
        tensors.add_column(column, justify="right", no_wrap=True)
    for tensor in report.tensors.values():
        size = f"{tensor.stored_bytes:,}" if tensor.stored_bytes else ""
        bits, ends = _bits_text(tensor), _range_text(tensor)
        role, share = tensor.role.value, f"{tensor.share:.1%}" if tensor.share else ""
        what = (tensor.name, role, tensor.shape_text)
        tensors.add_row(*what, bits, ends, tensor.stored, size, share)
    nodes = _node_table(report)
    size = f"weights and biases: {report.weight_bytes:,} bytes"
    if report.peak_activation_bytes is not None:
        size += f"; activations: {report.peak_activation_bytes:,} bytes at a time"
    return Group(tensors, nodes, size, *(f"note: {note}" for note in report.notes))


def _node_table(report: Report) -> Table:
    """Makes the table of nodes; it has kernels if they were looked up."""
    known = any(node.kernel or node.reason for node in report.nodes)
    nodes = Table("node", "operator", title="Cost for one sample", box=SIMPLE_HEAD)
    for column in ("bits", "MACs", "BOPs", "share", "RBOP"):
        nodes.add_column(column, justify="right", no_wrap=True)
    for column in ("kernel", "why not fast") if known else ():
        nodes.add_column(column, overflow="fold")
    for node in report.nodes:
        bits = " x ".join(f"{bits:.3g}" for bits in node.bits)
        share = f"{node.bops / max(1, report.bops):.1%}"
        cost = (f"{node.macs:,}", f"{node.bops:,}", share, f"{node.rbop:.3%}")
        kernel = (_kernel_text(node), node.reason) if known else ()
        nodes.add_row(node.name, node.op_type, bits, *cost, *kernel)
    nodes.add_section()
    nodes.add_row("total", "", "", f"{report.macs:,}", f"{report.bops:,}", "", f"{report.rbop:.3%}")
    return nodes


def _kernel_text(node: NodeReport) -> str:
    """Writes the kernel of a node, and whether it is a slow one."""
    name = node.kernel.value if node.kernel else "?"
    return f"{name}, slow" if node.slow else name


def _range_text(tensor: TensorReport) -> str:
    """Writes the range of a tensor."""
    if tensor.range is None or tensor.is_float:
        return ""
    low, high = tensor.range
    return f"\u00b1{high:.3g}" if low == -high else f"{low:.3g} .. {high:.3g}"


def _bits_text(tensor: TensorReport) -> str:
    """Writes the width of a tensor, or the mean of several and their shares."""
    if len(tensor.counts) == 1:
        return str(next(iter(tensor.counts)))
    total = sum(tensor.counts.values())
    shares = " ".join(f"{width}:{count / total:.0%}" for width, count in tensor.counts.items())
    return f"{tensor.mean_bits:.2f} = {shares}"
