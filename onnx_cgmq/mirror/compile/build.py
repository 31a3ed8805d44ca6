"""Compiles a model to a flat list of steps. Functions are flattened, subgraphs become bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import zip_longest
from typing import Any

import onnx_ir as ir

from onnx_cgmq.contract.identifiers import GATED_DOMAIN
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.standard import standard_function
from onnx_cgmq.mirror.compile.constants import Constant, constant_tensor, is_constant_node
from onnx_cgmq.mirror.compile.host_steps import compile_on_host
from onnx_cgmq.mirror.compile.scope import NONE_SLOT, Frame, HostValue, Scope, is_omitted
from onnx_cgmq.mirror.compile.select import (
    NO_OPERATOR,
    Problems,
    choose_operator,
    domain_of,
)
from onnx_cgmq.mirror.compile.strings import nodes_without_strings, outputs_without_strings
from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES, is_supported, to_torch
from onnx_cgmq.mirror.core.program import Body, HeldConstant, Program, call_with_bodies
from onnx_cgmq.mirror.core.registry import Context, Operator
from onnx_cgmq.mirror.quantizers.accumulator import accumulator_qdq

_Attributes = Mapping[str, ir.Attr]


def compile_model(
    model: ir.Model,
    constants: Mapping[ir.Value, Constant],
    quantizers: Mapping[ir.Node, Callable[..., Any]],
) -> Program:
    """Compiles a model.

    Args:
        model: The model; value names must be unique in every graph.
        constants: Its constants, from
            :func:`~onnx_cgmq.mirror.compile.constants.constants_of`.
        quantizers: The function or module that runs each quantizer node.

    Raises:
        UnsupportedOperatorError: If a node can't be run; the message names all such nodes.
        ModelError: If a value is read before it is computed, or a function calls itself.
    """
    return _Compiler(model, constants, quantizers).program()


class _Compiler:
    def __init__(
        self,
        model: ir.Model,
        constants: Mapping[ir.Value, Constant],
        quantizers: Mapping[ir.Node, Callable[..., Any]],
    ) -> None:
        self._model = model
        self._constants = constants
        self._quantizers = quantizers
        self._problems = Problems()

    def program(self) -> Program:
        """Compiles the main graph."""
        graph = self._model.graph
        frame = Frame()
        scope = Scope(frame, self._constants, self._model.opset_imports)
        inputs = {
            str(value.name): scope.define(value)
            for value in graph.inputs
            if value not in self._constants
        }
        self._nodes(nodes_without_strings(graph), scope)
        self._problems.raise_if_any()
        outputs = {str(value.name): scope.slot(value) for value in outputs_without_strings(graph)}
        constants = self._held(frame)
        slot_of = {name: held.slot for name, held in constants.items() if name}
        host_types = {}
        for value, found in scope.values.items():
            if isinstance(found, HostValue):
                host_types[found.slot] = TORCH_DTYPES[found.dtype]
            if value.name and not isinstance(found, Constant):
                slot_of[value.name] = found.slot if isinstance(found, HostValue) else found
        return Program(
            steps=frame.steps(kept=tuple(outputs.values())),
            template=tuple(frame.template),
            inputs=inputs,
            outputs=outputs,
            constants=constants,
            slot_of=slot_of,
            host_types=host_types,
            place=frame.place,
        )

    def _held(self, frame: Frame) -> dict[str, HeldConstant]:
        """The constants that are read as tensors: first the model's, then those of definitions."""
        used = frame.constants
        held = {
            constant.name: HeldConstant(
                used[constant], constant.tensor, constant.tensor.dtype.is_floating_point()
            )
            for constant in self._constants.values()
            if constant in used
        }
        for constant, slot in used.items():
            if not constant.is_learned:
                held[f"{constant.name}#{len(held)}"] = HeldConstant(slot, constant.tensor, False)
        return held

    def _nodes(self, nodes: Iterable[ir.Node], scope: Scope) -> None:
        for index, node in enumerate(nodes):
            self._node(node, scope, f"{scope.path}{node.name or f'#{index}'}")

    def _node(self, node: ir.Node, scope: Scope, name: str) -> None:
        if node.outputs and node.outputs[0] in self._constants:
            return
        attributes = _resolved(node, scope)
        domain, context = domain_of(node), _context(node, attributes, scope, name)
        if node in self._quantizers:
            _add(self._quantizers[node], node, scope, context, [scope.slot(node.inputs[0])])
            return
        if domain == GATED_DOMAIN:
            _add(accumulator_qdq, node, scope, context, map(scope.slot, node.inputs))
            return
        function = self._model.functions.get(node.op_identifier())
        if function is not None:
            self._call(function, node, attributes, scope, name)
            return
        if is_constant_node(node):
            tensor = constant_tensor(attributes)
            if tensor is not None:  # in a definition, and made of the attributes of this call
                constant = Constant(f"{name}.{node.outputs[0].name}", tensor, is_learned=False)
                scope.values[node.outputs[0]] = constant
                return
        if domain == "" and compile_on_host(node, context, scope):
            return
        types = [scope.type_of(value) for value in (*node.inputs, *node.outputs)]
        operator = choose_operator(domain, context, types)
        if isinstance(operator, Operator):
            self._step(node, operator, context, attributes, scope)
            return
        if operator == NO_OPERATOR:
            definition = standard_function(node, attributes, context.opset, context.input_types)
            if definition is not None:
                self._call(definition, node, attributes, scope, name)
                return
        self._problems.add(domain, context, operator)
        for value in node.outputs:
            scope.define(value)

    def _step(
        self,
        node: ir.Node,
        operator: Operator,
        context: Context,
        attributes: _Attributes,
        scope: Scope,
    ) -> None:
        """Adds a step for a node that has a handler."""
        inputs: list[int] = []
        tensors: list[int] = []
        for position, value in enumerate(node.inputs):
            known = position in operator.host_if_known and scope.is_known(value)
            if known or position in operator.host:
                slot, is_tensor = scope.host_slot(value)
                if is_tensor:
                    tensors.append(position)
            else:
                slot = scope.slot(value)
            inputs.append(slot)
        call: Callable[..., Any] = partial(operator.handler, context)
        if operator.bodies:
            count = len(inputs)
            bodies: list[Body | None] = []
            for key in operator.bodies:
                body = None
                if key in attributes:
                    inner = scope.subgraph(f"{context.node}/{key}/")
                    body = self._body(attributes[key].as_graph(), inner)
                    inputs += inner.frame.captured
                bodies.append(body)
            call = partial(call_with_bodies, call, bodies, count)
        _add(call, node, scope, context, inputs, tuple(tensors))

    def _body(self, graph: ir.Graph, scope: Scope) -> Body:
        """Compiles a subgraph, in a scope of its own."""
        inputs = tuple(scope.define(value) for value in graph.inputs)
        self._nodes(graph, scope)
        outputs = tuple(scope.slot(value) for value in graph.outputs)
        frame = scope.frame
        return Body(
            steps=frame.steps(kept=(*inputs, *outputs)),
            template=tuple(frame.template),
            inputs=inputs,
            captures=tuple(frame.captured.values()),
            outputs=outputs,
            output_types=tuple((value.dtype, value.shape) for value in graph.outputs),
            place=frame.place,
        )

    def _call(
        self,
        function: ir.Function,
        node: ir.Node,
        attributes: _Attributes,
        scope: Scope,
        name: str,
    ) -> None:
        """Flattens the body of a function into the frame of its caller."""
        key = (domain_of(node), node.op_type, node.overload)
        if key in scope.calls:
            raise ModelError(
                f"node '{name}': function {node.op_type} calls itself; export the model again"
            )
        defaults = {k: a for k, a in function.attributes.items() if a.value is not None}
        inner = Scope(
            scope.frame,
            self._constants,
            {**self._model.opset_imports, **function.opset_imports},
            f"{name}/",
            {**defaults, **attributes},
            calls=(*scope.calls, key),
        )
        if len(node.inputs) > len(function.inputs):
            raise ModelError(
                f"node '{name}' gives function {node.op_type} too many inputs; export the model "
                "again"
            )
        for parameter, argument in zip_longest(function.inputs, node.inputs):
            inner.types[parameter] = scope.type_of(argument)
            inner.values[parameter] = (
                NONE_SLOT if argument is None or is_omitted(argument) else scope.find(argument)
            )
        self._nodes(function, inner)
        for value, result in zip(node.outputs, function.outputs, strict=False):
            scope.values[value] = inner.find(result)


def _add(
    call: Callable[..., Any],
    node: ir.Node,
    scope: Scope,
    context: Context,
    inputs: Iterable[int],
    host: tuple[int, ...] = (),
) -> None:
    slots = tuple(inputs)
    outputs = [scope.define(value) for value in node.outputs]
    scope.frame.add(call, slots, outputs, context.label, host)


def _resolved(node: ir.Node, scope: Scope) -> _Attributes:
    """The attributes of a node.

    Inside a function, an attribute may refer to one of the function. It gets the value of the call.
    """
    found = {}
    for name, attribute in node.attributes.items():
        if not attribute.is_ref():
            found[name] = attribute
        elif given := scope.attributes.get(attribute.ref_attr_name or ""):
            found[name] = ir.Attr(name, given.type, given.value)
    return found


def _python_value(attribute: ir.Attr) -> Any:
    if attribute.type is ir.AttributeType.TENSOR and is_supported(attribute.as_tensor().dtype):
        return to_torch(attribute.as_tensor())
    return attribute.value


def _context(node: ir.Node, attributes: _Attributes, scope: Scope, name: str) -> Context:
    """Collects what a handler may know about a node."""
    named = [index for index, value in enumerate(node.outputs) if value.name]
    read = (i for i in named if node.outputs[i].uses() or node.outputs[i].is_graph_output())
    return Context(
        node=name,
        op_type=node.op_type,
        opset=scope.opsets.get(domain_of(node), scope.opsets.get(node.domain, 1)),
        attributes={key: _python_value(attribute) for key, attribute in attributes.items()},
        input_types=tuple(scope.type_of(value) for value in node.inputs),
        output_count=max(named, default=0) + 1,
        wanted_outputs=frozenset(read),
        place=scope.frame.place,
    )
