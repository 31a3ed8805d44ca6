"""What a reader of a report must know about operators that were not counted."""

from __future__ import annotations

from collections import Counter
from typing import Final

import onnx_ir as ir

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph.operators import mac_spec, operator_key, standard_op
from onnx_cgmq.ort.sizes import Sizes

_NO_MACS: Final = frozenset(
    {
        "BiasAdd",
        "BiasGelu",
        "BiasSoftmax",
        "BiasSplitGelu",
        "DequantizeLinear",
        "EmbedLayerNormalization",
        "ExpandDims",
        "FastGelu",
        "GatherBlockQuantized",
        "GatherND",
        "GridSample",
        "Gelu",
        "GroupNorm",
        "Inverse",
        "NhwcMaxPool",
        "Pad",
        "QEmbedLayerNormalization",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QuantizeLinear",
        "QuickGelu",
        "Range",
        "ReduceSumInteger",
        "RemovePadding",
        "RestorePadding",
        "RotaryEmbedding",
        "SkipGroupNorm",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "Tokenizer",
        "Trilu",
        "Unique",
    }
)
"""Operators of onnxruntime (domain com.microsoft) that don't multiply and accumulate."""

_QUANTIZERS: Final = frozenset({"BipolarQuant", "FloatQuant", "IntQuant", "Quant", "Trunc"})


def unknown_operators(model: ir.Model) -> tuple[str, ...]:
    """A sentence for every operator of another domain that may multiply and is not counted."""
    unknown = Counter(
        operator_key(node)
        for node in model.graph.all_nodes()
        if standard_op(node) is None and mac_spec(node) is None and not _is_harmless(node)
    )
    return tuple(
        f"{operator} ({count} node{'s' * (count > 1)}) is not known: if it multiplies and "
        "accumulates, its cost is not counted"
        for operator, count in unknown.items()
    )


def open_sizes(model: ir.Model) -> tuple[str, ...]:
    """A sentence on operands with sizes that are not known."""
    sizes = Sizes(model)
    found = [
        node.name or str(node.outputs[0].name)
        for node in model.graph.all_nodes()
        if (spec := mac_spec(node)) is not None
        and any(None in (sizes.shape(value) or ()) for _, value in spec.operand_values(node))
    ]
    if not found:
        return ()
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        "sizes that the file leaves open count as 1 unless --shape (in Python: shapes) gives them: "
        f"{found[0]}{more}",
    )


def _is_harmless(node: ir.Node) -> bool:
    if node.domain in QUANT_DOMAINS:
        return node.op_type in _QUANTIZERS
    if node.domain == "ai.onnx.ml":
        return not node.op_type.startswith(("Linear", "SVM"))
    return node.domain == "com.microsoft" and node.op_type in _NO_MACS
