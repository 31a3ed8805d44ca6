"""What files in the wild have, and onnxruntime runs, though it is no strictly valid ONNX."""

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
"""Deprecated in some opsets, or not in the standard yet, but run by onnxruntime."""

_NOT_STANDARD: Final = frozenset({"SimplifiedLayerNormalization"})
"""Operators of onnxruntime in the standard domain."""

_FALSE_NAMES: Final = frozenset({"?", "-1", "None"})
"""Names that exporters give to any unknown size: two sizes of one name need not be equal."""


@contextmanager
def tolerated(proto: onnx.ModelProto) -> Iterator[None]:
    """Hides from onnx's checker what it refuses without need, and shows it again afterwards.

    These are inputs and outputs of unknown rank, GroupNormalization before opset 21 (deprecated
    there) and LayerNormalization before 17, onnxruntime's operators in the standard domain, and
    domains of QONNX that a file uses without saying so.
    """
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    hidden = [node for node in all_nodes(proto.graph) if _is_odd(node, opset)]
    tensors = [value.type.tensor_type for value in (*proto.graph.input, *proto.graph.output)]
    shapeless = [tensor for tensor in tensors if tensor.elem_type and not tensor.HasField("shape")]
    domains = [node.domain if node.HasField("domain") else None for node in hidden]
    for node in hidden:
        node.domain = _UNCHECKED
    for tensor in shapeless:
        tensor.shape.SetInParent()
    used = {node.domain for node in all_nodes(proto.graph)} & {_UNCHECKED, *QUANT_DOMAINS}
    unsaid = sorted(used - {known.domain for known in proto.opset_import})
    for domain in unsaid:
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
        for _ in unsaid:
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
    """Makes sizes unknown that only stand for it, in place: PaddlePaddle's -1 and '?'."""
    for graph in model.graphs():
        values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
        for value in values:
            if value.shape is not None and any(map(_is_false, value.shape)):
                sizes = [None if _is_false(size) else size for size in value.shape]
                value.shape = ir.Shape(sizes)


def _is_false(size: int | ir.SymbolicDim) -> bool:
    return size < 0 if isinstance(size, int) else size.value in _FALSE_NAMES


def _is_odd(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _NOT_STANDARD:
        return True
    if node.op_type not in _RUN_ANYWAY:
        return False
    if not onnx.defs.has(node.op_type, opset):
        return True
    return bool(onnx.defs.get_schema(node.op_type, opset).deprecated)
