"""What the quantizer of each tensor is: role, form, granularity, ladder, shape, channel axis."""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.config import Config
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.nonnegative import is_nonnegative
from onnx_cgmq.graph.opspec import OpSpec, mac_spec, moves_codes
from onnx_cgmq.graph.quantizer_spec import QuantizerSpec


def operand_spec(
    config: Config, node: ir.Node, op: OpSpec, index: int, value: ir.Value, tied: bool
) -> QuantizerSpec:
    """Describes the quantizer of an operand.

    Args:
        config: Granularities, widths, input width.
        node: The node that reads it.
        op: Registry entry of the node.
        index: Index of the input.
        value: The operand: a weight if it is constant.
        tied: Whether readers of a weight disagree on its channel axis: then it has one range.

    Raises:
        ModelError: A rank is unknown, or a size that a gate needs is not fixed.
    """
    if value.const_value is None:
        return _activation_spec(config, node, op, value)
    shape = tuple(value.const_value.shape.numpy())
    axis = op.output_axis(node, index, len(shape))
    granularity = config.granularity
    if granularity is Granularity.CHANNEL and (axis is None or tied):
        granularity = Granularity.TENSOR
    return QuantizerSpec(
        tensor=str(value.name),
        role=Role.WEIGHT,
        form=GridForm.SYMMETRIC,
        granularity=granularity,
        ladder=_weight_ladder(config, granularity),
        shape=shape,
        axis=axis if granularity is Granularity.CHANNEL else None,
    )


def _weight_ladder(config: Config, granularity: Granularity) -> Ladder:
    # A gate for the whole tensor must not prune the layer, not even where channels are asked.
    pruned = granularity is not Granularity.TENSOR
    return config.weight_ladder if pruned else config.ladder


def bias_spec(config: Config, bias: ir.Value) -> QuantizerSpec:
    """Describes the quantizer of a constant bias."""
    assert bias.const_value is not None
    shape = tuple(bias.const_value.shape.numpy())
    granularity = config.granularity if shape else Granularity.TENSOR
    return QuantizerSpec(
        tensor=str(bias.name),
        role=Role.BIAS,
        form=GridForm.SYMMETRIC,
        granularity=granularity,
        ladder=config.ladder,
        shape=shape,
        axis=len(shape) - 1 if granularity is Granularity.CHANNEL else None,
    )


def _activation_spec(config: Config, node: ir.Node, op: OpSpec, value: ir.Value) -> QuantizerSpec:
    if value.shape is None:
        raise ModelError(
            f"node '{node.name}' ({node.op_type}): the rank of its input '{value.name}' is "
            "unknown; infer shapes first, or export the model with fixed shapes"
        )
    rank = len(value.shape)
    granularity = config.activations if rank > 1 else Granularity.TENSOR
    axis = op.activation_axis % rank if granularity is Granularity.CHANNEL else None
    ladder = config.ladder
    if config.input_width is not None and _comes_from_input(value):
        ladder = Ladder((config.input_width,))
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


def weights_with_two_axes(graph: ir.Graph) -> set[ir.Value]:
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
