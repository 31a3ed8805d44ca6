"""Folds the factors of Gemm into its constants: integer kernels know of none.

Gemm computes ``alpha * A B + beta * C``. With constant ``B`` (or ``A``) and constant ``C`` this is
``A B' + C'`` with ``B' = alpha * B`` and ``C' = beta * C``. Exporters write such factors for scaled
layers and for biases that are switched off.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.decisions import Verdict, decide
from onnx_cgmq.graph.emitter import set_constant
from onnx_cgmq.graph.nodes import float_attribute, standard_op


def fold_gemm_factors(model: ir.Model) -> None:
    """Makes ``alpha`` and ``beta`` of every Gemm 1 where constants can take them, in place.

    A constant that other nodes read too is copied first. Where an operand is no constant, its
    factor stays.
    """
    for graph in model.graphs():
        for node in graph:
            if standard_op(node) == "Gemm":
                _fold(model, node, "alpha", (1, 0))
                _fold(model, node, "beta", (2,))


def _fold(model: ir.Model, node: ir.Node, name: str, operands: tuple[int, ...]) -> None:
    factor = float_attribute(node, name, 1.0)
    if factor == 1.0 or not np.isfinite(factor):
        return
    for index in operands:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None and value.const_value is not None:
            array = value.const_value.numpy()
            scaled = (array.astype(np.float64) * factor).astype(array.dtype)
            set_constant(model, node, index, scaled, f"{value.name}.{node.name}")
            break
    else:
        if any(index < len(node.inputs) and node.inputs[index] for index in operands):
            decide(node.name, Verdict.LEFT, f"{name} is {factor:g}, and no constant can take it")
            return
    decide(node.name, Verdict.REWRITTEN, f"{name} is part of its constants")
    node.attributes.pop(name, None)
