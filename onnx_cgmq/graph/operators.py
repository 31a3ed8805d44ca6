"""The one table of operators: what each of them does to values, codes, signs and gradients.

Placement, cost, writing and inspection ask the questions below and keep no lists of their own, so
that they can't disagree. To add an operator, add a row. What a row does not say is not so.
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
    """The condition under which the result of an operator is not negative."""

    ALWAYS = "always"
    LIKE_FIRST = "if the first input is not"
    LIKE_ALL = "if no input is"
    LIKE_ANY = "if any input is not"


class Dependence(Enum):
    """How the result of an operator depends on its inputs, if not through a gradient."""

    ON_SHAPES = "it depends on the shapes of the inputs only"
    FLAT = "it changes in jumps, so the gradient is zero"
    ON_CHANCE = "on chance: it is another one at each run"
    IN_SIZE = "the inputs decide how many elements it has"


def _always(node: ir.Node) -> bool:
    return True


def _never(node: ir.Node) -> bool:
    return False


def _fills_with_zeros(node: ir.Node) -> bool:
    """Says whether Pad fills with zeros, which every grid has, or with copies of its input."""
    if text_attribute(node, "mode", "constant") != "constant":
        return True
    if "value" in node.attributes:  # before opset 11
        return node.attributes["value"].as_float() == 0.0
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    fill = constant_value(node.inputs[2])
    return fill is not None and not np.any(fill)


def _picks_the_nearest(node: ir.Node) -> bool:
    """Says whether Resize only copies elements. A crop would also fill what lies outside of it."""
    crops = text_attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return text_attribute(node, "mode", "nearest") == "nearest" and not crops


def _has_constant_indices(node: ir.Node) -> bool:
    """Says whether Gather selects the same elements in every run; otherwise it looks up rows."""
    indices = node.inputs[1]
    return indices is not None and indices.const_value is not None


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Attributes:
        mac: Operands, bias and axes of an operator whose operands are quantized or whose
            multiply-accumulates count.
        moves: Whether the first output of a node consists of elements of its first input, and of
            zeros: whether the node is a mover.
        keeps_order: Whether the operator leaves all elements in their order, which makes it a view.
        selects: Whether the result may have fewer elements than the input.
        fast_on_codes: Whether onnxruntime runs a mover on 8-bit codes, no slower than on floats.
        clamps: Whether the operator limits its input to an interval.
        integer_kernel: Whether onnxruntime's CPU provider runs an operator without MACs on codes
            of any scale. HardSigmoid is written as an Add that saturates
            (``writing/hard_sigmoid.py``). Softmax and linear Resize have integer kernels too, but
            these take up to ten times as long as the float kernels.
        sign: The condition under which the result is not negative, if there is one.
        dependence: How the result depends on the inputs, if not through a gradient.
        codes: What the operator does with integer codes; ``None`` if it does nothing with them.
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
"""Operators of ``com.microsoft`` that compute on codes, also without multiply-accumulates."""

_TABLE: Final[dict[str, Operator]] = {
    **{spec.op_type: Operator(mac=spec, codes=spec.codes) for spec in MAC_OPERATORS},
    "Abs": Operator(sign=Sign.ALWAYS),
    "Add": Operator(integer_kernel=True, sign=Sign.LIKE_ALL),
    "AveragePool": Operator(integer_kernel=True, sign=Sign.LIKE_ALL),
    "Bernoulli": Operator(dependence=Dependence.ON_CHANCE),
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
    "Multinomial": Operator(dependence=Dependence.ON_CHANCE),
    "NonMaxSuppression": Operator(dependence=Dependence.IN_SIZE),
    "NonZero": Operator(dependence=Dependence.IN_SIZE),
    "Pad": Operator(moves=_fills_with_zeros),
    "QuantizeLinear": Operator(codes=Codes.MAKES),
    "RandomNormal": Operator(dependence=Dependence.ON_CHANCE),
    "RandomNormalLike": Operator(dependence=Dependence.ON_CHANCE),
    "RandomUniform": Operator(dependence=Dependence.ON_CHANCE),
    "RandomUniformLike": Operator(dependence=Dependence.ON_CHANCE),
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
"""The operators that multiply and accumulate and whose operands can get quantizers."""

_COMPUTE_ON_CODES: Final = frozenset(
    key.split(".")[-1] for key, row in _TABLE.items() if row.codes is Codes.COMPUTES
)
_ON_CODES_PREFIX: Final = "QLinear"
"""How the names of operators begin that compute on codes, including those that the table lacks."""


def _row(node: ir.Node) -> Operator:
    return _TABLE.get(operator_key(node), _NOT_IN_TABLE)


def is_known(node: ir.Node) -> bool:
    """Says whether the table has the operator of a node.

    An operator that it has, but without MACs, has none. Of others this is not known.
    """
    return operator_key(node) in _TABLE


def mac_spec(node: ir.Node) -> OpSpec | None:
    """Returns the entry of a node that multiplies and accumulates, else ``None``."""
    spec = _row(node).mac
    return None if spec is LOOKUP else spec


def lookup_spec(node: ir.Node) -> OpSpec | None:
    """Returns the entry of a node that may look up rows of an embedding table, else ``None``."""
    spec = _row(node).mac
    return spec if spec is LOOKUP else None


def quantized_spec(node: ir.Node) -> OpSpec | None:
    """Returns the entry of a node whose operands get quantizers, else ``None``.

    These are nodes that multiply and accumulate, and nodes that look up rows of embedding tables.
    """
    spec = _row(node).mac
    return spec if spec is not None and spec.quantizable(node) else None


def moves_codes(node: ir.Node) -> bool:
    """Says whether a node is a mover: whether it does the same to codes as to floats.

    For the node ``f`` and a quantizer ``q`` with one grid for the whole tensor this means
    ``f(q(x)) == q(f(x))``, where ``x`` is the first input and ``f(x)`` the first output. It holds
    for nodes that move or select elements. The maximum selects too, because grids are monotone. It
    also holds for nodes that fill with zeros, because every grid has a zero.
    """
    return bool(node.inputs) and node.inputs[0] is not None and _row(node).moves(node)


def moves_codes_fast(node: ir.Node) -> bool:
    """Says whether a node only moves codes, and onnxruntime does so as fast as with floats.

    A node does more than that if something reads an output besides the first, such as the indices
    of MaxPool. Split is an exception, because all its outputs are parts of the input.
    """
    if not moves_codes(node) or not _row(node).fast_on_codes(node):
        return False
    return standard_op(node) == "Split" or not any(output.uses() for output in node.outputs[1:])


def selects(node: ir.Node) -> bool:
    """Says whether the result of a node may have fewer elements than its input."""
    return _row(node).selects


def is_view(node: ir.Node) -> bool:
    """Says whether a node leaves all elements in their order, like Reshape."""
    return _row(node).keeps_order


def is_clamp(node: ir.Node) -> bool:
    """Says whether a node only limits its input to a constant interval.

    A quantizer that follows can do the same with the smallest and largest code.
    """
    limits = [value for value in node.inputs[1:] if value is not None]
    return _row(node).clamps and all(value.const_value is not None for value in limits)


def keeps_grid(node: ir.Node) -> bool:
    """Says whether the output of a node lies on the grid of its first input.

    It does if the node is a mover or a Relu.
    """
    return moves_codes(node) or standard_op(node) == "Relu"


def runs_on_codes(node: ir.Node) -> bool:
    """Says whether onnxruntime's CPU provider has an integer kernel for a node without MACs."""
    return _row(node).integer_kernel


def sign_of(node: ir.Node) -> Sign | None:
    """Returns the condition under which the result of a node is not negative.

    ``None`` means that the operator alone does not tell.
    """
    return Sign.LIKE_FIRST if moves_codes(node) else _row(node).sign


def dependence_of(node: ir.Node) -> Dependence | None:
    """Returns how the result of a node depends on its inputs, if not through a gradient."""
    return _row(node).dependence


def is_quantized_operator(node: ir.Node) -> bool:
    """Says whether a node makes, reads or computes on integer codes, as in a quantized model."""
    return (
        node.domain in QUANT_DOMAINS
        or _row(node).codes is not None
        or node.op_type.startswith(_ON_CODES_PREFIX)
    )


def computes_on_codes(op_type: str) -> bool:
    """Says whether an operator of this type, in whichever domain, computes on integer codes."""
    return op_type in _COMPUTE_ON_CODES or op_type.startswith(_ON_CODES_PREFIX)
