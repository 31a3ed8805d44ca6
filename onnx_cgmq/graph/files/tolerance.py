"""Accepts what onnxruntime runs although it is not strictly valid ONNX, as some exporters write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import onnx
import onnx_ir as ir

from onnx_cgmq.contract.identifiers import QUANT_DOMAINS
from onnx_cgmq.graph.files.protos import all_nodes, all_tensors

_UNCHECKED: Final = "onnx_cgmq.unchecked"

_RUN_ANYWAY: Final = frozenset({"GroupNormalization", "LayerNormalization"})
"""Operators that onnxruntime runs in opsets where they are deprecated, or not in the standard."""

_NOT_STANDARD: Final = frozenset({"SimplifiedLayerNormalization"})
"""Operators of onnxruntime that files have in the standard domain."""

_FALSE_NAMES: Final = frozenset({"?", "-1", "None"})
"""Names that exporters give to all unknown sizes, so that two sizes of one name may differ."""


@contextmanager
def tolerated(proto: onnx.ModelProto) -> Iterator[None]:
    """Hides from onnx's checker what it need not refuse, and restores the proto afterwards.

    These are inputs and outputs of unknown rank, GroupNormalization before opset 21 (where it is
    deprecated), LayerNormalization before opset 17, operators of onnxruntime in the standard
    domain, and domains of QONNX that a file uses without importing them.
    """
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    hidden = [node for node in all_nodes(proto.graph) if _is_refused_without_need(node, opset)]
    tensors = [value.type.tensor_type for value in (*proto.graph.input, *proto.graph.output)]
    shapeless = [tensor for tensor in tensors if tensor.elem_type and not tensor.HasField("shape")]
    domains = [node.domain if node.HasField("domain") else None for node in hidden]
    for node in hidden:
        node.domain = _UNCHECKED
    for tensor in shapeless:
        tensor.shape.SetInParent()
    used = {node.domain for node in all_nodes(proto.graph)} & {_UNCHECKED, *QUANT_DOMAINS}
    not_imported = sorted(used - {known.domain for known in proto.opset_import})
    for domain in not_imported:
        proto.opset_import.add(domain=domain, version=1)
    try:
        yield
    finally:
        for node, name in zip(hidden, domains, strict=True):
            node.ClearField("domain")
            if name is not None:
                node.domain = name
        for tensor in shapeless:
            tensor.ClearField("shape")
        for _ in not_imported:
            proto.opset_import.pop()


def without_external_data(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for onnx's checker, with empty tensors in place of those with data in another file.

    The checker looks for such files itself, but in the folder of a file only, and then sees that
    file and not what is :func:`tolerated`.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in all_tensors(copy):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.dims[:] = [0]
    return copy


def forget_false_sizes(model: ir.Model) -> None:
    """Makes sizes unknown, in place, whose value or name only says so, such as -1 and ``?``.

    PaddlePaddle exports these.
    """
    for graph in model.graphs():
        values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
        for value in values:
            if value.shape is not None and any(map(_is_false, value.shape)):
                sizes = [None if _is_false(size) else size for size in value.shape]
                value.shape = ir.Shape(sizes)


def _is_false(size: int | ir.SymbolicDim) -> bool:
    return size < 0 if isinstance(size, int) else size.value in _FALSE_NAMES


def _is_refused_without_need(node: onnx.NodeProto, opset: int) -> bool:
    """Says whether the checker refuses a node that onnxruntime runs."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _NOT_STANDARD:
        return True
    if node.op_type not in _RUN_ANYWAY:
        return False
    if not onnx.defs.has(node.op_type, opset):
        return True
    return bool(onnx.defs.get_schema(node.op_type, opset).deprecated)
