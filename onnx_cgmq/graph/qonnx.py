"""``Quant``: the quantizer of QONNX, and its meaning in standard operators."""

from __future__ import annotations

from typing import Final

import onnx
import onnx_ir as ir

from onnx_cgmq.contract.identifiers import QUANT_DOMAIN, QUANT_DOMAINS

QUANT_VERSION: Final = 1
"""The version of :data:`QUANT_DOMAIN` that files import."""

QUANT_OP: Final = "Quant"
"""The operator type. Its inputs are x, scale, zero point and bit-width, all float32."""


QUANTIZERS: Final = ("BipolarQuant", "FloatQuant", "IntQuant", "Quant", "Trunc")
"""The operator types of all quantizers of QONNX. Their outputs have the input's shape and type."""


def is_quant(node: ir.Node) -> bool:
    """Says whether a node is a ``Quant`` of QONNX."""
    return node.op_type == QUANT_OP and node.domain in QUANT_DOMAINS


def quant_function(opset: int, domain: str = QUANT_DOMAIN) -> ir.Function:
    """Builds ``Quant<signed, narrow, rounding_mode>(x, scale, zeropt, bitwidth) -> y``.

    The function computes what QONNX defines for its rounding mode ``ROUND`` (half to even), in the
    order of QONNX's own executor::

        y = (round(clip(x / scale + zeropt, least, most)) - zeropt) * scale

    ``least`` and ``most`` are the smallest and the largest code. If ``signed`` is 1, ``least`` is
    ``narrow - 2**(bitwidth - 1)`` and ``most`` is ``2**(bitwidth - 1) - 1``. If it is 0, ``least``
    is 0 and ``most`` is ``2**bitwidth - 1 - narrow``.

    Args:
        opset: Version of the standard operators.
        domain: Domain of the ``Quant`` nodes.
    """
    text = f"""<domain: "{domain}", opset_import: ["" : {opset}]>
        {QUANT_OP} <signed, narrow, rounding_mode> (x, scale, zeropt, bitwidth) => (y)
        {{
            one = Constant <value_float: float = 1.0> ()
            two = Constant <value_float: float = 2.0> ()
            signed_int = Constant <value_int: int = @signed> ()
            narrow_int = Constant <value_int: int = @narrow> ()
            is_signed = Cast <to: int = 1> (signed_int)
            is_narrow = Cast <to: int = 1> (narrow_int)
            magnitude_bits = Sub (bitwidth, is_signed)
            codes = Pow (two, magnitude_bits)
            last = Sub (codes, one)
            is_unsigned = Sub (one, is_signed)
            left_out = Mul (is_narrow, is_unsigned)
            most = Sub (last, left_out)
            first = Sub (is_narrow, codes)
            least = Mul (first, is_signed)
            steps = Div (x, scale)
            shifted = Add (steps, zeropt)
            below = Min (shifted, most)
            inside = Max (below, least)
            rounded = Round (inside)
            centred = Sub (rounded, zeropt)
            y = Mul (centred, scale)
        }}"""
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


def define_quant(model: ir.Model) -> None:
    """Defines ``Quant`` as a function of the model, in place, so that onnxruntime can run it.

    Each domain in which the model uses ``Quant`` gets a definition.
    """
    opset = model.graph.opset_imports[""]
    for domain in {node.domain for graph in model.graphs() for node in graph if is_quant(node)}:
        model.functions.setdefault((domain, QUANT_OP, ""), quant_function(opset, domain))
        model.graph.opset_imports.setdefault(domain, QUANT_VERSION)
