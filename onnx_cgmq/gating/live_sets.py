"""Which activations are needed at the same time: the order of the graph decides, widths do not."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, Role
from onnx_cgmq.contract.identifiers import GATED_DOMAIN, LIVE_KEY
from onnx_cgmq.errors import DAMAGE, ModelError, one_line
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.placement import values_read
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.operators import is_clamp, moves_codes_fast
from onnx_cgmq.graph.uses import has_one_reader
from onnx_cgmq.ort.sizes import Sizes


@dataclass(frozen=True)
class LiveSet:
    """What has to be held while one node runs, for one sample.

    Attributes:
        fixed_bits: Bits of all that has no quantizer.
        elements: Elements by the tensor whose quantizer sets their width.
    """

    fixed_bits: int
    elements: dict[str, int]


@dataclass
class _Buffer:
    """Room for one activation; a quantizer and the clamps before it work in place."""

    elements: int
    bits: int
    tensor: str = ""
    first: int = 0
    last: int = 0


def live_sets(gated: ir.Model) -> tuple[LiveSet, ...]:
    """The live sets of a gated model, in graph order.

    The nodes run in the order of the graph. A tensor is held from the node that makes it to the
    last one that reads it, inputs of the graph from the start and outputs to the end; a node holds
    what it reads and what it makes. Constants don't count. Apart from quantizers, and from Relu and
    Clip which a quantizer makes limits of its codes, no node is assumed to work in place. An
    activation has the width of its quantizer, unless something also reads it as floats; what only
    moves values up to a quantizer, or behind one, moves its codes. All else has the bits of its
    type. Values inside of subgraphs are not counted, sizes that the data decide count as 1.

    Returns:
        Without sets that are part of the one before or after.
    """
    made: dict[int, list[_Buffer]] = {}
    for buffer in _buffers(gated):
        made.setdefault(buffer.first, []).append(buffer)
    found, live = [], list[_Buffer]()
    for position in sorted(made):  # a set is largest where something is made
        live = [buffer for buffer in live if buffer.last >= position] + made[position]
        found.append(_live_set(live))
    return tuple(_maximal(found))


def _live_set(live: Sequence[_Buffer]) -> LiveSet:
    elements: Counter[str] = Counter()
    for buffer in live:
        if buffer.tensor:
            elements[buffer.tensor] += buffer.elements
    fixed = sum(buffer.elements * buffer.bits for buffer in live if not buffer.tensor)
    return LiveSet(fixed, dict(elements))


def note_live_sets(model: ir.Model, sets: Sequence[LiveSet]) -> None:
    """Notes live sets, if there are any, in a written model, whose graph has other nodes."""
    if not sets:
        return
    fields = [[item.fixed_bits, item.elements] for item in sets]
    model.metadata_props[LIVE_KEY] = json.dumps(fields, separators=(",", ":"))


def noted_live_sets(model: ir.Model) -> tuple[LiveSet, ...]:
    """The live sets that :func:`note_live_sets` noted; none without.

    Raises:
        ModelError: They are damaged.
    """
    text = model.metadata_props.get(LIVE_KEY)
    if text is None:
        return ()
    try:
        sets = tuple(
            LiveSet(int(fixed), {str(name): int(count) for name, count in elements.items()})
            for fixed, elements in json.loads(text)
        )
        if any(min(item.fixed_bits, *item.elements.values(), 0) < 0 for item in sets):
            raise ValueError("negative sizes")
    except DAMAGE as error:
        raise ModelError(
            f"the live sets in the model's metadata are damaged: {one_line(error)}; "
            f"write the model again, or remove {LIVE_KEY!r}"
        ) from error
    return sets


def _buffers(gated: ir.Model) -> list[_Buffer]:
    sizes, graph = Sizes(gated), gated.graph
    owners = _owners(gated)
    buffers: list[_Buffer] = []
    of: dict[ir.Value, _Buffer] = {}

    def hold(value: ir.Value, position: int) -> None:
        shape = sizes.shape(value) or ()
        elements = -(-math.prod(1 if n is None else n for n in shape) // sizes.samples)
        bits = FLOAT_BITS if value.dtype is None else int(value.dtype.bitwidth)
        of[value] = _Buffer(elements, bits, owners.get(value, ""), position, position)
        buffers.append(of[value])

    for value in graph.inputs:
        if value.name not in graph.initializers:
            hold(value, 0)
    for position, node in enumerate(graph, 1):
        for read in values_read(node):
            if read in of:
                of[read].last = position
        if is_gated_quantizer(node) or _is_absorbed(node, owners):
            source = node.inputs[0]
            if source in of:
                of[node.outputs[0]] = of[source]
        elif node.domain != GATED_DOMAIN and node.op_type != "Constant":
            for output in node.outputs:
                if output.name:
                    hold(output, position)
    end = len(graph) + 1
    for output in graph.outputs:
        if output in of:
            of[output].last = end
    return buffers


def _owners(gated: ir.Model) -> dict[ir.Value, str]:
    """By value, the tensor whose quantizer sets its width."""
    owners: dict[ir.Value, str] = {}
    for name, (node, spec) in quantizer_nodes(gated).items():
        value = node.inputs[0]
        if spec.role is not Role.ACTIVATION or value is None or not has_one_reader(value):
            continue
        owners[value] = owners[node.outputs[0]] = name
        if spec.granularity is Granularity.TENSOR:
            owners.update(dict.fromkeys(_moved_up(value), name))
        else:
            owners.update(dict.fromkeys(_clamped(value), name))
    codes = {value for value in owners if _is_quantized(value)}
    for node in gated.graph:
        source = node.inputs[0] if node.inputs else None
        if moves_codes_fast(node) and source in codes:
            codes.update(node.outputs)
            for output in node.outputs:
                owners.setdefault(output, owners[source])
    return owners


def _is_quantized(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and is_gated_quantizer(node)


def _moved_up(value: ir.Value) -> Iterator[ir.Value]:
    """Values above a quantizer that hold its codes once it moves up, as it is written."""
    node = value.producer()
    while node is not None and moves_codes_fast(node):
        source = node.inputs[0]
        outputs = [output for output in node.outputs if output.uses()]
        if source is None or len(outputs) > 1 or not has_one_reader(source):
            return
        yield source
        value, node = source, source.producer()
    yield from _clamped(value)


def _clamped(value: ir.Value) -> Iterator[ir.Value]:
    """Values above the clamps that make a value for one reader alone."""
    node = value.producer()
    while node is not None and is_clamp(node):
        source = node.inputs[0]
        if source is None or not has_one_reader(source):
            return
        yield source
        node = source.producer()


def _is_absorbed(node: ir.Node, owners: dict[ir.Value, str]) -> bool:
    """Whether a quantizer behind a clamp does its work."""
    source = node.inputs[0] if node.inputs else None
    if not is_clamp(node) or source is None:
        return False
    return source in owners and owners[source] == owners.get(node.outputs[0])


def _maximal(sets: Sequence[LiveSet]) -> list[LiveSet]:
    kept: list[LiveSet] = []
    for item in sets:
        while kept and _is_part(kept[-1], item):
            kept.pop()
        if not kept or not _is_part(item, kept[-1]):
            kept.append(item)
    return kept


def _is_part(one: LiveSet, other: LiveSet) -> bool:
    return one.fixed_bits <= other.fixed_bits and all(
        count <= other.elements.get(name, 0) for name, count in one.elements.items()
    )
