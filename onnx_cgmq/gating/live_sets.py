"""Live sets: the activations that are in memory at the same time.

The order of the nodes decides which activations these are. Widths only decide how large they are.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_cgmq.contract.bits import FLOAT_BITS, Granularity, GridForm, Role
from onnx_cgmq.contract.identifiers import GATED_DOMAIN, LIVE_KEY
from onnx_cgmq.errors import DAMAGE, ModelError, one_line
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer
from onnx_cgmq.gating.placement import values_read
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.graph.operators import is_clamp, moves_codes_fast
from onnx_cgmq.graph.uses import only_element_reader
from onnx_cgmq.ort.sizes import Sizes


@dataclass(frozen=True)
class LiveSet:
    """The activations that are in memory while one node runs, for one sample.

    Attributes:
        fixed_bits: Bits of all activations that have no quantizer.
        elements: Number of elements of the other activations, by the name of the tensor whose
            quantizer sets their width.
    """

    fixed_bits: int
    elements: dict[str, int]


@dataclass
class _Buffer:
    """Memory for one activation.

    A quantizer and the clamps before it work in place, so they share one buffer.

    Attributes:
        elements: Number of elements, for one sample.
        bits: Bits of an element, if no quantizer sets its width.
        tensor: Name of the tensor whose quantizer sets the width; empty if none does.
        first: Position of the node that makes the activation; 0 for inputs of the graph.
        last: Position of the last node that reads it.
    """

    elements: int
    bits: int
    tensor: str = ""
    first: int = 0
    last: int = 0


def live_sets(gated: ir.Model) -> tuple[LiveSet, ...]:
    """Finds the live sets of a gated model.

    * The nodes run in the order of the graph. An activation is live from the node that makes it to
      the last node that reads it; an input of the graph from the start, an output to the end. While
      a node runs, all that it reads and makes is live.
    * Only quantizers work in place, and the clamps whose work a quantizer does. All other nodes
      need memory for their results.
    * An activation has the width of its quantizer, unless something also reads it as floats. Movers
      before or behind a quantizer move its codes, so what they read and make has that width too.
      All other activations have the bits of their type.
    * Constants and values inside subgraphs do not count. A size that only the data decide counts
      as 1.

    Returns:
        The sets in graph order, without those that are contained in their neighbour.
    """
    made: dict[int, list[_Buffer]] = {}
    for buffer in _buffers(gated):
        made.setdefault(buffer.first, []).append(buffer)
    found, live = [], list[_Buffer]()
    for position in sorted(made):  # where nothing is made, the set is contained in the one before
        live = [buffer for buffer in live if buffer.last >= position] + made[position]
        found.append(_live_set(live))
    return tuple(_maximal(found))


def _live_set(live: Sequence[_Buffer]) -> LiveSet:
    """Adds up buffers that are live at the same time."""
    elements: Counter[str] = Counter()
    for buffer in live:
        if buffer.tensor:
            elements[buffer.tensor] += buffer.elements
    fixed = sum(buffer.elements * buffer.bits for buffer in live if not buffer.tensor)
    return LiveSet(fixed, dict(elements))


def embed_live_sets(model: ir.Model, sets: Sequence[LiveSet]) -> None:
    """Stores live sets in the metadata of a written model, if there are any.

    They can't be found in the written model again, because its graph has other nodes than the
    gated one.
    """
    if not sets:
        return
    fields = [[item.fixed_bits, item.elements] for item in sets]
    model.metadata_props[LIVE_KEY] = json.dumps(fields, separators=(",", ":"))


def embedded_live_sets(model: ir.Model) -> tuple[LiveSet, ...]:
    """Reads the live sets that :func:`embed_live_sets` stored; empty if there are none.

    Raises:
        ModelError: The text in the metadata is damaged.
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
            f"the live sets in the model's metadata are damaged: {one_line(error)}; write the "
            f"model again, or remove '{LIVE_KEY}' from its metadata"
        ) from error
    return sets


def _buffers(gated: ir.Model) -> list[_Buffer]:
    """Finds the buffers of a gated model, as :func:`live_sets` counts them."""
    sizes, graph = Sizes(gated), gated.graph
    owners = _owners(gated)
    buffers: list[_Buffer] = []
    buffer_of: dict[ir.Value, _Buffer] = {}

    def add_buffer(value: ir.Value, position: int) -> None:
        shape = sizes.shape(value) or ()
        elements = -(-math.prod(1 if n is None else n for n in shape) // sizes.samples)
        bits = FLOAT_BITS if value.dtype is None else int(value.dtype.bitwidth)
        buffer_of[value] = _Buffer(elements, bits, owners.get(value, ""), position, position)
        buffers.append(buffer_of[value])

    for value in graph.inputs:
        if value.name not in graph.initializers:
            add_buffer(value, 0)
    for position, node in enumerate(graph, 1):
        for read in values_read(node):
            if read in buffer_of:
                buffer_of[read].last = position
        if is_gated_quantizer(node) or _is_absorbed(node, owners):
            source = node.inputs[0]
            if source in buffer_of:
                buffer_of[node.outputs[0]] = buffer_of[source]
        elif node.domain != GATED_DOMAIN and node.op_type != "Constant":
            for output in node.outputs:
                if output.name:
                    add_buffer(output, position)
    end = len(graph) + 1
    for output in graph.outputs:
        if output in buffer_of:
            buffer_of[output].last = end
    return buffers


def _owners(gated: ir.Model) -> dict[ir.Value, str]:
    """Maps every value to the name of the tensor whose quantizer sets its width, if one does."""
    owners: dict[ir.Value, str] = {}
    for name, (node, spec) in quantizer_nodes(gated).items():
        value = node.inputs[0]
        if spec.role is not Role.ACTIVATION or value is None or not only_element_reader(value):
            continue
        if spec.form is GridForm.DYNAMIC:  # its codes are made where they are read
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
    """Says whether a value is the output of a gated quantizer."""
    node = value.producer()
    return node is not None and is_gated_quantizer(node)


def _moved_up(value: ir.Value) -> Iterator[ir.Value]:
    """Lists the values above a quantizer that will be codes.

    The writer puts QuantizeLinear above movers and clamps with one reader
    (:mod:`~onnx_cgmq.gating.code_path`).
    """
    node = value.producer()
    while node is not None and moves_codes_fast(node):
        source = node.inputs[0]
        outputs = [output for output in node.outputs if output.uses()]
        if source is None or len(outputs) > 1 or not only_element_reader(source):
            return
        yield source
        value, node = source, source.producer()
    yield from _clamped(value)


def _clamped(value: ir.Value) -> Iterator[ir.Value]:
    """Lists the values above the clamps that make a value, while each has one reader."""
    node = value.producer()
    while node is not None and is_clamp(node):
        source = node.inputs[0]
        if source is None or not only_element_reader(source):
            return
        yield source
        node = source.producer()


def _is_absorbed(node: ir.Node, owners: dict[ir.Value, str]) -> bool:
    """Says whether a node is a clamp whose work the quantizer behind it does."""
    source = node.inputs[0] if node.inputs else None
    if not is_clamp(node) or source is None:
        return False
    return source in owners and owners[source] == owners.get(node.outputs[0])


def _maximal(sets: Sequence[LiveSet]) -> list[LiveSet]:
    """Leaves out sets that are contained in the one before or after."""
    kept: list[LiveSet] = []
    for item in sets:
        while kept and _is_contained(kept[-1], item):
            kept.pop()
        if not kept or not _is_contained(item, kept[-1]):
            kept.append(item)
    return kept


def _is_contained(one: LiveSet, other: LiveSet) -> bool:
    """Says whether one set needs no more of anything than another."""
    return one.fixed_bits <= other.fixed_bits and all(
        count <= other.elements.get(name, 0) for name, count in one.elements.items()
    )
