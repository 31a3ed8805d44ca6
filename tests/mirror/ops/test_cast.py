from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError
from tests.support.referee import parse, run_mirror


@pytest.mark.parametrize(
    ("source", "target"),
    [("float", "uint32"), ("uint64", "double"), ("int8", "uint8"), ("float16", "int16")],
)
def test_bit_cast_is_a_view(source: str, target: str) -> None:
    dtype = {"float": np.float32, "double": np.float64}
    x = np.array([3, 200, 0]).astype(dtype.get(source, source))
    to = getattr(onnx.TensorProto, target.upper())
    model = parse(f"{source}[3] x", f"{target}[3] y", f"y = BitCast<to={to}>(x)", 26)
    (y,) = run_mirror(model, {"x": x})
    assert y.numpy().tobytes() == x.tobytes()
    assert y.numpy().dtype == dtype.get(target, target)


def test_bit_cast_between_narrow_integers() -> None:
    body = (
        f"n = Cast<to={onnx.TensorProto.INT4}>(x) u = BitCast<to={onnx.TensorProto.UINT4}>(n) "
        f"y = Cast<to={onnx.TensorProto.INT32}>(u)"
    )
    model = onnx.shape_inference.infer_shapes(parse("int32[3] x", "int32[3] y", body, 26))
    (y,) = run_mirror(model, {"x": np.array([-1, 7, -8], np.int32)})
    assert y.tolist() == [15, 7, 8]


def test_bit_cast_to_another_width_is_refused() -> None:
    body = f"y = BitCast<to={onnx.TensorProto.INT64}>(x)"
    with pytest.raises(UnsupportedOperatorError, match="differ in width"):
        run_mirror(parse("float[1] x", "int64[1] y", body, 26), {"x": np.zeros(1, np.float32)})
