"""Finds out what the installed onnxruntime can do: which opsets, kernels and types it has."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.integer_types import ir_version, pack, quantizer_opset
from onnx_cgmq.ort.session import LogLevel, new_session
from onnx_cgmq.ort.versions import Runtime

OLDEST_OPSET: Final = 21
"""The oldest opset of a gated model, whose functions need the 4- and 16-bit types of it."""

NEWEST_OPSET: Final = 25
"""The newest opset that models are written in, which is the newest that the converter reaches."""

_OPEN_END: Final = 2**31 - 1  # what onnxruntime says for a kernel without a last version


@cache
def newest_opset() -> int:
    """Returns the newest opset, up to 25, that the installed onnxruntime loads.

    Raises:
        ModelError: It loads no opset that has the types of a gated model.
    """
    for opset in range(NEWEST_OPSET, OLDEST_OPSET - 1, -1):
        if loads_opset(opset):
            return opset
    raise ModelError(
        f"onnxruntime {Runtime.installed().version} does not load opset {OLDEST_OPSET}; "
        "upgrade onnxruntime"
    )


def has_kernel(op_type: str, opset: int) -> bool:
    """Says whether the installed onnxruntime has a CPU kernel for an operator of an opset.

    Kernels state the versions of the operator that they run. One that states no last version runs
    only its first one.
    """
    if not onnx.defs.has(op_type, opset, ""):
        return False
    since = onnx.defs.get_schema(op_type, opset, "").since_version
    return any(
        first == since or (first <= since <= last != _OPEN_END)
        for first, last in _kernels().get(op_type, ())
    )


@cache
def _kernels() -> dict[str, set[tuple[int, int]]]:
    """Returns the first and the last version of each CPU kernel, by standard operator."""
    found: dict[str, set[tuple[int, int]]] = {}
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    for kernel in get_all_opkernel_def():
        if kernel.domain == "" and kernel.provider == "CPUExecutionProvider":
            found.setdefault(kernel.op_name, set()).add(tuple(kernel.version_range))
    return found


def loads_opset(opset: int) -> bool:
    """Says whether the installed onnxruntime loads a model of an opset, by loading one."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version_of(opset))
    try:
        new_session(model.SerializeToString(), log_level=LogLevel.SILENT)
    except Exception:  # onnxruntime has no common base for its load errors
        return False
    return True


def ir_version_of(opset: int) -> int:
    """Returns the oldest IR version that a model of an opset may have."""
    imports = [onnx.helper.make_opsetid("", opset)]
    return int(onnx.helper.find_min_ir_version_for(imports, ignore_unknown=True))


@cache
def folds_cast_of(data_type: ir.DataType) -> bool:
    """Says whether the installed onnxruntime runs weights that are cast from a type to INT8.

    This is found out by running a small model, once for each type.
    """
    weight = ir.Value(name="w", const_value=pack(np.array([[1, -1], [0, 1]]), data_type, "w"))
    scale = ir.Value(name="s", const_value=ir.tensor(np.float32(1), name="s"))
    zero = ir.Value(name="z", const_value=ir.tensor(np.int8(0), name="z"))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 2]))
    unsigned = ir.Value(name="u", const_value=ir.tensor(np.uint8(0), name="u"))
    cast = ir.node("Cast", [weight], {"to": ir.DataType.INT8})
    dequantize = ir.node("DequantizeLinear", [cast.outputs[0], scale, zero])
    # The activation is quantized too, because onnxruntime would otherwise round it to 8 bits itself
    # and the result would not be exact.
    codes = ir.node("QuantizeLinear", [x, scale, unsigned])
    activation = ir.node("DequantizeLinear", [codes.outputs[0], scale, unsigned])
    product = ir.node("MatMul", [activation.outputs[0], dequantize.outputs[0]])
    y = product.outputs[0]
    y.name, y.type, y.shape = "y", x.type, ir.Shape([1, 2])
    graph = ir.Graph(
        [x],
        [y],
        nodes=[cast, dequantize, codes, activation, product],
        initializers=[weight, scale, zero, unsigned],
        opset_imports={"": quantizer_opset(data_type)},
        name="probe",
    )
    model = ir.Model(graph, ir_version=ir_version(data_type))
    try:
        session = new_session(ir.to_proto(model).SerializeToString(), log_level=LogLevel.SILENT)
        (result,) = session.run(None, {"x": np.array([[3, 5]], dtype=np.float32)})
    except Exception:  # onnxruntime's errors have no common base; any of them means no
        return False
    return bool(np.array_equal(result, [[3, 2]]))
