from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse, run_mirror


def _feeds(shape: tuple[int, ...], dtype: type = np.float64) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    feeds = {name: generator.random(shape[1] if len(shape) > 1 else 1) + 0.5 for name in "sbmv"}
    return {"x": generator.standard_normal(shape)} | {k: v.astype(dtype) for k, v in feeds.items()}


def _signature(shape: tuple[int, ...]) -> str:
    channels = shape[1] if len(shape) > 1 else 1
    dims = ",".join(map(str, shape))
    return f"double[{dims}] x, " + ", ".join(f"double[{channels}] {name}" for name in "sbmv")


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2), (5,)])
def test_training_mode_like_torch(shape: tuple[int, ...]) -> None:
    body = "y, rm, rv = BatchNormalization<training_mode=1, momentum=0.7>(x, s, b, m, v)"
    feeds = _feeds(shape)
    y, mean, variance = run_mirror(parse(_signature(shape), "y, rm, rv", body, 15), feeds)
    x, s, b, m, v = (torch.from_numpy(np.array(feeds[name])) for name in "xsbmv")
    batch = x if x.dim() > 1 else x.unsqueeze(1)
    expected = torch.nn.functional.batch_norm(batch, None, None, s, b, training=True)
    torch.testing.assert_close(y, expected.reshape(x.shape))
    axes = [axis for axis in range(batch.dim()) if axis != 1]
    torch.testing.assert_close(mean, 0.7 * m + 0.3 * batch.mean(axes))
    torch.testing.assert_close(variance, 0.7 * v + 0.3 * batch.var(axes, correction=0))


def test_gradients_of_training_mode() -> None:
    body = "y, rm, rv = BatchNormalization<training_mode=1>(x, s, b, m, v)"
    assert_gradients(parse(_signature((3, 2, 2)), "y, rm, rv", body, 15), _feeds((3, 2, 2)))


def test_one_statistic_per_element_in_opset_7() -> None:
    """As ``spatial=0`` has it, onnxruntime runs it with the batch's axis alone reduced."""
    generator = np.random.default_rng(0)
    shapes = {"x": (2, 3, 2, 2)} | dict.fromkeys("sbmv", (3, 2, 2))
    signature = ", ".join(f"float[{','.join(map(str, s))}] {n}" for n, s in shapes.items())
    body = "y = BatchNormalization<spatial=0>(x, s, b, m, v)"
    feeds = {name: generator.random(shape).astype(np.float32) for name, shape in shapes.items()}
    assert_like_onnxruntime(parse(signature, "float[2,3,2,2] y", body, 7), feeds)


def test_training_mode_before_opset_14_is_refused() -> None:
    body = "y, m2, v2, sm, sv = BatchNormalization(x, s, b, m, v)"
    model = parse(_signature((4, 3)), "y, m2, v2, sm, sv", body, 9)
    with pytest.raises(UnsupportedOperatorError, match="training mode before opset 14"):
        run_mirror(model, _feeds((4, 3)))


def test_group_normalization_with_a_scale_per_group() -> None:
    generator = np.random.default_rng(0)
    x, scale, bias = (
        torch.from_numpy(generator.standard_normal(shape)) for shape in ((2, 6, 4), 3, 3)
    )
    model = parse(
        "double[2,6,4] x, double[3] s, double[3] b",
        "y",
        "y = GroupNormalization<num_groups=3>(x, s, b)",
        18,
    )
    (y,) = run_mirror(model, {"x": x.numpy(), "s": scale.numpy(), "b": bias.numpy()})
    expected = torch.nn.functional.group_norm(
        x, 3, scale.repeat_interleave(2), bias.repeat_interleave(2)
    )
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("operator", ["ReduceL2", "MeanVarianceNormalization", "LpNormalization"])
def test_gradients_are_finite_where_all_values_are_equal(operator: str) -> None:
    model = parse("float[2,3,2,2] x", "y", f"y = {operator}(x)", 17)
    x = torch.zeros(2, 3, 2, 2, requires_grad=True)
    y = Mirror(ir.from_proto(model))({"x": x})["y"]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
