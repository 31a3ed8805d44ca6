"""Which integer type holds a grid, and packing into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.runtimes import Runtime

NEWEST_OPSET: Final = 25
"""Newest opset that models are written in."""

_SINCE: Final = {
    ir.DataType.INT2: 25,
    ir.DataType.UINT2: 25,
    ir.DataType.INT4: 21,
    ir.DataType.UINT4: 21,
    ir.DataType.INT16: 21,
    ir.DataType.UINT16: 21,
}
"""Opset that brought a type to QuantizeLinear and DequantizeLinear."""

_IR_VERSION: Final = {
    ir.DataType.INT2: 13,
    ir.DataType.UINT2: 13,
    ir.DataType.INT4: 10,
    ir.DataType.UINT4: 10,
    ir.DataType.FLOAT8E5M2: 9,
}


@dataclass(frozen=True)
class WeightTypes:
    """The types that weights may be stored in.

    Attributes:
        opset: Version of the standard operators in the model.
        runtime: The oldest onnxruntime to serve; the installed one must load a type as well.
    """

    opset: int = NEWEST_OPSET
    runtime: Runtime = field(default_factory=Runtime.installed)

    @classmethod
    def of(cls, model: ir.Model) -> WeightTypes:
        """Those of a prepared or gated model."""
        return cls(model.opset_imports.get("", 1), Runtime.of(model))

    def narrowest(self, width: int) -> ir.DataType:
        """Smallest type that holds a symmetric grid of 2, 4, 8 or 16 bits."""
        for data_type in (ir.DataType.INT2, ir.DataType.INT4):
            fits = width <= data_type.bitwidth and self.opset >= _SINCE[data_type]
            if fits and self.runtime.takes(data_type) and loads(data_type):
                return data_type
        return ir.DataType.INT8 if width <= 8 else ir.DataType.INT16


def grid_type(width: int, *, signed: bool) -> ir.DataType:
    """The integer type of just a width: 2, 4, 8 or 16 bits."""
    return ir.DataType[f"{'INT' if signed else 'UINT'}{width}"]


def quantizer_opset(data_type: ir.DataType) -> int:
    """Oldest opset whose quantizers take a type (13 for all older ones)."""
    return _SINCE.get(data_type, 13)


def ir_version(data_type: ir.DataType) -> int:
    """Oldest IR version that has a type (8 for all older ones)."""
    return _IR_VERSION.get(data_type, 8)


def pack(
    codes: npt.NDArray[np.integer[Any]], data_type: ir.DataType, name: str
) -> ir.TensorProtocol:
    """Codes as a tensor of a type, packed into ``raw_data`` below 8 bits (first element lowest)."""
    width = data_type.bitwidth
    if width >= 8:
        return ir.Tensor(codes.astype(data_type.numpy()), name=name)
    per_byte = 8 // width
    flat = codes.reshape(-1).astype(np.int8).view(np.uint8) & np.uint8(2**width - 1)
    padded = np.pad(flat, (0, -len(flat) % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(width)
    packed = np.bitwise_or.reduce(padded << shifts, axis=1).astype(np.uint8)
    return ir.PackedTensor(packed, data_type, shape=codes.shape, name=name)


@cache
def loads(data_type: ir.DataType) -> bool:
    """Whether the installed onnxruntime casts a type to INT8 and optimizes it away, tried once."""
    import onnxruntime as ort

    weight = ir.Value(name="w", const_value=pack(np.array([[1, -1], [0, 1]]), data_type, "w"))
    scale = ir.Value(name="s", const_value=ir.tensor(np.float32(1), name="s"))
    zero = ir.Value(name="z", const_value=ir.tensor(np.int8(0), name="z"))
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 2]))
    unsigned = ir.Value(name="u", const_value=ir.tensor(np.uint8(0), name="u"))
    cast = ir.node("Cast", [weight], {"to": ir.DataType.INT8})
    dequantize = ir.node("DequantizeLinear", [cast.outputs[0], scale, zero])
    # The activation is quantized as well: onnxruntime would round it to 8 bits of its own accord.
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
        opset_imports={"": _SINCE[data_type]},
        name="probe",
    )
    model = ir.Model(graph, ir_version=ir_version(data_type))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (result,) = session.run(None, {"x": np.array([[3, 5]], dtype=np.float32)})
    except Exception:  # whatever it raises: this type is not for it
        return False
    return bool(np.array_equal(result, [[3, 2]]))
