"""Folds scales and shifts into the MAC node before them, so that fewer float nodes are left.

For an output channel with the weights ``W``, the bias ``b`` and the input ``x``, let
``y = scale * (W x + b) + shift``. Then ``W`` becomes ``scale * W`` and ``b`` becomes
``scale * b + shift``. This folds BatchNormalization, biases that are an Add of their own and
learned scalar factors. It also folds HardSigmoid, which leaves a Clip.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.affine import Affine, Constant, affine_of
from onnx_cgmq.graph.constant_macs import ConstantMac
from onnx_cgmq.graph.emitter import Emitter, replace, set_constant
from onnx_cgmq.graph.nodes import float_attribute, standard_op


def fold_affine(model: ir.Model) -> None:
    """Folds affine nodes into the Conv, ConvTranspose, Gemm or MatMul before them, in place.

    A node is folded if it is the only reader of the MAC node's output and the weights are constant.
    A MatMul that gets a bias becomes a Gemm. A weight that other nodes read too is copied first.
    """
    for graph in model.graphs():
        for node in list(graph):
            is_hard_sigmoid = standard_op(node) == "HardSigmoid"
            affine = _affine_of_hard_sigmoid(node) if is_hard_sigmoid else affine_of(node)
            if affine is None:
                continue
            mac = _producer_for(affine.source, node)
            receiver = None if mac is None else ConstantMac.of(mac)
            if receiver is None:
                why = (
                    "its input does not come from an operator with constant weights, or other "
                    "nodes read it too"
                )
            else:
                why = _why_not(receiver, affine)
            if receiver is None or why:
                decide(node.name, Verdict.LEFT, why)
                continue
            decide(node.name, Verdict.REWRITTEN, f"its factors fit into '{receiver.node.name}'")
            _fold(model, receiver, affine)
            if is_hard_sigmoid:
                _make_clip(model, node)
            else:
                _bypass(node, receiver.node)


def _producer_for(value: ir.Value, reader: ir.Node) -> ir.Node | None:
    """Returns the producer of a value if it is in the reader's graph and nothing else reads it."""
    node = value.producer()
    if node is None or node.graph is not reader.graph or value.is_graph_output():
        return None
    return node if len(value.uses()) == 1 else None


def _why_not(receiver: ConstantMac, affine: Affine) -> str:
    """Says why an affine map can't be folded; the text is empty if it can."""
    vectors = affine.along(receiver.axis, receiver.rank, receiver.channels)
    if vectors is None:
        return "it does not have one factor for each channel"
    if not all(np.isfinite(vector).all() for vector in vectors):
        return "one of its factors is not finite"
    if standard_op(receiver.node) == "MatMul" and receiver.rank != 2 and vectors[1].any():
        return "it adds a bias, and MatMul of more than two axes has none"
    return ""


def _fold(model: ir.Model, receiver: ConstantMac, affine: Affine) -> None:
    """Folds an affine map for which :func:`_why_not` gives no reason against it."""
    vectors = affine.along(receiver.axis, receiver.rank, receiver.channels)
    assert vectors is not None
    scale, shift = vectors
    if not np.all(scale == 1):
        _set(model, receiver, 1, receiver.scaled_outputs(scale))
    if standard_op(receiver.node) == "MatMul" and shift.any():
        receiver.node.op_type = "Gemm"
    if standard_op(receiver.node) != "MatMul" and (shift.any() or receiver.bias is not None):
        _set(model, receiver, 2, _new_bias(receiver, scale, shift))


def _new_bias(receiver: ConstantMac, scale: Constant, shift: Constant) -> Constant:
    # Gemm multiplies its bias by an attribute, which is folded into the values too.
    beta = float_attribute(receiver.node, "beta", 1.0)
    receiver.node.attributes.pop("beta", None)
    bias = receiver.bias
    if bias is None or bias.const_value is None:
        return shift
    return bias.const_value.numpy().astype(np.float64) * beta * scale + shift


def _set(model: ir.Model, receiver: ConstantMac, index: int, array: Constant) -> None:
    """Sets an input of the MAC node to a constant that no other node reads."""
    assert receiver.weight.const_value is not None
    node, dtype = receiver.node, receiver.weight.const_value.dtype.numpy()
    name = f"{receiver.weight.name}.{node.name}" if index == 1 else f"{node.name}.bias"
    set_constant(model, node, index, array.astype(dtype), name)


def _affine_of_hard_sigmoid(node: ir.Node) -> Affine | None:
    x = node.inputs[0]
    if x is None:
        return None
    slope, offset = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return Affine(x, np.array(slope), np.array(offset))


def _make_clip(model: ir.Model, node: ir.Node) -> None:
    """Replaces a HardSigmoid whose slope and offset are folded by a Clip to 0 .. 1."""
    emit = Emitter(node, model.opset_imports[""])
    dtype = np.float32 if node.outputs[0].dtype is None else node.outputs[0].dtype.numpy()
    replace(node, [emit("Clip", node.inputs[0], *(emit.constant(end, dtype) for end in (0, 1)))])


def _bypass(node: ir.Node, mac: ir.Node) -> None:
    """Removes a folded node; the output of the MAC node takes its place and its name."""
    old, new = node.outputs[0], mac.outputs[0]
    name, shape = old.name, old.shape
    old.name = None
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name, new.shape = name, shape or new.shape
    assert node.graph is not None
    node.graph.remove(node, safe=True)
