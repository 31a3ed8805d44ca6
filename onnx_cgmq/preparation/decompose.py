"""Replaces fused operators of onnxruntime (domain com.microsoft) by the equal standard operators.

Exporters and onnxruntime's own optimizer write fused operators. The operands of standard operators
can be quantized and their shapes inferred, and onnxruntime fuses them again when it loads the
model. A variant of an operator that standard operators can't express exactly stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.emitter import Emitter, optional, rank_of, replace, used_outputs
from onnx_cgmq.graph.nodes import float_attribute, int_attribute, node_key
from onnx_cgmq.preparation.decompose_attention import attention, multi_head_attention

DOMAIN: Final = "com.microsoft"

_DEFAULT_EPSILON: Final = 1e-12  # of the layer normalizations of this domain


def decompose(model: ir.Model) -> bool:
    """Replaces fused operators by standard ones, in place and in subgraphs too.

    Some replacements need to know a rank: infer shapes and call this again until nothing changes.

    Args:
        model: A model of at least opset 20. SkipSimplifiedLayerNormalization and
            SimplifiedLayerNormalization are only replaced in opset 23 and newer.

    Returns:
        Whether anything was replaced.
    """
    found, opset = False, model.opset_imports[""]
    for graph in model.graphs():
        for node in list(graph):
            rule = _RULES.get((node.domain, node.op_type))
            if rule is None:
                continue
            name, results = node.name or node_key(node), rule(Emitter(node, opset), node)
            if results is None:
                why = f"no standard operators do exactly what this variant of {node.op_type} does"
                decide(name, Verdict.LEFT, why)
            else:
                decide(name, Verdict.REWRITTEN, "standard operators can be quantized")
                replace(node, results)
                found = True
    return found


_Rule = Callable[[Emitter, ir.Node], "list[ir.Value | None] | None"]
"""Emits standard nodes for a fused node and returns a value for each of its outputs (``None`` for
one that nothing reads), or ``None`` if it can't replace the node."""


def _numbers(node: ir.Node, name: str) -> list[float]:
    attribute = node.attributes.get(name)
    return [] if attribute is None else list(attribute.as_floats())


def _without(node: ir.Node, *prefixes: str) -> dict[str, ir.Attr]:
    """Returns the attributes whose names do not begin with one of the prefixes."""
    return {n: a for n, a in node.attributes.items() if not n.startswith(prefixes)}


_CONV_ACTIVATIONS: Final[dict[str, tuple[str, ...]]] = {
    "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""Activation functions of FusedConv, and the names of their attributes in the order of
``activation_params``."""

_GEMM_ACTIVATIONS: Final[dict[str, tuple[str, ...]]] = {
    "Celu": ("alpha",),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""Activation functions of FusedGemm, and the names of their attributes."""


def _activation(
    emit: Emitter, x: ir.Value, kind: str, names: tuple[str, ...], numbers: list[float]
) -> ir.Value:
    """Emits an activation function whose attributes ``names`` have the values ``numbers``."""
    if kind == "Clip":
        return emit("Clip", x, *(emit.constant(number) for number in numbers))
    return emit(kind, x, attributes=dict(zip(names, numbers, strict=True)))


def _fused_conv(emit: Emitter, node: ir.Node) -> list[ir.Value | None] | None:
    attribute = node.attributes.get("activation")
    kind = "" if attribute is None else attribute.as_string()
    numbers = _numbers(node, "activation_params")
    names = _CONV_ACTIVATIONS.get(kind)
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
    if kind and kind not in _GEMM_ACTIVATIONS:
        return None
    names = tuple(
        name for name in _GEMM_ACTIVATIONS.get(kind, ()) if f"activation_{name}" in node.attributes
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
            if batches:  # the axis of the rows is the first one, before those of the batch
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
    settings = {"axis": -1, "epsilon": float_attribute(node, "epsilon", _DEFAULT_EPSILON)}
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


_RULES: Final[dict[tuple[str, str], _Rule]] = {
    (DOMAIN, "Attention"): attention,
    (DOMAIN, "BiasGelu"): _gelu,
    (DOMAIN, "FastGelu"): _gelu,
    (DOMAIN, "FusedConv"): _fused_conv,
    (DOMAIN, "FusedGemm"): _fused_gemm,
    (DOMAIN, "FusedMatMul"): _fused_matmul,
    (DOMAIN, "Gelu"): _gelu,
    (DOMAIN, "MultiHeadAttention"): multi_head_attention,
    (DOMAIN, "QuickGelu"): _quick_gelu,
    (DOMAIN, "SimplifiedLayerNormalization"): _simplified_layer_norm,
    (DOMAIN, "SkipLayerNormalization"): _skip_layer_norm,
    (DOMAIN, "SkipSimplifiedLayerNormalization"): _skip_layer_norm,
    (DOMAIN, "TransposeMatMul"): _fused_matmul,
    ("", "SimplifiedLayerNormalization"): _simplified_layer_norm,
}
