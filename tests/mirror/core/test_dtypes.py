from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror.core.dtypes import computable, is_supported, to_torch, unambiguous_type
from onnx_cgmq.mirror.module import Mirror


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"),
    [(np.float32, torch.float32), (np.float16, torch.float16), (np.uint16, torch.uint16)],
)
def test_same_bits(dtype: type, torch_dtype: torch.dtype) -> None:
    tensor = to_torch(ir.tensor(np.array([[1, 2], [3, 250]], dtype=dtype)))
    assert tensor.dtype is torch_dtype
    assert tensor.tolist() == [[1, 2], [3, 250]]


def test_bfloat16() -> None:
    tensor = to_torch(ir.tensor(np.array([1.5, -2.0], dtype=ml_dtypes.bfloat16)))
    assert tensor.dtype is torch.bfloat16
    assert tensor.tolist() == [1.5, -2.0]


def test_short_floats_are_cast_and_nothing_else() -> None:
    """Scales of written files; arithmetic in 8-bit floats is not torch's."""
    scales = np.array([1.5, -0.0625, 2.0**-16, 57344], dtype=ml_dtypes.float8_e5m2)
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (float[4] x) => (float[4] y) {{
            wide = Cast <to = {to}> (scales)
            y = Mul (x, {factor})
        }}"""

    def model(to: int, factor: str) -> ir.Model:
        made = ir.from_onnx_text(text.format(to=to, factor=factor))
        constant = ir.Value(name="scales", const_value=ir.tensor(scales, name="scales"))
        value = made.graph[0].inputs[0]
        assert value is not None
        value.replace_all_uses_with(constant)
        made.graph.register_initializer(constant)
        return made

    product = Mirror(model(1, "wide"))(torch.ones(4))["y"]
    assert product.tolist() == scales.astype(np.float32).tolist()
    with pytest.raises(UnsupportedOperatorError, match="no tensors of type FLOAT8E5M2"):
        Mirror(model(int(ir.DataType.FLOAT8E5M2), "x"))


def test_narrow_codes_are_held_in_bytes() -> None:
    codes = np.array([-8, 7, 0], dtype=ml_dtypes.int4)
    assert to_torch(ir.tensor(codes)).tolist() == [-8, 7, 0]
    assert to_torch(ir.tensor(np.array(3, dtype=ml_dtypes.uint2))).dtype is torch.uint8


def test_a_copy_is_made() -> None:
    array = np.zeros(3, dtype=np.float32)
    to_torch(ir.tensor(array)).add_(1)
    assert not array.any()


def test_strings_are_refused() -> None:
    assert not is_supported(ir.DataType.STRING)
    assert is_supported(None)
    with pytest.raises(TypeError, match="STRING"):
        to_torch(ir.tensor(["a"]))


def test_bytes_of_unknown_type_are_refused_where_they_may_be_narrow() -> None:
    codes = torch.zeros(1, dtype=torch.uint8)
    assert unambiguous_type(codes, opset=13) is ir.DataType.UINT8
    assert unambiguous_type(codes.float(), opset=25) is ir.DataType.FLOAT
    with pytest.raises(ValueError, match="UINT8, UINT4, UINT2"):
        unambiguous_type(codes, opset=25)


def test_wide_unsigned_types_are_computed_in_int64() -> None:
    assert computable(torch.zeros(1, dtype=torch.uint32)).dtype is torch.int64
    assert computable(torch.zeros(1, dtype=torch.uint8)).dtype is torch.uint8
