"""Makes HardSigmoid of the hard sigmoids and hard swishes that exporters spell out.

Between integer kernels HardSigmoid is written as an Add that saturates
(``writing/hard_sigmoid.py``), and a hard swish as a product with it. Many exporters write
``x * Clip(x + 3, 0, 6) / 6`` instead.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.affine import Affine, affine_of
from onnx_cgmq.graph.emitter import Emitter, optional, rank_of, replace
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.uses import only_reader

_SWISH_SLOPE, _SWISH_OFFSET = 1 / 6, 0.5  # of the hard sigmoid in HardSwish, by the standard
_ROUNDING: Final = 1e-6  # relative error allowed in a factor: exporters store constants as float32


def fuse_hard_activations(model: ir.Model) -> None:
    """Makes HardSigmoid of spelled-out hard sigmoids, and rewrites hard swishes with it, in place.

    A hard sigmoid is spelled out as ``Clip(a * x + b, 0, m)`` that is divided by ``m``, for numbers
    ``a``, ``b`` and ``m``. Between Clip and division there may be a product with another value, as
    in a hard swish.
    """
    opset = model.opset_imports[""]
    for graph in model.graphs():
        for node in list(graph):
            if node.graph is None or node.outputs[0].dtype is not ir.DataType.FLOAT:
                continue
            emit = Emitter(node, opset)
            if standard_op(node) == "HardSwish":
                x = node.inputs[0]
                swish = emit("Mul", x, _hard_sigmoid(emit, x, _SWISH_SLOPE, _SWISH_OFFSET))
                decide(node.name, Verdict.REWRITTEN, "x * HardSigmoid(x) has integer kernels")
                replace(node, [swish])
            elif standard_op(node) == "Clip":
                _fuse_clip(emit, node)


def _fuse_clip(emit: Emitter, clip: ir.Node) -> None:
    value, top = clip.inputs[0], _upper_limit(clip)
    inner = None if value is None else _numbers(value.producer())
    scaler = None if top is None else _scaler_below(clip, 1 / top)
    if inner is None or top is None or scaler is None:
        missing = "a shift before it" if inner is None else "a division by its upper limit"
        missing = missing if top is not None else "a lower limit of 0 and a positive upper limit"
        decide(clip.name, Verdict.LEFT, f"it is no hard sigmoid: it lacks {missing}")
        return
    decide(clip.name, Verdict.REWRITTEN, "it is a hard sigmoid that is spelled out")
    slope, offset = (float(number.reshape(())) / top for number in (inner.scale, inner.shift))
    replace(clip, [_hard_sigmoid(emit, inner.source, slope, offset)])
    scaled = affine_of(scaler)
    assert scaled is not None
    replace(scaler, [scaled.source])


def _upper_limit(clip: ir.Node) -> float | None:
    """Returns ``m`` of a Clip to 0 .. m, or ``None`` if a Clip has other limits."""
    limits = [optional(clip, index) for index in (1, 2)]
    low, high = (None if limit is None else limit.const_value for limit in limits)
    if low is None or high is None or low.numpy().any():
        return None
    top = float(high.numpy().reshape(()))
    return top if top > 0 else None


def _scaler_below(clip: ir.Node, factor: float) -> ir.Node | None:
    """Finds the node that multiplies the output of a Clip by a factor.

    It may also multiply the product of that output with another value.
    """
    node = only_reader(clip.outputs[0])
    if node is not None and standard_op(node) == "Mul" and affine_of(node) is None:
        node = only_reader(node.outputs[0])
    found = _numbers(node)
    if found is None or found.shift.any():
        return None
    return node if abs(float(found.scale.reshape(())) / factor - 1) < _ROUNDING else None


def _numbers(node: ir.Node | None) -> Affine | None:
    """Returns the affine map of a node that has one number as scale and one as shift.

    ``None`` means that the node computes anything else, or adds axes.
    """
    affine = None if node is None else affine_of(node)
    rank = None if affine is None else rank_of(affine.source)
    if affine is None or rank is None or affine.channel_axis is not None:
        return None
    arrays = (affine.scale, affine.shift)
    return affine if all(a.size == 1 and a.ndim <= rank for a in arrays) else None


def _hard_sigmoid(emit: Emitter, x: ir.Value | None, slope: float, offset: float) -> ir.Value:
    made = emit("HardSigmoid", x, rank=rank_of(x), attributes={"alpha": slope, "beta": offset})
    made.type = ir.TensorType(ir.DataType.FLOAT)
    return made
