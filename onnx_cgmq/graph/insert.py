"""The pass that puts gated quantizers on weights, biases and activations."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.config import Config
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.graph.gated_qdq import (
    ACCUMULATOR_OP,
    GATED_DOMAIN,
    GATED_VERSION,
    accumulator_qdq,
    function_name,
    gated_qdq,
    is_gated_quantizer,
)
from onnx_cgmq.graph.load import ModelLike, load_model
from onnx_cgmq.graph.nonnegative import is_nonnegative
from onnx_cgmq.graph.opspec import MAC_OP_TYPES, OpSpec, mac_spec, moves_codes
from onnx_cgmq.graph.prepare import is_prepared, prepare_in_place
from onnx_cgmq.graph.quantizer_spec import QuantizerSpec

SPEC_KEY: Final = "onnx_cgmq.quantizer"
"""Key of a quantizer's description in the ``metadata_props`` of its node."""

_SMALLEST_RANGE: Final = 1e-6  # of a tensor that is all zero: the step must not be 0


def insert_gates(model: ModelLike, config: Config | None = None, **settings: Any) -> ir.Model:
    """Puts a gated quantizer on every tensor that multiply-accumulates read.

    These are the constant weights, the activations (on the value that the operator reads) and the
    constant biases. A tensor has one quantizer however many such operators read it; all others go
    on reading the float value. Every gate starts at the widest width, so that the result equals the
    float model exactly if 32 bits are allowed. A bias of an operator with an integer kernel is then
    rounded to the INT32 codes which that kernel adds.

    Operators inside of subgraphs (``If``, ``Loop``, ``Scan``) stay float.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``; prepared (:func:`prepare`) if it is
            not yet. It is not changed.
        config: Granularities, widths, input width; or give them by name as ``settings``.
        **settings: Fields of :class:`Config`.

    Returns:
        A valid ONNX model with quantizers as model-local functions (domain ``onnx_cgmq``). The
        quantized value of ``v`` is ``v.quantized``; ``v.low``, ``v.high`` and ``v.gate`` are its
        initializers.

    Raises:
        ModelError: The model can't be read or prepared, has nothing to quantize or has gates
            already; or a size that a ``channel`` or ``element`` gate needs is not fixed.
        ConfigError: A setting is invalid.
    """
    if config is not None and settings:
        raise ConfigError(f"give config or settings, not both: {', '.join(settings)}")
    config = config or Config.create(**settings)
    gated = load_model(model)
    if not is_prepared(gated):
        prepare_in_place(gated)
    if any(is_gated_quantizer(node) for node in gated.graph):
        raise ModelError("the model has gates already; insert them into the float model")
    inserter = _Inserter(gated, config)
    for node in list(gated.graph):
        spec = mac_spec(node)
        if spec is not None and _reads_float32(node, spec):
            inserter.visit(node, spec)
    if not inserter.quantized:
        raise ModelError(
            f"nothing to quantize: none of {', '.join(MAC_OP_TYPES)} on float32 tensors outside "
            "of subgraphs (If, Loop, Scan)"
        )
    return gated


def quantizer_nodes(model: ir.Model) -> dict[str, tuple[ir.Node, QuantizerSpec]]:
    """Quantizer nodes and their specs by the name of the quantized tensor, in graph order.

    Raises:
        ModelError: A quantizer has lost its description.
    """
    found = {}
    for node in model.graph:
        if not is_gated_quantizer(node):
            continue
        text = node.metadata_props.get(SPEC_KEY)
        if text is None:
            raise ModelError(
                f"quantizer node '{node.name}' has no '{SPEC_KEY}' in its metadata_props; insert "
                "the gates again with insert_gates()"
            )
        spec = QuantizerSpec.from_json(text)
        found[spec.tensor] = (node, spec)
    return found


def set_form(model: ir.Model, tensor: str, form: GridForm) -> None:
    """Changes the form of a tensor's grids, in place.

    Calibration does so when an activation, such as a graph input, turns out never to be negative.

    Args:
        model: A gated model.
        tensor: Name of the quantized tensor.
        form: The new form. A range start that is new is ``-high``.

    Raises:
        ModelError: The tensor has no quantizer.
    """
    nodes = quantizer_nodes(model)
    if tensor not in nodes:
        raise ModelError(f"tensor '{tensor}' has no quantizer; there are: {', '.join(nodes)}")
    node, old = nodes[tensor]
    spec = _replace_form(old, form)
    x, *low, high, gate = node.inputs
    assert high is not None
    assert high.const_value is not None
    if form is GridForm.AFFINE and not low:
        low = [_initializer(model.graph, f"{tensor}.low", -high.const_value.numpy())]
    unused = low if form is not GridForm.AFFINE else []
    inputs = [x, *(low if form is GridForm.AFFINE else []), high, gate]
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    for value in unused:
        if value is not None and value.name and not value.uses():
            del model.graph.initializers[value.name]
    node.op_type = function_name(spec)
    node.metadata_props[SPEC_KEY] = spec.to_json()
    _add_function(model, gated_qdq(spec, model.opset_imports[""]))
    _drop_function(model, function_name(old))


def _replace_form(spec: QuantizerSpec, form: GridForm) -> QuantizerSpec:
    return QuantizerSpec(
        spec.tensor, spec.role, form, spec.granularity, spec.ladder, spec.shape, spec.axis
    )


class _Inserter:
    """Quantizers inserted so far, one for every tensor."""

    def __init__(self, model: ir.Model, config: Config) -> None:
        self.model = model
        self.graph = model.graph
        self.config = config
        self.opset = model.opset_imports[""]
        self.quantized: dict[ir.Value, tuple[ir.Node, QuantizerSpec]] = {}
        self.tied = _weights_with_two_axes(model.graph)
        model.opset_imports[GATED_DOMAIN] = GATED_VERSION

    def visit(self, node: ir.Node, op: OpSpec) -> None:
        operands = []
        for index in op.operands:
            value = node.inputs[index]
            assert value is not None
            if value not in self.quantized:
                self._quantize(value, self._operand_spec(node, op, index, value), node)
            operands.append(self.quantized[value])
            node.replace_input_with(index, operands[-1][0].outputs[0])
        bias = op.bias_value(node)
        if op.bias is None or bias is None or bias.const_value is None:
            return
        if bias not in self.quantized:
            self._quantize(bias, self._bias_spec(bias), node)
        source = self.quantized[bias][0].outputs[0]
        if op.integer_kernel(node) and _has_one_accumulator_step(operands):
            source = self._accumulator(node, bias, source, operands)
        node.replace_input_with(op.bias, source)

    def _operand_spec(
        self, node: ir.Node, op: OpSpec, index: int, value: ir.Value
    ) -> QuantizerSpec:
        if value.const_value is None:
            return self._activation_spec(node, op, value)
        shape = tuple(value.const_value.shape.numpy())
        axis = op.output_axis(node, index, len(shape))
        granularity = self.config.granularity
        if granularity is Granularity.CHANNEL and (axis is None or value in self.tied):
            granularity = Granularity.TENSOR
        return QuantizerSpec(
            tensor=str(value.name),
            role=Role.WEIGHT,
            form=GridForm.SYMMETRIC,
            granularity=granularity,
            ladder=self._weight_ladder(granularity),
            shape=shape,
            axis=axis if granularity is Granularity.CHANNEL else None,
        )

    def _weight_ladder(self, granularity: Granularity) -> Ladder:
        # A gate for the whole tensor must not prune the layer, not even where channels are asked.
        pruned = granularity is not Granularity.TENSOR
        return self.config.weight_ladder if pruned else self.config.ladder

    def _bias_spec(self, bias: ir.Value) -> QuantizerSpec:
        assert bias.const_value is not None
        shape = tuple(bias.const_value.shape.numpy())
        granularity = self.config.granularity if shape else Granularity.TENSOR
        return QuantizerSpec(
            tensor=str(bias.name),
            role=Role.BIAS,
            form=GridForm.SYMMETRIC,
            granularity=granularity,
            ladder=self.config.ladder,
            shape=shape,
            axis=len(shape) - 1 if granularity is Granularity.CHANNEL else None,
        )

    def _activation_spec(self, node: ir.Node, op: OpSpec, value: ir.Value) -> QuantizerSpec:
        if value.shape is None:
            raise ModelError(
                f"node '{node.name}' ({node.op_type}): the rank of its input '{value.name}' is "
                "unknown; infer shapes first, or export the model with fixed shapes"
            )
        rank = len(value.shape)
        granularity = self.config.activations if rank > 1 else Granularity.TENSOR
        axis = op.activation_axis % rank if granularity is Granularity.CHANNEL else None
        ladder = self.config.ladder
        if self.config.input_width is not None and _comes_from_input(value):
            ladder = Ladder((self.config.input_width,))
        form = GridForm.UNSIGNED if is_nonnegative(value) else GridForm.AFFINE
        return QuantizerSpec(
            tensor=str(value.name),
            role=Role.ACTIVATION,
            form=form,
            granularity=granularity,
            ladder=ladder,
            shape=_sample_shape(node, value, granularity, axis),
            axis=axis,
        )

    def _quantize(self, value: ir.Value, spec: QuantizerSpec, before: ir.Node) -> None:
        """Inserts the quantizer of a value before a node."""
        name = spec.tensor
        high = _initial_high(value, spec)
        inputs: list[ir.Value] = [value]
        if spec.form is GridForm.AFFINE:
            inputs.append(_initializer(self.graph, f"{name}.low", -high))
        gate = np.full(spec.gate_shape, spec.ladder.gate_max, dtype=np.float32)
        inputs.append(_initializer(self.graph, f"{name}.high", high))
        inputs.append(_initializer(self.graph, f"{name}.gate", gate))
        per_channel = spec.granularity is Granularity.CHANNEL
        node = ir.Node(
            GATED_DOMAIN,
            function_name(spec),
            inputs,
            [ir.AttrInt64("axis", spec.axis)] if per_channel and spec.axis is not None else [],
            outputs=[
                _float_value(f"{name}.quantized", value.shape),
                _float_value(f"{name}.step", ir.Shape(spec.range_item_shape)),
            ],
            name=f"{name}.quantizer",
        )
        node.metadata_props[SPEC_KEY] = spec.to_json()
        self.graph.insert_before(before, node)
        _add_function(self.model, gated_qdq(spec, self.opset))
        self.quantized[value] = (node, spec)

    def _accumulator(
        self,
        node: ir.Node,
        bias: ir.Value,
        source: ir.Value,
        operands: list[tuple[ir.Node, QuantizerSpec]],
    ) -> ir.Value:
        """Inserts the rounding of a bias to INT32 codes; one for each node that reads it."""
        steps = [quantizer.outputs[1] for quantizer, _ in operands]
        accumulator = ir.Node(
            GATED_DOMAIN,
            ACCUMULATOR_OP,
            [source, *steps],
            outputs=[_float_value(f"{node.name}.accumulated_bias", bias.shape)],
            name=f"{node.name}.accumulator",
        )
        self.graph.insert_before(node, accumulator)
        _add_function(self.model, accumulator_qdq(self.opset))
        return accumulator.outputs[0]


def _reads_float32(node: ir.Node, op: OpSpec) -> bool:
    """Whether a node multiplies float32 tensors: integer arithmetic is not quantized.

    Raises:
        ModelError: It multiplies another float type.
    """
    for index in op.operands:
        value = node.inputs[index]
        dtype = value.dtype if value is not None else None
        if dtype is None or dtype is ir.DataType.FLOAT:
            continue
        if dtype.is_floating_point():
            raise ModelError(
                f"node '{node.name}' ({node.op_type}) works on {dtype.name}; only float32 models "
                "can be quantized: convert the model to float32 first"
            )
        return False
    return True


def _has_one_accumulator_step(operands: list[tuple[ir.Node, QuantizerSpec]]) -> bool:
    """Whether a kernel can accumulate at ``step_x * step_w``, one per output channel."""
    (_, a), (_, b) = operands
    uniform = a.granularity is Granularity.TENSOR and a.role is Role.ACTIVATION
    return uniform and (b.role is Role.WEIGHT or b.granularity is Granularity.TENSOR)


def _weights_with_two_axes(graph: ir.Graph) -> set[ir.Value]:
    """Weights whose readers disagree on the channel axis (tied ``X @ W`` and ``Y @ W.T``)."""
    axes: dict[ir.Value, set[int | None]] = {}
    for node in graph:
        op = mac_spec(node)
        for index in op.operands if op is not None else ():
            value = node.inputs[index]
            if op is not None and value is not None and value.const_value is not None:
                rank = len(value.const_value.shape)
                axes.setdefault(value, set()).add(op.output_axis(node, index, rank))
    return {value for value, found in axes.items() if len(found) > 1}


def _comes_from_input(value: ir.Value) -> bool:
    """Whether a value is a graph input, or one with its elements moved."""
    while True:
        node = value.producer()
        if node is None:
            return value.is_graph_input()
        if not moves_codes(node) or node.inputs[0] is None:
            return False
        value = node.inputs[0]


def _sample_shape(
    node: ir.Node, value: ir.Value, granularity: Granularity, axis: int | None
) -> tuple[int, ...]:
    """Shape for a batch of one; sizes that are not fixed are 1 where no gate needs them."""
    assert value.shape is not None
    shape = []
    for index, size in enumerate(value.shape):
        gated = granularity is Granularity.ELEMENT or index == axis
        if index == 0 and len(value.shape) > 1:
            shape.append(1)
        elif isinstance(size, int):
            shape.append(size)
        elif index > 0 and gated:
            raise ModelError(
                f"'{value.name}', input of node '{node.name}' ({node.op_type}), has the size "
                f"'{size}' on axis {index}, which is not fixed: its activations can't have "
                f"'{granularity.value}' gates; choose activation_granularity='tensor', or export "
                "the model with that size fixed"
            )
        else:
            shape.append(1)
    return tuple(shape)


def _initial_high(value: ir.Value, spec: QuantizerSpec) -> npt.NDArray[np.float32]:
    """Largest magnitude of a constant for each range; 1 for activations, before calibration."""
    if value.const_value is None:
        return np.ones(spec.range_shape, dtype=np.float32)
    magnitude = np.abs(value.const_value.numpy())
    axes = tuple(i for i in range(magnitude.ndim) if i != spec.axis)
    per_channel = spec.granularity is Granularity.CHANNEL
    largest = magnitude.max(axis=axes if per_channel else None, initial=0.0)
    item = np.asarray(largest, dtype=np.float32).reshape(spec.range_item_shape)
    item = np.where(item > 0, item, np.float32(_SMALLEST_RANGE))
    return np.ascontiguousarray(np.broadcast_to(item, spec.range_shape), dtype=np.float32)


def _float_value(name: str, shape: ir.Shape | None) -> ir.Value:
    copied = ir.Shape(list(shape)) if shape is not None else None
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=copied)


def _initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.float32]) -> ir.Value:
    if name in graph.initializers:
        raise ModelError(f"the model already has a tensor named '{name}'; rename it")
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def _add_function(model: ir.Model, function: ir.Function) -> None:
    model.functions.setdefault(function.identifier(), function)


def _drop_function(model: ir.Model, op_type: str) -> None:
    """Removes a function that no node calls any more."""
    if not any(node.domain == GATED_DOMAIN and node.op_type == op_type for node in model.graph):
        model.functions.pop((GATED_DOMAIN, op_type, ""), None)
