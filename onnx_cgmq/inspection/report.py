"""The report on a quantized model: widths and cost, read from the file alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from rich.console import Group

from onnx_cgmq.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.cost.activations import peak_bytes
from onnx_cgmq.cost.bops import FLOAT_BOPS_PER_MAC, op_bops
from onnx_cgmq.cost.macs import MacOp, mac_ops
from onnx_cgmq.cost.table import Pairs, macs_by_pair
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.kernels import Kernel, KernelChoice
from onnx_cgmq.graph.liveness import noted_live_sets
from onnx_cgmq.graph.lower.metadata import embedded_names, embedded_tensors
from onnx_cgmq.graph.lower.names import restore_names
from onnx_cgmq.graph.opspec import mac_spec
from onnx_cgmq.graph.sizes import set_input_shapes
from onnx_cgmq.inspection.kernels import executed_kernels
from onnx_cgmq.inspection.normalize import normalize
from onnx_cgmq.inspection.notes import open_sizes, unknown_operators
from onnx_cgmq.inspection.operands import Operands
from onnx_cgmq.inspection.reading import Reading, read_operand, stored_tensor, tensor_name

_INSIDE: Final = "(inside)"
_TOTALS: Final = ("macs", "bops", "rbop", "weight_bytes", "peak_activation_bytes")


@dataclass(frozen=True, eq=False)
class TensorReport:
    """One weight, bias or activation.

    Attributes:
        name: Name of the float tensor.
        role: Weight, bias or activation.
        granularity: How its widths vary.
        shape: Its shape; 0 for unknown sizes.
        widths: Bits, int64; broadcasts to the tensor.
        counts: Number of elements of every width (activations: of widths), ascending.
        mean_bits: Mean width.
        range: Smallest start and largest end of its ranges, as the embedded plan has them, or
            ``None``.
        share: Part of the model's bit operations that the nodes have which multiply it.
        stored: Type of the codes in the file, as ONNX names it.
        stored_bytes: Bytes that a weight or bias takes in the file, or its codes where floats hold
            them, as in QONNX.
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


@dataclass(frozen=True)
class NodeReport:
    """One MAC node, or one product of a node that has several.

    Attributes:
        name: Its name, with a suffix for the product.
        op_type: Its operator.
        operands: Names of the two tensors it multiplies; ``(inside)`` for a value inside of it.
        macs: Multiply-accumulates for one sample.
        bops: Bit operations for one sample.
        rbop: ``bops`` as a share of the float node's.
        bits: Mean widths of the two operands.
        kernel: Arithmetic of the kernel that onnxruntime runs it with; ``None`` if that was not
            looked up or can't be told.
        reason: Why the kernel is float, or can't be told.
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


@dataclass(frozen=True)
class Report:
    """Widths and cost of a model.

    Attributes:
        tensors: By name, in graph order.
        nodes: The MAC nodes in graph order.
        macs: Multiply-accumulates for one sample.
        bops: Bit operations for one sample.
        rbop: ``bops`` as a share of the float model's.
        weight_bytes: Bytes of the stored weights and biases of MAC nodes, and of tables.
        notes: Sentences on what could not be read, and how it was counted.
        pairs: Multiply-accumulates by the bits of their weight and of their activation.
        peak_activation_bytes: Bytes of the activations that are needed at the same time, at most;
            ``None`` if the file does not say which are (it does if that was bounded).
        float_activation_bytes: The same of the float model.
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

    def to_json(self, indent: int | None = 2) -> str:
        """JSON text; widths as counts."""
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
        """The report as tables for a terminal (a rich renderable)."""
        from onnx_cgmq.inspection.tables import report_tables

        return report_tables(self)


def inspect(
    model: ModelLike,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    kernels: bool = False,
) -> Report:
    """Reads the widths of a quantized model and counts its cost, from the file alone.

    Widths come from types, codes and limits in the graph. A plan in the metadata only says how they
    vary (per tensor, channel or element); a width that the codes exceed is not believed. A float
    model is all 32 bits. Files of other tools are read as well: QDQ and QOperator of onnxruntime,
    QCDQ, QONNX, MatMulNBits. What can't be told counts as 32 bits, with a note.

    Args:
        model: A quantized model: path, ``ModelProto`` or ``onnx_ir.Model``.
        shapes: Shapes of inputs, for one sample, at which cost is counted; by default those that
            the model was written with, and 1 for any other size that it leaves open.
        kernels: Load the model in onnxruntime as well, on its CPU provider, and look up which MAC
            nodes it runs in integers. If it can't load the model, a note says so.

    Returns:
        The report.

    Raises:
        ModelError: The model can't be read, still has gates, or has no MAC operators.
        ConfigError: The shapes are not for this model.
    """
    graph = load_model(model)
    if any(node.domain == "onnx_cgmq" for node in graph.graph.all_nodes()):
        raise ModelError("the model still has gates; write it back first, or inspect its plan")
    names = embedded_names(graph)
    restore_names(graph, names)
    normalize(graph)
    set_input_shapes(graph, shapes or {})
    claims = embedded_tensors(graph)
    operands = Operands(graph, claims)
    ops = mac_ops(graph, operands.source)
    if not ops:
        raise ModelError("the model has no MAC operators, so no widths to report")
    readings = dict(operands.readings)
    widths = {name: reading.widths for name, reading in readings.items()}
    found: dict[str, KernelChoice] = {}
    failure = ""
    if kernels:
        found, failure = executed_kernels(model, graph, operands, names)
    nodes = tuple(_node_report(op, widths, found.get(op.output)) for op in ops)
    for bias in _biases(graph, claims):
        readings.setdefault(bias.name, bias)
    weights = {name for name, reading in readings.items() if reading.role is Role.WEIGHT}
    live = noted_live_sets(graph)
    claimed = {name: claim["widths"] for name, claim in claims.items() if "widths" in claim}
    macs, total = sum(node.macs for node in nodes), sum(node.bops for node in nodes)
    multiplied: Counter[str] = Counter()
    for node in nodes:
        multiplied.update(dict.fromkeys(node.operands, node.bops))
    tensors = {
        name: _tensor_report(reading, claims.get(name, {}), multiplied[name] / max(1, total))
        for name, reading in readings.items()
    }
    return Report(
        tensors=tensors,
        nodes=nodes,
        macs=macs,
        bops=total,
        rbop=total / (FLOAT_BOPS_PER_MAC * macs) if macs else 0.0,
        weight_bytes=sum(tensor.stored_bytes for tensor in tensors.values()),
        notes=(
            *filter(None, [failure]),
            *_notes(readings.values()),
            *unknown_operators(graph),
            *open_sizes(graph),
        ),
        pairs=macs_by_pair(ops, widths, weights),
        # Quantizers that no MAC reads have no reading: there the plan is taken at its word.
        peak_activation_bytes=peak_bytes(live, {**claimed, **widths}) if live else None,
        float_activation_bytes=peak_bytes(live, {}) if live else None,
    )


def _notes(readings: Iterable[Reading]) -> Iterator[str]:
    for reading in readings:
        if reading.note:
            yield f"{reading.name}: {reading.note}; it counts as {FLOAT_BITS} bits"


def _node_report(
    op: MacOp, widths: Mapping[str, npt.NDArray[np.int64]], found: KernelChoice | None
) -> NodeReport:
    bops = op_bops(op, widths)
    inside = np.array(FLOAT_BITS)
    first, second = (float(np.mean(widths.get(name, inside))) for name in (op.a.name, op.b.name))
    return NodeReport(
        name=op.node,
        op_type=op.op_type,
        operands=(op.a.name or _INSIDE, op.b.name or _INSIDE),
        macs=op.macs,
        bops=bops,
        rbop=bops / (FLOAT_BOPS_PER_MAC * op.macs) if op.macs else 0.0,
        bits=(first, second),
        kernel=found.kernel if found else None,
        reason=found.reason if found else "",
    )


def _tensor_report(reading: Reading, claim: Mapping[str, Any], share: float) -> TensorReport:
    weight = reading.role is not Role.ACTIVATION
    widths = np.broadcast_to(reading.widths, reading.shape) if weight else reading.widths
    distinct, counts = np.unique(widths, return_counts=True)
    return TensorReport(
        name=reading.name,
        role=reading.role,
        granularity=reading.granularity,
        shape=reading.shape,
        widths=reading.widths,
        counts={int(width): int(count) for width, count in zip(distinct, counts, strict=True)},
        mean_bits=float(widths.mean()) if widths.size else 0.0,
        range=_claimed_range(claim),
        share=share,
        stored=reading.stored.name,
        stored_bytes=-(-reading.stored_bits // 8),
    )


def _claimed_range(claim: Mapping[str, Any]) -> tuple[float, float] | None:
    if "range" not in claim:
        return None
    low, high = claim["range"]
    return float(low), float(high)


def _biases(model: ir.Model, claims: Mapping[str, Mapping[str, Any]]) -> Iterator[Reading]:
    """Biases of MAC nodes; they cost no bit operations, so the plan is taken at its word."""
    for node in model.graph.all_nodes():
        spec = mac_spec(node)
        value = spec.bias_value(node) if spec is not None else None
        stored = None if value is None else stored_tensor(value)
        if value is None or stored is None:
            continue
        reading = read_operand(value, {})
        name = tensor_name(value) if tensor_name(value) in claims else reading.name
        widths = np.array(claims.get(name, {}).get("widths", reading.widths), dtype=np.int64)
        granularity = Granularity.ELEMENT if widths.ndim else Granularity.TENSOR
        yield replace(reading, name=name, role=Role.BIAS, granularity=granularity, widths=widths)
