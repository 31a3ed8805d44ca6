"""inspect(): makes a report of a quantized model from its file alone, whichever tool wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.contract.identifiers import GATED_DOMAIN, PLAN_KEY
from onnx_cgmq.cost.activations import peak_bytes
from onnx_cgmq.cost.bops import FLOAT_BOPS_PER_MAC, op_bops
from onnx_cgmq.cost.macs import MacOp, mac_ops
from onnx_cgmq.cost.table import macs_by_pair
from onnx_cgmq.errors import DAMAGE, ModelError, one_line
from onnx_cgmq.gating.live_sets import embedded_live_sets
from onnx_cgmq.gating.predicted_kernels import KernelChoice
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.input_shapes import set_input_shapes
from onnx_cgmq.graph.operators import mac_spec
from onnx_cgmq.inspection.executed_kernels import executed_kernels
from onnx_cgmq.inspection.normalize import normalize, take_declared_sizes
from onnx_cgmq.inspection.notes import (
    declared_sizes,
    open_sizes,
    overridable_constants,
    unknown_operators,
)
from onnx_cgmq.inspection.operands import Operands
from onnx_cgmq.inspection.reading import Reading, read_operand, stored_tensor, tensor_name
from onnx_cgmq.inspection.report import NodeReport, Report, TensorReport, width_counts
from onnx_cgmq.inspection.uncounted import (
    computed_weights,
    other_bytes,
    other_constants,
    uncounted_products,
)
from onnx_cgmq.ort.ranks import set_ranks
from onnx_cgmq.writing.compact.names import restore_names
from onnx_cgmq.writing.embedded_plan import embedded_names, embedded_tensors

_INSIDE: Final = "(inside)"
"""What the report calls an operand that is a value inside its operator."""


def inspect(
    model: ModelLike,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    kernels: bool = False,
) -> Report:
    """Reads the widths of a quantized model and counts its cost, from the file alone.

    Widths come from types, codes and limits in the graph. An embedded plan only says how they vary
    (per tensor, channel or element); a width that the codes exceed is not believed. In a float
    model all widths are 32. Files of other tools are read as well: QDQ and QOperator of
    onnxruntime, QCDQ, QONNX, MatMulNBits. A width that can't be read counts as 32 bits, and a note
    says so.

    Args:
        model: The quantized model: a path, ``ModelProto`` or ``onnx_ir.Model``.
        shapes: Shapes of inputs, for one sample, for which cost is counted. By default these are
            the shapes that the model was written with. Any other size that it leaves open is 1.
        kernels: Whether to load the model in onnxruntime too, on its CPU provider, and look up
            which MAC nodes run in integers. If onnxruntime can't load it, a note says so.

    Returns:
        The report.

    Raises:
        ModelError: The model can't be read, still has gates, or has no MAC nodes.
        ConfigError: The shapes are not for this model.
    """
    try:
        return _report(model, shapes or {}, kernels)
    except DAMAGE as error:  # whatever a graph that makes no sense lets a reader stumble over
        raise ModelError(
            f"the model can't be read: {type(error).__name__}: {one_line(error)}; check it with "
            "onnx.checker.check_model(full_check=True), and report it if it is valid"
        ) from error


def _report(model: ModelLike, shapes: Mapping[str, Sequence[int]], kernels: bool) -> Report:
    graph = load_model(model)
    if any(node.domain == GATED_DOMAIN for node in graph.graph.all_nodes()):
        raise ModelError(
            "the model still has gates; write its plan into it with write_back() first, or read "
            "the plan"
        )
    names = embedded_names(graph)
    restore_operand_names(graph, names)
    if PLAN_KEY in graph.metadata_props:
        _name_nodes(graph)
    declared = normalize(graph)
    set_input_shapes(graph, shapes)
    unproven = take_declared_sizes(graph, declared)
    set_ranks(graph)  # of what a file does not even declare
    claims = embedded_tensors(graph)
    operands = Operands(graph, claims)
    ops = mac_ops(graph, operands.source)
    if not ops:
        raise ModelError(
            "the model has no MAC operators, so there are no widths to report; give a model with "
            "operators such as Conv or MatMul"
        )
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
    live = embedded_live_sets(graph)
    claimed = {name: claim["widths"] for name, claim in claims.items() if "widths" in claim}
    macs, total = sum(node.macs for node in nodes), sum(node.bops for node in nodes)
    multiplied: Counter[str] = Counter()
    for node in nodes:
        multiplied.update(dict.fromkeys(node.operands, node.bops))
    tensors = {
        name: _tensor_report(reading, claims.get(name, {}), multiplied[name] / max(1, total))
        for name, reading in readings.items()
    }
    computed = computed_weights(graph, operands)
    weight_bytes = sum(tensor.stored_bytes for tensor in tensors.values())
    weight_bytes += sum(v.const_value.nbytes for v in computed if v.const_value is not None)
    others = other_bytes(graph, weight_bytes)
    return Report(
        tensors=tensors,
        nodes=nodes,
        macs=macs,
        bops=total,
        rbop=total / (FLOAT_BOPS_PER_MAC * macs) if macs else 0.0,
        weight_bytes=weight_bytes,
        other_bytes=others,
        notes=(
            *filter(None, [failure]),
            *_notes(readings.values()),
            *unknown_operators(graph),
            *uncounted_products(graph, macs),
            *other_constants(others, weight_bytes),
            *overridable_constants(graph),
            *declared_sizes(graph, unproven),
            *open_sizes(graph),
        ),
        pairs=macs_by_pair(ops, widths, weights),
        # Carried quantizers are not among the operands that are read: the plan has their widths.
        peak_activation_bytes=peak_bytes(live, {**claimed, **widths}) if live else None,
        float_activation_bytes=peak_bytes(live, {}) if live else None,
    )


def restore_operand_names(model: ir.Model, names: Mapping[str, str]) -> None:
    """Gives operands their names in the plan; each must stay the name of one value.

    Raises:
        ModelError: It would not.
    """
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [output for node in model.graph.all_nodes() for output in node.outputs]
    taken = {value.name for value in values}
    for value in values:
        new = names.get(str(value.name), value.name)
        if new != value.name and (new in taken or value.is_graph_input()):
            raise ModelError(
                f"the bit plan in the model's metadata calls {value.name!r} {new!r}, which is "
                f"another value; write the model again, or remove {PLAN_KEY!r}"
            )
    if len(set(names.values())) < len(names):
        raise ModelError(
            "the bit plan in the model's metadata gives two values one name; write the model "
            f"again, or remove {PLAN_KEY!r}"
        )
    restore_names(model, names)


def _name_nodes(model: ir.Model) -> None:
    """Names the nodes whose names our file leaves out, in place.

    A message would otherwise name them by their outputs, whose short names say nothing to users.
    """
    for number, node in enumerate(model.graph.all_nodes()):
        node.name = node.name or f"unnamed {node.op_type} {number}"


def _notes(readings: Iterable[Reading]) -> Iterator[str]:
    """Writes a note on every tensor whose width can't be read."""
    for reading in readings:
        if reading.note:
            yield f"{reading.name}: {reading.note}; it counts as {FLOAT_BITS} bits"


def _node_report(
    op: MacOp, widths: Mapping[str, npt.NDArray[np.int64]], found: KernelChoice | None
) -> NodeReport:
    """Reports on one product of a MAC node.

    Args:
        op: The product.
        widths: Widths by tensor name.
        found: The kernel that onnxruntime runs, if it was looked up.
    """
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
        slow=found.slow if found else False,
    )


def _tensor_report(reading: Reading, claim: Mapping[str, Any], share: float) -> TensorReport:
    """Reports on one tensor.

    Args:
        reading: What the file says about the tensor.
        claim: The entry of the tensor in the embedded plan.
        share: Share of the model's bit operations of the nodes that multiply the tensor.
    """
    weight = reading.role is not Role.ACTIVATION
    widths = np.broadcast_to(reading.widths, reading.shape) if weight else reading.widths
    return TensorReport(
        name=reading.name,
        role=reading.role,
        granularity=reading.granularity,
        shape=reading.shape,
        widths=reading.widths,
        counts=width_counts(widths),
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
    """Reads the biases of MAC nodes.

    Their widths are those of the embedded plan. They are not checked, because a bias costs no bit
    operations.
    """
    for node in model.graph.all_nodes():
        spec = mac_spec(node)
        value = spec.bias_value(node) if spec is not None else None
        stored = None if value is None else stored_tensor(value)
        if value is None or stored is None:
            continue
        reading = read_operand(value, {}, axis=0)
        name = tensor_name(value) if tensor_name(value) in claims else reading.name
        widths = np.array(claims.get(name, {}).get("widths", reading.widths), dtype=np.int64)
        granularity = Granularity.ELEMENT if widths.ndim else Granularity.TENSOR
        yield replace(reading, name=name, role=Role.BIAS, granularity=granularity, widths=widths)
