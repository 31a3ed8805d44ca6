"""insert_gates(): puts gated quantizers on weights, biases and activations."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from typing_extensions import Unpack

from onnx_cgmq.contract.bits import (
    FLOAT_BITS,
    INTEGER_KERNEL_BITS,
    Granularity,
    GridForm,
    Ladder,
    Role,
)
from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.contract.identifiers import GATED_DOMAIN, SPEC_KEY
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import ConfigError, ModelError
from onnx_cgmq.gating.choices import Choices
from onnx_cgmq.gating.dynamic_products import why_not_dynamic
from onnx_cgmq.gating.exact import exact_ranges, round_slopes
from onnx_cgmq.gating.gated_qdq import (
    ACCUMULATOR_OP,
    GATED_VERSION,
    accumulator_qdq,
    function_name,
    gated_qdq,
    is_gated_quantizer,
    quantizer_attributes,
)
from onnx_cgmq.gating.integer_path import add_carried_quantizers
from onnx_cgmq.gating.placement import (
    activation_spec,
    bias_spec,
    carried_spec,
    channel_axes,
    check_constant,
    quantized_nodes,
    weight_spec,
)
from onnx_cgmq.gating.quantizer_nodes import (
    add_function,
    add_initializer,
)
from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.graph.files.load import ModelLike, load_model
from onnx_cgmq.graph.input_shapes import set_input_shapes
from onnx_cgmq.graph.layouts import stored_weight
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.nonnegative import nonnegative_values
from onnx_cgmq.graph.operators import MAC_OP_TYPES, mac_spec
from onnx_cgmq.preparation.prepare import check_runtime, is_prepared, prepare_in_place
from onnx_cgmq.preparation.unknown_ranks import find_ranks
from onnx_cgmq.settings.config import Config, Settings

_SMALLEST_RANGE: Final = 1e-6
"""End of the range of a tensor whose elements are all 0: its step must not be 0."""


def insert_gates(
    model: ModelLike, config: Config | None = None, **settings: Unpack[Settings]
) -> ir.Model:
    """Puts a gated quantizer on every tensor that a MAC node reads.

    These tensors are the constant weights, the activations and the constant biases of the MAC
    nodes, and embedding tables. A tensor has one quantizer however many MAC nodes read it. All
    other nodes go on reading the float value. Between integer kernels, activations that no MAC node
    reads get a carried quantizer (:mod:`~onnx_cgmq.gating.integer_path`).

    Every gate starts at the widest width, so the result equals the float model exactly if 32 bits
    are allowed and no quantizer is carried (these have 8 bits). The bias of a node with an integer
    kernel is rounded, after its quantizer, to the INT32 codes that the kernel adds; this has an
    effect once both operands have at most 8 bits.

    Nodes inside subgraphs (``If``, ``Loop``, ``Scan``) stay float.

    Args:
        model: Path, ``onnx.ModelProto`` or ``onnx_ir.Model``. It is not changed. A model that is
            not prepared is prepared first (:func:`~onnx_cgmq.preparation.prepare.prepare`).
        config: The settings as one object.
        **settings: The settings by name: fields of :class:`Config`. Give these or ``config``.

    Returns:
        A valid ONNX model with quantizers as model-local functions (domain ``onnx_cgmq``). The
        quantized value of ``v`` is ``v.quantized``; ``v.low``, ``v.high`` and ``v.gate`` are the
        initializers of its quantizer.

    Raises:
        ModelError: The model can't be read or prepared, has nothing to quantize, or has gates
            already; a weight or bias is not finite; or a size that a ``channel`` or ``element``
            gate needs is not fixed.
        ConfigError: A setting is invalid, or names a tensor, node or operator that isn't there.
    """
    if config is not None and settings:
        raise ConfigError(
            f"give config or settings, not both: put {', '.join(settings)} into the config"
        )
    config = config or Config.create(**settings)
    gated = load_model(model)
    if not is_prepared(gated):
        prepare_in_place(gated, config.runtime)
    check_runtime(gated, config.runtime)
    if any(is_gated_quantizer(node) for node in gated.graph):
        raise ModelError("the model has gates already; insert them into the float model")
    set_input_shapes(gated, config.shapes)
    find_ranks(gated)
    nodes = quantized_nodes(gated.graph)
    inserter = _Inserter(gated, config, nodes)
    for node, spec in nodes:
        inserter.quantize_operands(node, spec)
    carried: frozenset[str] = frozenset()
    flows = config.integer_kernels and not config.dynamic_activations
    if flows and INTEGER_KERNEL_BITS in config.activation_ladder.widths:
        carried = add_carried_quantizers(
            gated, inserter.insert_carried, inserter.chosen_for_carried, inserter.floats
        )
    inserter.choices.check_used(carried)
    if config.exact_steps:
        round_slopes(gated.graph)
    if not inserter.quantized:
        raise ModelError(
            f"nothing to quantize: the model has none of {', '.join(MAC_OP_TYPES)} on float32 "
            "tensors outside of subgraphs (If, Loop, Scan)"
        )
    return gated


class _Inserter:
    """Inserts quantizers into one model, at most one for every tensor."""

    def __init__(
        self, model: ir.Model, config: Config, nodes: list[tuple[ir.Node, OpSpec]]
    ) -> None:
        self.model = model
        self.graph = model.graph
        self.config = config
        self.quantized: dict[ir.Value, tuple[ir.Node, QuantizerSpec]] = {}
        self.axes = channel_axes(nodes)
        self.nonnegative = nonnegative_values(model.graph)
        self.choices = Choices.of(config.choices, nodes)
        self.floats: set[ir.Value] = set()
        self.transposed: dict[ir.Value, ir.Value] = {}
        model.opset_imports[GATED_DOMAIN] = GATED_VERSION

    def quantize_operands(self, node: ir.Node, op: OpSpec) -> None:
        """Makes a node read quantized operands, and a quantized bias if its bias is constant."""
        operands = []
        for index, value in op.operand_values(node):
            source, path = stored_weight(value)
            quantizer = self._quantizer_of(source, node, op)
            if quantizer is None:
                continue
            quantized = quantizer[0].outputs[0]
            if path:
                quantized = self._transpose_quantized(value, path, quantized, node)
            operands.append(quantizer)
            node.replace_input_with(index, quantized)
        bias = op.bias_value(node)
        if op.bias is None or bias is None or bias.const_value is None:
            return
        if bias not in self.quantized:
            chosen = self.choices.ladder(str(bias.name), activation=False)
            decide(bias.name, Verdict.QUANTIZED, f"{node.op_type} '{node.name}' adds it")
            self._insert_quantizer(bias, bias_spec(self.config, bias, chosen), node)
        source = self.quantized[bias][0].outputs[0]
        if op.integer_kernel(node) and _has_one_accumulator_step(operands):
            source = self._insert_accumulator(node, bias, source, operands)
        node.replace_input_with(op.bias, source)

    def _quantizer_of(
        self, value: ir.Value, node: ir.Node, op: OpSpec
    ) -> tuple[ir.Node, QuantizerSpec] | None:
        """Returns the quantizer of an operand, and inserts it first if it is not there yet.

        Returns ``None`` if the node reads the operand float: because the user keeps it so, or
        because it can't read an activation that is quantized at run time.
        """
        name, weight = str(value.name), value.const_value is not None
        if not weight and self.choices.reads_float(node, name):
            decide(node.name, Verdict.FLOAT, "the settings keep it float")
            self.floats.add(value)
            return None
        if not weight and self.config.dynamic_activations and (why := why_not_dynamic(node)):
            decide(node.name, Verdict.FLOAT, why)
            return None
        if value not in self.quantized:
            chosen = self._chosen_ladder(name, activation=not weight)
            if weight:
                spec = weight_spec(self.config, value, self.axes[value], chosen)
            else:
                nonnegative = value in self.nonnegative
                spec = activation_spec(self.config, node, op, value, chosen, nonnegative)
            does = "looks rows up in" if mac_spec(node) is None else "multiplies"
            decide(name, Verdict.QUANTIZED, f"{node.op_type} '{node.name}' {does} it")
            self._insert_quantizer(value, spec, node)
        return self.quantized[value]

    def _chosen_ladder(self, tensor: str, *, activation: bool) -> Ladder | None:
        """Finds the widths that the user chose for a tensor; float is allowed on any target.

        Raises:
            ConfigError: The target does not have one of the widths.
        """
        chosen = self.choices.ladder(tensor, activation=activation)
        if chosen is None or chosen.widths == (FLOAT_BITS,):
            return chosen
        target = self.config.target
        try:
            if activation:
                target.check(activation_widths=chosen.widths)
            else:
                target.check(widths=chosen.widths)
        except ValueError as error:
            raise ConfigError(f"widths of '{tensor}': {error}") from error
        return chosen

    def _transpose_quantized(
        self, value: ir.Value, path: tuple[ir.Node, ...], quantized: ir.Value, before: ir.Node
    ) -> ir.Value:
        """Transposes a quantized weight, by copies of the nodes that transpose the float weight.

        The copies go before a node that reads ``value``; all its readers share them.
        """
        if value not in self.transposed:
            for mover in reversed(path):
                name = f"{mover.outputs[0].name}.quantized"
                copy = ir.Node(
                    "",
                    "Transpose",
                    [quantized],
                    mover.attributes.values(),
                    outputs=[_float_value(name, _shape_of(mover.outputs[0]))],
                    name=name,
                )
                self.graph.insert_before(before, copy)
                quantized = copy.outputs[0]
            self.transposed[value] = quantized
        return self.transposed[value]

    def chosen_for_carried(self, value: ir.Value) -> Ladder | None:
        """Finds the widths that the user chose for an activation that no MAC node reads."""
        return self._chosen_ladder(str(value.name), activation=True)

    def insert_carried(self, value: ir.Value, before: ir.Node) -> ir.Node:
        """Inserts the carried quantizer of an activation before a node, and returns its node."""
        chosen = self.chosen_for_carried(value)
        spec = carried_spec(self.config, value, chosen, value in self.nonnegative)
        why = (
            f"the kernels around it, at {before.op_type} '{before.name}', run in integers on codes"
        )
        decide(value.name, Verdict.QUANTIZED, why)
        self._insert_quantizer(value, spec, before)
        return self.quantized[value][0]

    def _insert_quantizer(self, value: ir.Value, spec: QuantizerSpec, before: ir.Node) -> None:
        """Inserts the quantizer of a tensor before a node."""
        name = spec.tensor
        if value.const_value is not None:
            check_constant(value, spec.role, before)
        high = _initial_high(value, spec)
        inputs: list[ir.Value] = [value]
        if spec.form is GridForm.AFFINE:
            inputs.append(add_initializer(self.graph, f"{name}.low", -high))
        gate = np.full(spec.gate_shape, spec.ladder.gate_max, dtype=np.float32)
        inputs.append(add_initializer(self.graph, f"{name}.high", high))
        inputs.append(add_initializer(self.graph, f"{name}.gate", gate))
        node = ir.Node(
            GATED_DOMAIN,
            function_name(spec),
            inputs,
            quantizer_attributes(spec),
            outputs=[
                _float_value(f"{name}.quantized", _shape_of(value)),
                _float_value(f"{name}.step", ir.Shape(spec.range_item_shape)),
            ],
            name=f"{name}.quantizer",
        )
        node.metadata_props[SPEC_KEY] = spec.to_json()
        self.graph.insert_before(before, node)
        add_function(self.model, node.op_type, partial(gated_qdq, spec))
        self.quantized[value] = (node, spec)

    def _insert_accumulator(
        self,
        node: ir.Node,
        bias: ir.Value,
        source: ir.Value,
        operands: list[tuple[ir.Node, QuantizerSpec]],
    ) -> ir.Value:
        """Inserts a node that rounds a quantized bias to the INT32 codes that a MAC node adds.

        Every MAC node needs its own, because the unit of its accumulator depends on its operands.
        """
        steps = [quantizer.outputs[1] for quantizer, _ in operands]
        accumulator = ir.Node(
            GATED_DOMAIN,
            ACCUMULATOR_OP,
            [source, *steps],
            outputs=[_float_value(f"{node.name}.accumulated_bias", _shape_of(bias))],
            name=f"{node.name}.accumulator",
        )
        self.graph.insert_before(node, accumulator)
        add_function(self.model, ACCUMULATOR_OP, accumulator_qdq)
        return accumulator.outputs[0]


def _has_one_accumulator_step(operands: list[tuple[ir.Node, QuantizerSpec]]) -> bool:
    """Says whether ``step_x * step_w`` is one number, or one for each output channel."""
    if len(operands) != 2:
        return False
    (_, a), (_, b) = operands
    uniform = a.granularity is Granularity.TENSOR and a.role is Role.ACTIVATION
    uniform = uniform and a.form is not GridForm.DYNAMIC and b.block is None
    return uniform and (b.role is Role.WEIGHT or b.granularity is Granularity.TENSOR)


def _initial_high(value: ir.Value, spec: QuantizerSpec) -> npt.NDArray[np.float32]:
    """Returns the first ends of ranges: the largest magnitude of a constant, 1 for an activation.

    Calibration then fits the ranges of activations.
    """
    if value.const_value is None:
        return np.ones(spec.range_shape, dtype=np.float32)
    with reading(value.const_value) as array:
        array, axes = array.reshape(spec.view_shape), None
        if spec.has_channels:
            axes = tuple(i for i, size in enumerate(spec.range_item_shape) if size == 1)
        largest = np.maximum(array.max(axis=axes, initial=0.0), -array.min(axis=axes, initial=0.0))
    item = np.asarray(largest, dtype=np.float32).reshape(spec.range_item_shape)
    item = np.where(item > 0, item, np.float32(_SMALLEST_RANGE))
    high = np.ascontiguousarray(np.broadcast_to(item, spec.range_shape), dtype=np.float32)
    return exact_ranges(spec, -high, high)[1]


def _shape_of(value: ir.Value) -> ir.Shape | None:
    if value.const_value is not None:
        return ir.Shape(value.const_value.shape.numpy())
    return None if value.shape is None else ir.Shape(list(value.shape))


def _float_value(name: str, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
