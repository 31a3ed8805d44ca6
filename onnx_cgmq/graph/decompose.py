"""Fused operators of onnxruntime (domain com.microsoft) as the standard ones they stand for.

Exporters and onnxruntime's own optimizer leave them. As standard operators their products can be
quantized and shapes can be inferred; onnxruntime fuses them again when it loads the model. A form
that is not covered here stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.emitter import Emitter, optional, rank_of, replace, used_outputs
from onnx_cgmq.graph.opspec import float_attribute, int_attribute

DOMAIN: Final = "com.microsoft"

_SMALL: Final = 1e-12  # default epsilon of the layer normalizations of this domain


def decompose(model: ir.Model) -> bool:
    """Replaces fused operators in place, in subgraphs too.

    Some forms need to know a rank: infer shapes and call it again until nothing changes.

    Args:
        model: A model of at least opset 23 where it has SkipSimplifiedLayerNormalization or
            SimplifiedLayerNormalization, else of 20.

    Returns:
        Whether anything was replaced.
    """
    found = False
    for graph in model.graphs():
        for node in list(graph):
            rule = _RULES.get((node.domain, node.op_type))
            results = None if rule is None else rule(Emitter(node, model.opset_imports[""]), node)
            if results is not None:
                replace(node, results)
                found = True
    return found


_Rule = Callable[[Emitter, ir.Node], "list[ir.Value | None] | None"]


def _numbers(node: ir.Node, name: str) -> list[float]:
    attribute = node.attributes.get(name)
    return [] if attribute is None else list(attribute.as_floats())


def _without(node: ir.Node, *prefixes: str) -> dict[str, ir.Attr]:
    """Attributes but those whose names begin so."""
    return {n: a for n, a in node.attributes.items() if not n.startswith(prefixes)}


_CONV_ACTIVATIONS: Final[dict[str, tuple[str, ...]]] = {
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""Activations, and what their numbers are called."""


def _activation(
    emit: Emitter, x: ir.Value, kind: str, names: tuple[str, ...], numbers: list[float]
) -> ir.Value:
    if kind == "Clip":
        return emit("Clip", x, *(emit.constant(number) for number in numbers))
    return emit(kind, x, attributes=dict(zip(names, numbers, strict=True)))


def _fused_conv(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    attribute = node.attributes.get("activation")
    kind = "" if attribute is None else attribute.as_string()
    numbers = _numbers(node, "activation_params")
    names = ("min", "max") if kind == "Clip" else _CONV_ACTIVATIONS.get(kind)
    if kind and (names is None or len(names) != len(numbers)):
        return None
    inputs = [optional(node, index) for index in range(3)]
    y = emit("Conv", *inputs, rank=rank_of(node.inputs[0]), attributes=_without(node, "activation"))
    added = optional(node, 3)
    y = y if added is None else emit("Add", y, added)
    return [_activation(emit, y, kind, names or (), numbers) if kind else y]


def _fused_gemm(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    attribute = node.attributes.get("activation")
    kind = "" if attribute is None else attribute.as_string()
    if kind and kind not in _CONV_ACTIVATIONS:
        return None
    names = tuple(
        name for name in _CONV_ACTIVATIONS.get(kind, ()) if f"activation_{name}" in node.attributes
    )
    numbers = [float_attribute(node, f"activation_{name}", 0.0) for name in names]
    inputs = [optional(node, index) for index in range(3)]
    y = emit("Gemm", *inputs, rank=2, attributes=_without(node, "activation"))
    return [_activation(emit, y, kind, names, numbers) if kind else y]


def _fused_matmul(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    operands = []
    for value, name in zip(node.inputs, "AB", strict=True):
        rank = rank_of(value)
        turned = int_attribute(node, f"trans{name}", 0)
        batches = int_attribute(node, f"transBatch{name}", 0)
        if turned or batches:
            if rank is None:
                return None
            axes = list(range(rank))
            if batches:  # the rows come first
                axes = [*axes[1:-1], 0, axes[-1]]
            if turned and rank > 1:
                axes = [*axes[:-2], axes[-1], axes[-2]]
            value = emit("Transpose", value, rank=rank, attributes={"perm": axes})
        operands.append(value)
    y = emit("MatMul", *operands)
    alpha = float_attribute(node, "alpha", 1.0)
    return [y if alpha == 1.0 else emit("Mul", y, emit.constant(alpha))]


def _gelu(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    bias = optional(node, 1)
    x = node.inputs[0] if bias is None else emit("Add", node.inputs[0], bias)
    kind = "tanh" if node.op_type == "FastGelu" else "none"
    return [emit("Gelu", x, attributes={"approximate": kind})]


def _quick_gelu(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    x = node.inputs[0]
    scaled = emit("Mul", x, emit.constant(float_attribute(node, "alpha", 1.702)))
    return [emit("Mul", x, emit("Sigmoid", scaled))]


def _skip_layer_norm(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    simplified = node.op_type == "SkipSimplifiedLayerNormalization"
    if (simplified and emit.opset < 23) or used_outputs(node) & {1, 2}:
        return None
    total = emit("Add", node.inputs[0], node.inputs[1], rank=rank_of(node.inputs[0]))
    bias = optional(node, 3 if simplified else 4)
    total = total if bias is None else emit("Add", total, bias, rank=rank_of(total))
    settings = {"axis": -1, "epsilon": float_attribute(node, "epsilon", _SMALL)}
    gamma = node.inputs[2]
    if simplified:
        y = emit("RMSNormalization", total, gamma, attributes=settings)
    else:
        y = emit("LayerNormalization", total, gamma, optional(node, 3), attributes=settings)
    return [y, None, None, total] if 3 in used_outputs(node) else [y]


def _simplified_layer_norm(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    if emit.opset < 23 or used_outputs(node) != {0}:
        return None
    settings = {
        "axis": int_attribute(node, "axis", -1),
        "epsilon": float_attribute(node, "epsilon", 1e-5),
    }
    return [emit("RMSNormalization", node.inputs[0], node.inputs[1], attributes=settings)]


def _attention(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    """Attention with one weight for queries, keys and values, without a past."""
    x, weight, bias, mask = (optional(node, index) for index in range(4))
    heads = int_attribute(node, "num_heads", 0)
    unknown = "qkv_hidden_sizes" in node.attributes or int_attribute(node, "do_rotary", 0)
    present = any(optional(node, index) is not None for index in (4, 6)) or used_outputs(node) != {
        0
    }
    width = (
        weight.shape[1] if weight is not None and rank_of(weight) == 2 and weight.shape else None
    )
    if (
        unknown
        or present
        or not isinstance(width, int)
        or (mask is not None and rank_of(mask) != 2)
    ):
        return None
    qkv = emit("MatMul", x, weight, rank=3)
    qkv = qkv if bias is None else emit("Add", qkv, bias, rank=3)
    split = {"axis": -1, "num_outputs": 3}
    parts = emit("Split", qkv, outputs=3, attributes=split).producer()
    assert parts is not None
    shape = emit.constant([0, 0, heads, -1], np.int64)
    inner, turned = {"perm": [0, 2, 1, 3]}, {"perm": [0, 2, 3, 1]}
    queries, keys, values = (
        emit("Transpose", emit("Reshape", part, shape, rank=4), rank=4, attributes=order)
        for part, order in zip(parts.outputs, (inner, turned, inner), strict=True)
    )
    scale = float_attribute(node, "scale", 0.0) or (width // 3 // heads) ** -0.5
    scores = emit("MatMul", queries, keys, rank=4)
    scores = emit("Mul", scores, emit.constant(scale), rank=4)
    for added in _masks(emit, node, scores, mask):
        scores = emit("Add", scores, added, rank=4)
    shares = emit("Softmax", scores, rank=4, attributes={"axis": -1})
    mixed = emit("MatMul", shares, values, rank=4)
    joined = emit("Transpose", mixed, rank=4, attributes=inner)
    return [emit("Reshape", joined, emit.constant([0, 0, -1], np.int64), rank=3)]


def _masks(emit: Emitter, node: ir.Node, scores: ir.Value, mask: ir.Value | None) -> list[ir.Value]:
    """What is added to the scores: masked keys, later keys, a bias."""
    hidden = emit.constant(float_attribute(node, "mask_filter_value", -10000.0))
    added = []
    if mask is not None:  # [batch, keys], above 0 where a key is seen
        visible = emit("Greater", mask, emit.constant(0, np.int32))
        penalty = emit("Where", visible, emit.constant(0.0), hidden)
        axes = emit.constant([1, 2], np.int64)
        added.append(emit("Unsqueeze", penalty, axes, rank=4))
    if int_attribute(node, "unidirectional", 0):
        square = emit("Shape", scores, attributes={"start": -2})
        ones = {"value": ir.tensor(np.ones(1, np.float32))}
        later = emit("ConstantOfShape", square, attributes=ones)
        later = emit("Trilu", later, emit.constant(1, np.int64), attributes={"upper": 1})
        added.append(emit("Mul", later, hidden))
    bias = optional(node, 5)
    return added if bias is None else [*added, bias]


_RULES: Final[dict[tuple[str, str], _Rule]] = {
    (DOMAIN, "Attention"): _attention,
    (DOMAIN, "BiasGelu"): _gelu,
    (DOMAIN, "FastGelu"): _gelu,
    (DOMAIN, "FusedConv"): _fused_conv,
    (DOMAIN, "FusedGemm"): _fused_gemm,
    (DOMAIN, "FusedMatMul"): _fused_matmul,
    (DOMAIN, "Gelu"): _gelu,
    (DOMAIN, "QuickGelu"): _quick_gelu,
    (DOMAIN, "SimplifiedLayerNormalization"): _simplified_layer_norm,
    (DOMAIN, "SkipLayerNormalization"): _skip_layer_norm,
    (DOMAIN, "SkipSimplifiedLayerNormalization"): _skip_layer_norm,
    (DOMAIN, "TransposeMatMul"): _fused_matmul,
    ("", "SimplifiedLayerNormalization"): _simplified_layer_norm,
}
