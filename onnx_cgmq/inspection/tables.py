"""A report as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from onnx_cgmq.bits import FLOAT_BITS

if TYPE_CHECKING:
    from onnx_cgmq.inspection.report import Report, TensorReport


def report_tables(report: Report) -> Group:
    """Tables of tensors and nodes, the sizes, and the notes (a rich renderable)."""
    tensors = Table(title="Tensors", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    tensors.add_column("tensor", overflow="fold")  # the only one that may break words
    for column in ("role", "shape", "bits", "range", "stored as"):
        tensors.add_column(column, no_wrap=column != "bits")
    for column in ("bytes", "BOPs"):
        tensors.add_column(column, justify="right", no_wrap=True)
    for tensor in report.tensors.values():
        shape = "x".join(str(size or "?") for size in tensor.shape) or "scalar"
        size = f"{tensor.stored_bytes:,}" if tensor.stored_bytes else ""
        bits, ends = _bits_text(tensor), _range_text(tensor)
        role, share = tensor.role.value, f"{tensor.share:.1%}" if tensor.share else ""
        tensors.add_row(tensor.name, role, shape, bits, ends, tensor.stored, size, share)
    nodes = _node_table(report)
    size = f"weights and biases: {report.weight_bytes:,} bytes"
    if report.peak_activation_bytes is not None:
        size += f"; activations: {report.peak_activation_bytes:,} bytes at a time"
    return Group(tensors, nodes, size, *(f"note: {note}" for note in report.notes))


def _node_table(report: Report) -> Table:
    known = any(node.kernel or node.reason for node in report.nodes)
    nodes = Table("node", "operator", title="Cost for one sample", box=SIMPLE_HEAD)
    for column in ("bits", "MACs", "BOPs", "share", "RBOP"):
        nodes.add_column(column, justify="right", no_wrap=True)
    for column in ("kernel", "why not integer") if known else ():
        nodes.add_column(column, overflow="fold")
    for node in report.nodes:
        bits = " x ".join(f"{bits:.3g}" for bits in node.bits)
        share = f"{node.bops / max(1, report.bops):.1%}"
        cost = (f"{node.macs:,}", f"{node.bops:,}", share, f"{node.rbop:.3%}")
        kernel = (node.kernel.value if node.kernel else "?", node.reason) if known else ()
        nodes.add_row(node.name, node.op_type, bits, *cost, *kernel)
    nodes.add_section()
    nodes.add_row("total", "", "", f"{report.macs:,}", f"{report.bops:,}", "", f"{report.rbop:.3%}")
    return nodes


def _range_text(tensor: TensorReport) -> str:
    if tensor.range is None or set(tensor.counts) == {FLOAT_BITS}:
        return ""
    low, high = tensor.range
    return f"\u00b1{high:.3g}" if low == -high else f"{low:.3g} .. {high:.3g}"


def _bits_text(tensor: TensorReport) -> str:
    if len(tensor.counts) == 1:
        return str(next(iter(tensor.counts)))
    total = sum(tensor.counts.values())
    shares = " ".join(f"{width}:{count / total:.0%}" for width, count in tensor.counts.items())
    return f"{tensor.mean_bits:.2f} = {shares}"
