"""Decides which nodes read quantized operands, and what the quantizer of each tensor is.

A quantizer is described by a spec: role, form of the grid, granularity, ladder, shape, channel axis
(:class:`~onnx_cgmq.contract.quantizer_spec.QuantizerSpec`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.bits import (
    INTEGER_KERNEL_BITS,
    Granularity,
    GridForm,
    Ladder,
    Ranges,
    Role,
)
from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.packed_weights import why_no_blocks
from onnx_cgmq.graph.files.external import reading
from onnx_cgmq.graph.layouts import permutation, stored_weight
from onnx_cgmq.graph.mac_operators import OpSpec
from onnx_cgmq.graph.operators import mac_spec, moves_codes, quantized_spec
from onnx_cgmq.settings.config import Config

_LARGEST: Final = float(np.finfo(np.float32).max) / 2
"""A grid spans twice the largest magnitude, and its span must be a float32."""


def quantized_nodes(graph: ir.Graph) -> list[tuple[ir.Node, OpSpec]]:
    """Finds the nodes of a graph whose operands get quantizers.

    These are the MAC nodes on float32 tensors, and the lookups in embedding tables whose rows reach
    such a MAC node. A table behind the last MAC node belongs to post-processing and stays as it is.

    Returns:
        The nodes with their entries in the table of operators, in graph order.

    Raises:
        ModelError: A MAC node multiplies another float type than float32.
    """
    found: list[tuple[ir.Node, OpSpec]] = []
    wanted: set[ir.Value] = set()
    for node in reversed(graph):
        op = quantized_spec(node)
        if op is not None and mac_spec(node) is None and wanted.isdisjoint(node.outputs):
            why = "the rows that it looks up go to no node that multiplies and accumulates"
            decide(node.name, Verdict.FLOAT, why)
            op = None
        if op is not None and _reads_float32(node, op):
            found.append((node, op))
        elif wanted.isdisjoint(node.outputs):
            continue
        wanted.update(value for value in values_read(node) if value is not None)
    return found[::-1]


def values_read(node: ir.Node) -> Iterator[ir.Value | None]:
    """Lists the inputs of a node and of all nodes in its subgraphs."""
    yield from node.inputs
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                yield from inner.inputs


def _reads_float32(node: ir.Node, op: OpSpec) -> bool:
    """Says whether a node multiplies float32 tensors; ``False`` if it computes on integers.

    Raises:
        ModelError: The node multiplies another float type.
    """
    for _, value in op.operand_values(node):
        dtype = value.dtype if value.const_value is None else value.const_value.dtype
        if dtype is None or dtype is ir.DataType.FLOAT:
            continue
        if dtype.is_floating_point():
            raise ModelError(
                f"node '{node.name}' ({node.op_type}) works on {dtype.name}; only float32 models "
                "can be quantized: convert the model to float32 first"
            )
        decide(node.name, Verdict.LEFT, f"'{value.name}' is {dtype.name}: it computes on integers")
        return False
    return True


def check_constant(value: ir.Value, role: Role, reader: ir.Node) -> None:
    """Checks that a constant has a grid.

    Args:
        value: A weight or bias that is to get a quantizer.
        role: Which of the two it is, for the message.
        reader: The node that reads it.

    Raises:
        ModelError: It has a NaN, an infinity, or a number too large for a grid.
    """
    assert value.const_value is not None
    with reading(value.const_value) as array:
        if max(array.max(initial=0.0), -array.min(initial=0.0)) <= _LARGEST:  # not so with NaN
            return
        wrong = ~(np.abs(array) <= _LARGEST)
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        found = float(array[place])
    if np.isnan(found):
        text = "NaN"
    elif np.isinf(found):
        text = "infinity" if found > 0 else "-infinity"
    else:
        text = f"{found:.3g}, which no grid in float32 holds,"
    raise ModelError(
        f"{role.value} '{value.name}' has {text} at {list(place)} (node '{reader.name}', "
        f"{reader.op_type}; {int(wrong.sum()):,} of {wrong.size:,} values are like this); repair "
        "the model's constants or export it again"
    )


def weight_spec(
    config: Config, weight: ir.Value, axis: int | None, chosen: Ladder | None
) -> QuantizerSpec:
    """Describes the quantizer of a weight.

    Args:
        config: The settings.
        weight: The weight, a constant.
        axis: The channel axis of the weight, or ``None`` to give the weight one range.
        chosen: The widths that the user chose for this weight, if any.
    """
    assert weight.const_value is not None
    granularity = config.granularity
    if granularity is Granularity.CHANNEL and axis is None:
        granularity = Granularity.TENSOR
    one_gate = granularity is Granularity.TENSOR
    channel_ranges = one_gate and axis is not None and config.weight_ranges is not Ranges.TENSOR
    shape = tuple(weight.const_value.shape.numpy())
    block = None
    if channel_ranges and config.weight_ranges is Ranges.BLOCK:
        why = why_no_blocks(weight, shape, config.block_size)
        block = None if why else config.block_size
        if why:
            decide(weight.name, Verdict.QUANTIZED, f"it has no ranges for blocks: {why}")
    return QuantizerSpec(
        tensor=str(weight.name),
        role=Role.WEIGHT,
        form=GridForm.SYMMETRIC,
        granularity=granularity,
        ladder=chosen or _weight_ladder(config, granularity),
        shape=shape,
        axis=axis if channel_ranges or granularity is Granularity.CHANNEL else None,
        channel_ranges=channel_ranges,
        exact=config.exact_steps,
        block=block,
    )


def _weight_ladder(config: Config, granularity: Granularity) -> Ladder:
    # One gate for the whole tensor must not prune the layer, not even if the user asked for
    # channels and the weight has no channel axis.
    pruned = granularity is not Granularity.TENSOR
    return config.weight_ladder if pruned else config.ladder


def bias_spec(config: Config, bias: ir.Value, chosen: Ladder | None) -> QuantizerSpec:
    """Describes the quantizer of a bias.

    Args:
        config: The settings.
        bias: The bias, a constant.
        chosen: The widths that the user chose for this bias, if any.
    """
    assert bias.const_value is not None
    shape = tuple(bias.const_value.shape.numpy())
    granularity = config.granularity if shape else Granularity.TENSOR
    return QuantizerSpec(
        tensor=str(bias.name),
        role=Role.BIAS,
        form=GridForm.SYMMETRIC,
        granularity=granularity,
        ladder=chosen or config.bias_ladder,
        shape=shape,
        axis=len(shape) - 1 if granularity is Granularity.CHANNEL else None,
    )


def activation_spec(
    config: Config,
    node: ir.Node,
    op: OpSpec,
    value: ir.Value,
    chosen: Ladder | None,
    nonnegative: bool,
) -> QuantizerSpec:
    """Describes the quantizer of an activation.

    Args:
        config: The settings.
        node: The node that reads the activation.
        op: Entry of the node in the table of operators.
        value: The activation.
        chosen: The widths that the user chose for this activation, if any.
        nonnegative: Whether the activation can't be negative.

    Raises:
        ModelError: The rank of the activation is unknown, or a size that a gate needs is not fixed.
    """
    if value.shape is None:
        raise ModelError(
            f"node '{node.name}' ({node.op_type}): the rank of its input '{value.name}' is "
            "unknown, and a run on made-up data does not tell it: declare its shape in the model "
            "(value_info), or use quantize(), which runs the first sample"
        )
    rank = len(value.shape)
    granularity = config.activations if rank > 1 else Granularity.TENSOR
    axis = op.activation_axis % rank if granularity is Granularity.CHANNEL else None
    ladder = chosen or config.activation_ladder
    if chosen is None and config.input_width is not None and _comes_from_input(value):
        ladder = Ladder((config.input_width,))
    form = config.unsigned_grid if nonnegative else config.signed_grid
    return QuantizerSpec(
        tensor=str(value.name),
        role=Role.ACTIVATION,
        form=GridForm.DYNAMIC if config.dynamic_activations else form,
        granularity=granularity,
        ladder=ladder,
        shape=_sample_shape(node, value, granularity, axis),
        axis=axis,
        exact=config.exact_steps,
    )


def channel_axes(nodes: list[tuple[ir.Node, OpSpec]]) -> dict[ir.Value, int | None]:
    """Finds the channel axis of every weight.

    Args:
        nodes: The nodes whose operands get quantizers, with their entries in the table of
            operators.

    Returns:
        The axis by weight. It is ``None`` if the weight has no channels, or if its readers disagree
        on the axis, as ``X @ W`` and ``Y @ W.T`` do.
    """
    axes: dict[ir.Value, set[int | None]] = {}
    for node, op in nodes:
        for index, value in op.operand_values(node):
            weight, path = stored_weight(value)
            if weight.const_value is None:
                continue
            rank = len(weight.const_value.shape)
            axis = op.output_axis(node, index, rank)
            source = None if axis is None else permutation(path, rank)[axis]
            axes.setdefault(weight, set()).add(source)
    return {weight: found.pop() if len(found) == 1 else None for weight, found in axes.items()}


def _comes_from_input(value: ir.Value) -> bool:
    """Says whether a value is an input of the graph, perhaps with its elements moved."""
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
    """Returns the shape of an activation for one sample.

    Sizes that are not fixed are 1 where no gate needs them.

    Args:
        node: The node that reads the activation.
        value: The activation.
        granularity: How many gates it gets.
        axis: Its channel axis, or ``None``.

    Raises:
        ModelError: A size that a gate needs is not fixed.
    """
    assert value.shape is not None
    batches = {v.shape[0] for v in node.graph.inputs if v.shape} if node.graph is not None else ()
    shape = []
    for index, size in enumerate(value.shape):
        gated = granularity is Granularity.ELEMENT or index == axis
        named = isinstance(size, ir.SymbolicDim) and size.value is not None
        if (index == 0 and len(value.shape) > 1) or (named and size in batches):
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


def carried_spec(
    config: Config, value: ir.Value, chosen: Ladder | None, nonnegative: bool
) -> QuantizerSpec:
    """Describes a carried quantizer: of an activation between integer kernels that no MAC reads.

    Args:
        config: The settings.
        value: The activation.
        chosen: The widths that the user chose for this activation, if any. Otherwise it has 8 bits.
        nonnegative: Whether the activation can't be negative.
    """
    shape = tuple(dim if isinstance(dim, int) else 1 for dim in value.shape or ())
    return QuantizerSpec(
        tensor=str(value.name),
        role=Role.ACTIVATION,
        form=config.unsigned_grid if nonnegative else config.signed_grid,
        granularity=Granularity.TENSOR,
        ladder=chosen or Ladder((INTEGER_KERNEL_BITS,)),
        shape=(1, *shape[1:]),
        exact=config.exact_steps,
    )
