"""Fusions that prepare a float graph: fewer tensors to quantize, more integer kernels."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import rewriter
from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)

from onnx_cgmq.graph.opspec import int_attribute, standard_op

_BATCH_NORM_RULES = (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)


def fold_batch_norm(model: ir.Model) -> None:
    """Folds BatchNormalization into the Conv, ConvTranspose or Gemm before it, in place.

    In training mode it depends on the batch: then nothing is folded.
    """
    nodes = [node for node in model.graph if standard_op(node) == "BatchNormalization"]
    if nodes and not any(int_attribute(node, "training_mode", 0) for node in nodes):
        rewriter.rewrite(model, list(_BATCH_NORM_RULES))


def fuse_matmul_add(model: ir.Model) -> None:
    """Replaces ``Add(MatMul(a, b), c)`` with ``Gemm(a, b, c)``, in place.

    Only for matrices and a constant ``c`` of shape ``[N]`` or ``[1, N]``: others would change the
    shape of the result, or are no bias.
    """
    for add in list(model.graph):
        if standard_op(add) != "Add":
            continue
        matmul, bias = _matmul_and_bias(add)
        if matmul is None or bias is None:
            continue
        old = add.outputs[0]
        gemm = ir.Node(
            "", "Gemm", [matmul.inputs[0], matmul.inputs[1], bias], num_outputs=1, name=matmul.name
        )
        new = gemm.outputs[0]
        new.name, new.type, new.shape = old.name, old.type, old.shape
        ir.convenience.replace_nodes_and_values(
            model.graph, add, [add, matmul], [gemm], [old], [new]
        )


def _matmul_and_bias(add: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    for product, bias in (add.inputs, reversed(add.inputs)):
        matmul = product.producer() if product is not None else None
        if matmul is None or standard_op(matmul) != "MatMul" or product is None or bias is None:
            continue
        shared = len(product.uses()) != 1 or product.is_graph_output()
        ranks = [
            len(v.shape) if v is not None and v.shape is not None else None for v in matmul.inputs
        ]
        if not shared and ranks == [2, 2] and _is_row(bias, matmul.inputs[1]):
            return matmul, bias
    return None, None


def _is_row(bias: ir.Value, weight: ir.Value | None) -> bool:
    if bias.const_value is None or weight is None or weight.shape is None:
        return False
    shape = tuple(bias.const_value.shape)
    columns = weight.shape[1]
    return isinstance(columns, int) and shape in ((columns,), (1, columns))
