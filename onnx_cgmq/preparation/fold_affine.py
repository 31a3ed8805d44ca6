"""Folds scales and shifts into the operator before them: fewer float nodes between kernels.

With ``y = scale * (W x + b) + shift`` per output channel, ``W`` becomes ``scale * W`` and ``b``
becomes ``scale * b + shift``: BatchNormalization, biases that are an Add of their own, learned
scalar factors, and HardSigmoid, of which a Clip is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.affine import Affine, Constant, affine_of
from onnx_cgmq.graph.emitter import Emitter, replace
from onnx_cgmq.graph.nodes import float_attribute, int_attribute, standard_op
from onnx_cgmq.graph.uses import has_one_reader


def fold_affine(model: ir.Model) -> None:
    """Folds affine nodes into the Conv, ConvTranspose, Gemm or MatMul before them, in place.

    Only where nothing else reads the value between them and the weights are constant. A product of
    matrices with a bias becomes Gemm. A weight that other nodes read too is copied first.
    """
    for graph in model.graphs():
        for node in list(graph):
            limited = standard_op(node) == "HardSigmoid"
            affine = _inside_hard_sigmoid(node) if limited else affine_of(node)
            if affine is None:
                continue
            mac = _producer_for(affine.source, node)
            target = None if mac is None else _target(mac)
            if target is None:
                why = "no operator with constant weights stands before it, or others read that one"
            else:
                why = _why_not(target, affine)
            if target is None or why:
                decide(node.name, Verdict.LEFT, why)
                continue
            decide(node.name, Verdict.REWRITTEN, f"its factors fit into '{target.node.name}'")
            _fold(model, target, affine)
            if limited:
                _make_clip(model, node)
            else:
                _bypass(node, target.node)


@dataclass(frozen=True)
class _Target:
    """A node to fold into.

    Attributes:
        node: The node itself.
        weight: Its constant weight.
        axis: Axis of the output that counts channels.
        rank: Number of axes of the output.
        channels: Number of channels.
    """

    node: ir.Node
    weight: ir.Value
    axis: int
    rank: int
    channels: int


def _producer_for(value: ir.Value, reader: ir.Node) -> ir.Node | None:
    """The producer of a value that only one node of the same graph reads."""
    node = value.producer()
    if node is None or node.graph is not reader.graph or value.is_graph_output():
        return None
    return node if len(value.uses()) == 1 else None


def _target(node: ir.Node) -> _Target | None:
    op = standard_op(node)
    if op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or weight.const_value is None or weight.const_value.size == 0:
        return None
    if bias is not None and bias.const_value is None:
        return None
    shape = weight.const_value.shape.numpy()
    if op == "Conv":
        return _Target(node, weight, 1, len(shape), shape[0])
    if op == "ConvTranspose":
        return _Target(node, weight, 1, len(shape), shape[1] * int_attribute(node, "group", 1))
    if op == "Gemm":
        return _Target(node, weight, 1, 2, shape[0 if int_attribute(node, "transB", 0) else 1])
    rank = _rank(node.outputs[0])
    if len(shape) != 2 or rank is None or rank < 2:
        return None
    return _Target(node, weight, rank - 1, rank, shape[1])


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _why_not(target: _Target, affine: Affine) -> str:
    """Why an affine map can't be folded; empty if it can."""
    vectors = affine.along(target.axis, target.rank, target.channels)
    if vectors is None:
        return "it does not have one factor for each channel"
    if not all(np.isfinite(vector).all() for vector in vectors):
        return "one of its factors is not finite"
    if standard_op(target.node) == "MatMul" and target.rank != 2 and vectors[1].any():
        return "it adds a bias, and MatMul of more than two axes has none"
    return ""


def _fold(model: ir.Model, target: _Target, affine: Affine) -> None:
    """Folds an affine map that :func:`_why_not` has nothing against."""
    vectors = affine.along(target.axis, target.rank, target.channels)
    assert vectors is not None
    scale, shift = vectors
    if not np.all(scale == 1):
        _set(model, target, 1, _scaled_weight(target, scale))
    if standard_op(target.node) == "MatMul" and shift.any():
        target.node.op_type = "Gemm"
    if standard_op(target.node) != "MatMul" and (shift.any() or _bias(target) is not None):
        _set(model, target, 2, _new_bias(target, scale, shift))


def _scaled_weight(target: _Target, scale: Constant) -> Constant:
    assert target.weight.const_value is not None
    weight = target.weight.const_value.numpy().astype(np.float64)
    op = standard_op(target.node)
    if op == "Conv":
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    if op == "ConvTranspose":  # [in, out / group, k...]: the groups split both axes
        group = int_attribute(target.node, "group", 1)
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        factors = scale.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
        return (grouped * factors).reshape(weight.shape)
    transposed = op == "Gemm" and int_attribute(target.node, "transB", 0)
    return weight * (scale[:, None] if transposed else scale)


def _bias(target: _Target) -> ir.Value | None:
    return target.node.inputs[2] if len(target.node.inputs) > 2 else None


def _new_bias(target: _Target, scale: Constant, shift: Constant) -> Constant:
    # Gemm scales its bias by an attribute; folded into the values, it goes.
    beta = float_attribute(target.node, "beta", 1.0)
    target.node.attributes.pop("beta", None)
    bias = _bias(target)
    if bias is None or bias.const_value is None:
        return shift
    return bias.const_value.numpy().astype(np.float64) * beta * scale + shift


def _set(model: ir.Model, target: _Target, index: int, array: Constant) -> None:
    """Gives a node a constant of its own."""
    assert target.weight.const_value is not None
    node = target.node
    old = node.inputs[index] if len(node.inputs) > index else None
    tensor = ir.tensor(array.astype(target.weight.const_value.dtype.numpy()))
    if old is not None and has_one_reader(old):
        old.const_value, old.shape = tensor, ir.Shape(array.shape)
        return
    name = f"{target.weight.name}.{node.name}" if index == 1 else f"{node.name}.bias"
    value = ir.Value(
        name=_free_name(model.graph, name),
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    node.resize_inputs(max(len(node.inputs), index + 1))
    node.replace_input_with(index, value)


def _free_name(graph: ir.Graph, name: str) -> str:
    while name in graph.initializers:
        name += "_"
    return name


def _inside_hard_sigmoid(node: ir.Node) -> Affine | None:
    x = node.inputs[0]
    if x is None:
        return None
    slope, offset = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return Affine(x, np.array(slope), np.array(offset))


def _make_clip(model: ir.Model, node: ir.Node) -> None:
    """Leaves of a HardSigmoid whose slope and offset are folded the limits alone."""
    emit = Emitter(node, model.opset_imports[""])
    dtype = np.float32 if node.outputs[0].dtype is None else node.outputs[0].dtype.numpy()
    replace(node, [emit("Clip", node.inputs[0], *(emit.constant(end, dtype) for end in (0, 1)))])


def _bypass(node: ir.Node, mac: ir.Node) -> None:
    """Lets the operator before a node give its output, name included."""
    old, new = node.outputs[0], mac.outputs[0]
    name, shape = old.name, old.shape
    old.name = None
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name, new.shape = name, shape or new.shape
    assert node.graph is not None
    node.graph.remove(node, safe=True)
