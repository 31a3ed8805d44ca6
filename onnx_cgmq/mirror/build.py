"""Compiles an ONNX graph to a flat list of steps over numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.quantizer_spec import QuantizerSpec
from onnx_cgmq.mirror.quantizer import accumulator_qdq
from onnx_cgmq.mirror.registry import Operator
from onnx_cgmq.mirror.select import (
    GATED_DOMAIN,
    choose_operators,
    context_of,
    is_quantizer,
    opset_of,
)

SPEC_KEY = "onnx_cgmq.quantizer"
_NONE_SLOT = 0
_CONSTANT_FORMS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True)
class Step:
    """One node, ready to run.

    Attributes:
        call: Runs it on its inputs.
        inputs: Slots of its inputs; slot 0 is always ``None``.
        host: Positions of inputs to convert to Python values first.
        outputs: Slots of its outputs.
        free: Slots that nothing reads afterwards.
        label: Operator, node and opset, for messages.
    """

    call: Callable[..., Any]
    inputs: tuple[int, ...]
    host: tuple[int, ...]
    outputs: tuple[int, ...]
    free: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class GatedNode:
    """A quantizer node and its constants."""

    spec: QuantizerSpec
    low: ir.TensorProtocol | None
    high: ir.TensorProtocol
    gate: ir.TensorProtocol


@dataclass(frozen=True)
class Program:
    """A compiled graph.

    Attributes:
        steps: Steps in order.
        template: Initial slots: ``None``, or a Python value converted from a constant.
        inputs: Slot of every graph input, by name.
        outputs: Slot of every graph output, by name.
        constants: Slot of every tensor that the module must hold, by value name.
        trainable: Names of the constants that reach operators as float tensors.
        slot_of: Slot of every named value.
    """

    steps: tuple[Step, ...]
    template: tuple[Any, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    constants: Mapping[str, int]
    trainable: frozenset[str]
    slot_of: Mapping[str, int]


def constants_of(graph: ir.Graph) -> dict[str, ir.TensorProtocol]:
    """Initializers and ``Constant`` nodes, by value name, in graph order.

    Raises:
        ModelError: If the data of an initializer is not there.
    """
    constants: dict[str, ir.TensorProtocol] = {}
    for name, value in graph.initializers.items():
        if value.const_value is None:
            raise ModelError(
                f"initializer '{name}' has no data; load the model with its external data"
            )
        constants[name] = value.const_value
    for node in graph:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            tensor, output = _constant_tensor(node), node.outputs[0].name
            if tensor is not None and output:
                constants[output] = tensor
    return constants


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a ``Constant`` node; ``None`` for strings and sparse tensors."""
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor()
        if name in _CONSTANT_FORMS:
            return ir.tensor(np.array(attribute.value, dtype=_CONSTANT_FORMS[name]))
    return None


def gated_nodes(
    graph: ir.Graph, constants: Mapping[str, ir.TensorProtocol]
) -> dict[ir.Node, GatedNode]:
    """The quantizer nodes in graph order.

    Raises:
        ModelError: If a quantizer lacks its description, or its ranges or gate are computed.
    """
    found = {}
    for node in graph:
        if not is_quantizer(node):
            continue
        if SPEC_KEY not in node.metadata_props:
            raise ModelError(
                f"quantizer node '{node.name}' has no '{SPEC_KEY}' in its metadata_props; "
                "insert the gates again with insert_gates()"
            )
        names = [value.name or "" for value in node.inputs[1:] if value is not None]
        missing = [name for name in names if name not in constants]
        if missing or len(names) not in (2, 3):
            raise ModelError(
                f"quantizer node '{node.name}': its ranges and gate must be initializers; "
                f"{', '.join(missing) or 'some are missing'}: insert the gates again"
            )
        *low, high, gate = (constants[name] for name in names)
        spec = QuantizerSpec.from_json(node.metadata_props[SPEC_KEY])
        found[node] = GatedNode(spec, low[0] if low else None, high, gate)
    return found


def compile_graph(
    model: ir.Model,
    constants: Mapping[str, ir.TensorProtocol],
    quantizers: Mapping[ir.Node, Callable[..., Any]],
) -> Program:
    """Compiles a graph.

    Args:
        model: Its graph, with unique value names.
        constants: From :func:`constants_of`.
        quantizers: What runs each quantizer node.

    Raises:
        UnsupportedOperatorError: If any node can't be run; names all of them.
    """
    graph = model.graph
    operators = choose_operators(model)
    slots: dict[ir.Value, int] = {}
    template: list[Any] = [None]

    def slot(value: ir.Value | None) -> int:
        if value is None or (value.name == "" and value.producer() is None):
            return _NONE_SLOT
        if value not in slots:
            slots[value] = len(template)
            template.append(None)
        return slots[value]

    pending: list[tuple[ir.Node, Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = []
    tensor_uses = {value.name for value in graph.outputs}
    host_values: dict[str, int] = {}

    def host_slot(name: str) -> int:
        if name not in host_values:
            host_values[name] = len(template)
            template.append(constants[name].numpy().tolist())
        return host_values[name]

    for node in graph:
        if node in quantizers:
            pending.append((node, quantizers[node], (slot(node.inputs[0]),), ()))
            tensor_uses.add(node.inputs[0].name if node.inputs[0] is not None else None)
            continue
        if node.outputs[0].name in constants:
            continue
        call, host = _bind(node, operators, model)
        inputs, dynamic = [], []
        for position, value in enumerate(node.inputs):
            name = value.name if value is not None else None
            if position in host and name is not None and name in constants:
                inputs.append(host_slot(name))
                continue
            inputs.append(slot(value))
            if name:
                tensor_uses.add(name)
            if position in host and inputs[-1] != _NONE_SLOT:
                dynamic.append(position)
        pending.append((node, call, tuple(inputs), tuple(dynamic)))

    named_constants = {}
    by_name = {value.name: value for value in _all_values(graph) if value.name}
    for name in constants:
        if name in tensor_uses:
            named_constants[name] = slot(by_name[name])
    for node, *_ in pending:
        for value in node.outputs:
            slot(value)
    graph_inputs = {
        str(value.name): slot(value) for value in graph.inputs if value.name not in constants
    }
    graph_outputs = {str(value.name): slot(value) for value in graph.outputs}
    kept = {*graph_outputs.values(), *named_constants.values(), *host_values.values(), _NONE_SLOT}
    return Program(
        steps=_with_liveness(pending, slots, kept, model),
        template=tuple(template),
        inputs=graph_inputs,
        outputs=graph_outputs,
        constants=named_constants,
        trainable=frozenset(
            name for name in named_constants if constants[name].dtype.is_floating_point()
        ),
        slot_of={value.name: index for value, index in slots.items() if value.name},
    )


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    values = [*graph.inputs, *graph.initializers.values()]
    return values + [value for node in graph for value in node.outputs]


def _with_liveness(
    pending: list[tuple[ir.Node, Callable[..., Any], tuple[int, ...], tuple[int, ...]]],
    slots: Mapping[ir.Value, int],
    kept: set[int],
    model: ir.Model,
) -> tuple[Step, ...]:
    """Steps that free every slot after its last use."""
    steps: list[Step] = []
    seen = set(kept)
    for node, call, inputs, host in reversed(pending):
        outputs = tuple(slots[value] for value in node.outputs)
        free = tuple(dict.fromkeys(s for s in (*inputs, *outputs) if s not in seen))
        seen.update(free)
        label = f"{node.op_type} node '{node.name}' (opset {opset_of(node, model)})"
        steps.append(Step(call, inputs, host, outputs, free, label))
    return tuple(reversed(steps))


def _bind(
    node: ir.Node, operators: Mapping[ir.Node, Operator], model: ir.Model
) -> tuple[Callable[..., Any], tuple[int, ...]]:
    if node.domain == GATED_DOMAIN:
        return accumulator_qdq, ()
    operator = operators[node]
    return partial(operator.handler, context_of(node, model)), operator.host
