"""Opset 6 against the text of the standard, and against opset 7 in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError
from tests.support.referee import assert_like_onnxruntime, parse, run_mirror

A = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "axis", "aligned"),
    [((4,), None, (4,)), ((3, 4), None, (3, 4)), ((3,), 1, (3, 1)), ((2, 3), 0, (2, 3, 1))],
)
@pytest.mark.parametrize("name", ["Add", "Sub", "Mul", "Div"])
def test_the_second_input_begins_at_an_axis(name, shape, axis, aligned) -> None:
    b = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    where = "" if axis is None else f", axis={axis}"
    dims = ",".join(map(str, shape))
    body = f"y = {name}<broadcast=1{where}>(a, b)"
    (y,) = run_mirror(parse(f"float[2,3,4] a, float[{dims}] b", "y", body, 6), {"a": A, "b": b})
    run = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[name]
    np.testing.assert_allclose(y.numpy(), run(A, b.reshape(aligned)), rtol=1e-6)


def test_slopes_are_per_channel() -> None:
    slope = np.array([0.1, 0.2, 0.3], np.float32)
    model = parse("float[2,3,4] x, float[3] s", "y", "y = PRelu(x, s)", 6)
    (y,) = run_mirror(model, {"x": A, "s": slope})
    np.testing.assert_allclose(y.numpy(), np.where(A < 0, slope[:, None] * A, A), rtol=1e-6)


@pytest.mark.parametrize("operator", ["Dropout", "BatchNormalization"])
def test_training_mode_is_refused(operator: str) -> None:
    inputs = "x" if operator == "Dropout" else "x, s, s, s, s"
    model = parse("float[2,3,4] x, float[3] s", "y", f"y = {operator}({inputs})", 6)
    with pytest.raises(UnsupportedOperatorError, match="training mode"):
        run_mirror(model, {"x": A, "s": np.ones(3, np.float32)})


def test_inference_like_opset_7() -> None:
    values = {"s": 2, "b": 1, "m": 3, "v": 4}
    statistics = {name: np.full(3, value, np.float32) for name, value in values.items()}
    signature = "float[2,3,4] x, " + ", ".join(f"float[3] {name}" for name in "sbmv")
    body = "d = Dropout<is_test=1>(x) y = BatchNormalization<is_test=1>(d, s, b, m, v)"
    (y,) = run_mirror(parse(signature, "y", body, 6), {"x": A, **statistics})
    model = parse(signature, "float[2,3,4] y", "y = BatchNormalization(x, s, b, m, v)", 7)
    (expected,) = assert_like_onnxruntime(model, {"x": A, **statistics})
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)
