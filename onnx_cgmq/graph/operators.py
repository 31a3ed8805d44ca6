"""The one table of operators: what each does to values, codes, signs and gradients.

Placement, cost, the writer and the reader ask the questions below, and keep no lists of their own,
so that they can't disagree. A new operator is one more row; what a row leaves out is not so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph.constants import constant_value
from onnx_cgmq.graph.mac_operators import LOOKUP, MAC_OPERATORS, Codes, OpSpec, is_quantizable
from onnx_cgmq.graph.nodes import operator_key, standard_op, text_attribute

NodeTest = Callable[[ir.Node], bool]


class Sign(Enum):
    """When the result of an operator is not negative."""

    ALWAYS = "always"
    LIKE_FIRST = "if the first input is not"
    LIKE_ALL = "if no input is"
    LIKE_ANY = "if any input is not"


class Dependence(Enum):
    """How a result depends on the inputs, where that is not by a gradient."""

    ON_SHAPES = "on their shapes alone"
    FLAT = "in steps: the gradient is zero"
    IN_SIZE = "in its own size: they choose how many elements it has"


def _always(node: ir.Node) -> bool:
    return True


def _never(node: ir.Node) -> bool:
    return False


def _fills_with_zeros(node: ir.Node) -> bool:
    """Whether Pad fills in zeros, which every grid has, or copies of what it reads."""
    if text_attribute(node, "mode", "constant") != "constant":
        return True
    if "value" in node.attributes:  # before opset 11
        return node.attributes["value"].as_float() == 0.0
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    fill = constant_value(node.inputs[2])
    return fill is not None and not np.any(fill)


def _picks_the_nearest(node: ir.Node) -> bool:
    """Whether Resize copies elements; what lies outside of a crop would be filled in."""
    crops = text_attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return text_attribute(node, "mode", "nearest") == "nearest" and not crops


def _has_constant_indices(node: ir.Node) -> bool:
    """Whether Gather selects the same elements at every run; otherwise it looks rows up."""
    indices = node.inputs[1]
    return indices is not None and indices.const_value is not None


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Attributes:
        mac: Operands, bias and axes, if its operands are quantized or its products counted.
        moves: Whether a node makes its first output of elements of its first input, and of zeros.
        keeps_order: Whether it leaves all elements in their order: a view.
        selects: Whether its result may be smaller than what it reads.
        fast_on_codes: Whether onnxruntime runs a node that moves elements on 8-bit codes as well,
            and no slower than on floats.
        clamps: Whether it limits its input between constants.
        integer_kernel: Whether onnxruntime's CPU provider runs it on codes of any scales, besides
            operators with MACs. HardSigmoid runs as an Add that saturates
            (``writing/hard_sigmoid.py``). Softmax and linear Resize have such kernels too, but
            these take up to ten times as long as floats do.
        sign: When its result is not negative.
        dependence: How its result depends on its inputs, if not by a gradient.
        codes: What it has to do with integer codes.
    """

    mac: OpSpec | None = None
    moves: NodeTest = _never
    keeps_order: bool = False
    selects: bool = False
    fast_on_codes: NodeTest = _always
    clamps: bool = False
    integer_kernel: bool = False
    sign: Sign | None = None
    dependence: Dependence | None = None
    codes: Codes | None = None


_WITHOUT_MACS: Final = (
    "BiasAdd BiasGelu BiasSoftmax BiasSplitGelu EmbedLayerNormalization ExpandDims FastGelu "
    "GatherBlockQuantized GatherND GridSample Gelu GroupNorm Inverse NhwcMaxPool Pad "
    "QEmbedLayerNormalization QuickGelu Range ReduceSumInteger RemovePadding RestorePadding "
    "RotaryEmbedding SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization "
    "Tokenizer Trilu Unique"
)
"""Operators of ``com.microsoft`` that are known not to multiply and accumulate."""

_ON_CODES_WITHOUT_MACS: Final = (
    "QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu "
    "QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere"
)
"""The same, of those that compute on codes."""

_TABLE: Final[dict[str, Operator]] = {
    **{spec.op_type: Operator(mac=spec, codes=spec.codes) for spec in MAC_OPERATORS},
    "Abs": Operator(sign=Sign.ALWAYS),
    "Add": Operator(integer_kernel=True, sign=Sign.LIKE_ALL),
    "AveragePool": Operator(integer_kernel=True, sign=Sign.LIKE_ALL),
    "Ceil": Operator(sign=Sign.LIKE_ALL, dependence=Dependence.FLAT),
    "Clip": Operator(clamps=True),
    "Compress": Operator(dependence=Dependence.IN_SIZE),
    "Concat": Operator(integer_kernel=True, sign=Sign.LIKE_ALL),
    "DepthToSpace": Operator(moves=_always),
    "DequantizeLinear": Operator(codes=Codes.READS),
    "Div": Operator(sign=Sign.LIKE_ALL),
    "Dropout": Operator(moves=_always, fast_on_codes=_never),
    "DynamicQuantizeLinear": Operator(codes=Codes.MAKES),
    "Exp": Operator(sign=Sign.ALWAYS),
    "Expand": Operator(moves=_always),
    "Flatten": Operator(moves=_always, keeps_order=True),
    "Floor": Operator(sign=Sign.LIKE_ALL, dependence=Dependence.FLAT),
    "Gather": Operator(
        mac=LOOKUP, moves=_always, selects=True, fast_on_codes=_has_constant_indices
    ),
    "GlobalAveragePool": Operator(integer_kernel=True, sign=Sign.LIKE_ALL),
    "GlobalMaxPool": Operator(moves=_always, fast_on_codes=_never),
    "HardSigmoid": Operator(integer_kernel=True, sign=Sign.ALWAYS),
    "Identity": Operator(moves=_always),
    "LeakyRelu": Operator(integer_kernel=True),
    "Max": Operator(sign=Sign.LIKE_ANY),
    "MaxPool": Operator(moves=_always),
    "Mean": Operator(sign=Sign.LIKE_ALL),
    "Min": Operator(sign=Sign.LIKE_ALL),
    "Mul": Operator(integer_kernel=True, sign=Sign.LIKE_ALL),
    "NonMaxSuppression": Operator(dependence=Dependence.IN_SIZE),
    "NonZero": Operator(dependence=Dependence.IN_SIZE),
    "Pad": Operator(moves=_fills_with_zeros),
    "QuantizeLinear": Operator(codes=Codes.MAKES),
    "ReduceL1": Operator(sign=Sign.ALWAYS),
    "ReduceL2": Operator(sign=Sign.ALWAYS),
    "ReduceMax": Operator(sign=Sign.LIKE_FIRST),
    "ReduceMean": Operator(sign=Sign.LIKE_FIRST),
    "ReduceMin": Operator(sign=Sign.LIKE_FIRST),
    "ReduceSum": Operator(sign=Sign.LIKE_FIRST),
    "ReduceSumSquare": Operator(sign=Sign.ALWAYS),
    "Relu": Operator(clamps=True, sign=Sign.ALWAYS),
    "Reshape": Operator(moves=_always, keeps_order=True),
    "Resize": Operator(moves=_picks_the_nearest),
    "Round": Operator(sign=Sign.LIKE_ALL, dependence=Dependence.FLAT),
    "Shape": Operator(dependence=Dependence.ON_SHAPES),
    "Sigmoid": Operator(integer_kernel=True, sign=Sign.ALWAYS),
    "Sign": Operator(dependence=Dependence.FLAT),
    "Size": Operator(dependence=Dependence.ON_SHAPES),
    "Slice": Operator(moves=_always, selects=True),
    "Softmax": Operator(sign=Sign.ALWAYS),
    "Softplus": Operator(sign=Sign.ALWAYS),
    "SpaceToDepth": Operator(moves=_always, fast_on_codes=_never),
    "Split": Operator(moves=_always, selects=True),
    "Sqrt": Operator(sign=Sign.ALWAYS),
    "Squeeze": Operator(moves=_always, keeps_order=True),
    "Sum": Operator(sign=Sign.LIKE_ALL),
    "Tile": Operator(moves=_always),
    "Transpose": Operator(moves=_always),
    "Unique": Operator(dependence=Dependence.IN_SIZE),
    "Unsqueeze": Operator(moves=_always, keeps_order=True),
    "com.microsoft.DequantizeLinear": Operator(codes=Codes.READS),
    "com.microsoft.QuantizeLinear": Operator(codes=Codes.MAKES),
    **{f"com.microsoft.{name}": Operator() for name in _WITHOUT_MACS.split()},
    **{
        f"com.microsoft.{name}": Operator(codes=Codes.COMPUTES)
        for name in _ON_CODES_WITHOUT_MACS.split()
    },
}

_NOT_IN_TABLE: Final = Operator()

MAC_OP_TYPES: Final = tuple(spec.op_type for spec in MAC_OPERATORS if is_quantizable(spec))
"""Operators that multiply and accumulate and whose operands can be quantized."""

_COMPUTE_ON_CODES: Final = frozenset(
    key.split(".")[-1] for key, row in _TABLE.items() if row.codes is Codes.COMPUTES
)
_ON_CODES_PREFIX: Final = "QLinear"
"""What onnxruntime calls operators that compute on codes, those that the table lacks too."""


def _row(node: ir.Node) -> Operator:
    return _TABLE.get(operator_key(node), _NOT_IN_TABLE)


def is_known(node: ir.Node) -> bool:
    """Whether the table has an operator: if it has no MACs there, it has none."""
    return operator_key(node) in _TABLE


def mac_spec(node: ir.Node) -> OpSpec | None:
    """Entry of a node that multiplies and accumulates, else ``None``."""
    spec = _row(node).mac
    return None if spec is LOOKUP else spec


def lookup_spec(node: ir.Node) -> OpSpec | None:
    """Entry of a node that may look rows up in a table, else ``None``."""
    spec = _row(node).mac
    return spec if spec is LOOKUP else None


def quantized_spec(node: ir.Node) -> OpSpec | None:
    """Entry of a node whose operands get quantizers (MACs and lookups in tables), else ``None``."""
    spec = _row(node).mac
    return spec if spec is not None and spec.quantizable(node) else None


def moves_codes(node: ir.Node) -> bool:
    """Whether one grid for a whole tensor commutes with a node: ``f(q(x)) == q(f(x))``.

    True for nodes that move or select elements, which includes the maximum since grids are
    monotone, and for those that fill in zeros, which every grid has. It speaks of the first input
    and the first output.
    """
    return bool(node.inputs) and node.inputs[0] is not None and _row(node).moves(node)


def moves_codes_fast(node: ir.Node) -> bool:
    """Whether a node moves codes, onnxruntime does so on 8 bits as fast as on floats, and no more.

    Outputs that only some nodes have (the indices of MaxPool) are not read; those of Split are all
    parts of the input.
    """
    if not moves_codes(node) or not _row(node).fast_on_codes(node):
        return False
    return standard_op(node) == "Split" or not any(output.uses() for output in node.outputs[1:])


def selects(node: ir.Node) -> bool:
    """Whether a node may give less than it reads."""
    return _row(node).selects


def is_view(node: ir.Node) -> bool:
    """Whether a node leaves all elements in their order."""
    return _row(node).keeps_order


def is_clamp(node: ir.Node) -> bool:
    """Whether a node only limits its input between constants, as a quantizer behind it does too."""
    limits = [value for value in node.inputs[1:] if value is not None]
    return _row(node).clamps and all(value.const_value is not None for value in limits)


def keeps_grid(node: ir.Node) -> bool:
    """Whether what a node makes lies on the grid of its first input: it moves codes, or is Relu."""
    return moves_codes(node) or standard_op(node) == "Relu"


def runs_on_codes(node: ir.Node) -> bool:
    """Whether onnxruntime's CPU provider has an integer kernel for a node without MACs."""
    return _row(node).integer_kernel


def sign_of(node: ir.Node) -> Sign | None:
    """When a result is not negative, as far as the operator tells."""
    return Sign.LIKE_FIRST if moves_codes(node) else _row(node).sign


def dependence_of(node: ir.Node) -> Dependence | None:
    """How a result depends on the inputs, if not by a gradient."""
    return _row(node).dependence


def is_quantized_operator(node: ir.Node) -> bool:
    """Whether a node makes, reads or computes on integer codes: the model is quantized already."""
    return (
        node.domain in QUANT_DOMAINS
        or _row(node).codes is not None
        or node.op_type.startswith(_ON_CODES_PREFIX)
    )


def computes_on_codes(op_type: str) -> bool:
    """Whether an operator, by its type in any domain, computes on integer codes."""
    return op_type in _COMPUTE_ON_CODES or op_type.startswith(_ON_CODES_PREFIX)
