from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from tests.support.referee import parse, run_mirror

COUNT = 20_000


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _ones() -> dict[str, np.ndarray]:
    return {"x": np.ones(COUNT, np.float32), "r": np.float32(0.25), "t": np.array(True)}


def test_dropout_in_training_mode() -> None:
    model = parse(f"float[{COUNT}] x, float r, bool t", "y, m", "y, m = Dropout(x, r, t)")
    y, mask = run_mirror(model, _ones(), gradient=True)
    assert y.detach().unique().tolist() == [0, pytest.approx(1 / 0.75)]
    assert mask.dtype is torch.bool
    assert y.requires_grad
    assert mask.float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(mask, y != 0)


@pytest.mark.parametrize("inputs", ["x, r", "x, r, f", "x, z, t"])
def test_dropout_otherwise_keeps_everything(inputs: str) -> None:
    signature = f"float[{COUNT}] x, float r, bool t, float z, bool f"
    feeds = {**_ones(), "z": np.float32(0), "f": np.array(False)}
    y, mask = run_mirror(parse(signature, "y, m", f"y, m = Dropout({inputs})"), feeds)
    assert y.eq(1).all()
    assert mask.all()


def test_the_mask_of_opset_7_is_a_float() -> None:
    feeds = {"x": np.zeros(2, np.float32)}
    _, mask = run_mirror(parse("float[2] x", "y, m", "y, m = Dropout(x)", 7), feeds)
    assert mask.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("body", "mean", "deviation"),
    [
        (f"y = RandomNormal<shape=[{COUNT}], mean=2.0, scale=3.0>()", 2, 3),
        ("y = RandomNormalLike<mean=-1.0>(x)", -1, 1),
        (f"y = RandomUniform<shape=[{COUNT}], low=2.0, high=4.0>()", 3, 2 / 12**0.5),
        ("y = RandomUniformLike(x)", 0.5, 1 / 12**0.5),
    ],
)
def test_distributions(body: str, mean: float, deviation: float) -> None:
    (y,) = run_mirror(parse(f"float[{COUNT}] x", "y", body), {"x": np.zeros(COUNT, np.float32)})
    assert y.shape == (COUNT,)
    assert y.mean().item() == pytest.approx(mean, abs=0.08)
    assert y.std().item() == pytest.approx(deviation, rel=0.03)


def test_bernoulli() -> None:
    x = np.full(COUNT, 0.3, np.float32)
    body = f"y = Bernoulli<dtype={onnx.TensorProto.INT32}>(x)"
    (y,) = run_mirror(parse(f"float[{COUNT}] x", "y", body), {"x": x})
    assert y.dtype is torch.int32
    assert y.double().mean().item() == pytest.approx(0.3, abs=0.02)


def test_multinomial() -> None:
    x = np.log(np.array([[1, 3], [8, 2]], np.float32))
    body = f"y = Multinomial<sample_size={COUNT}>(x)"
    (y,) = run_mirror(parse("float[2,2] x", "y", body), {"x": x})
    assert y.dtype is torch.int32
    assert y.double().mean(dim=1).tolist() == pytest.approx([0.75, 0.2], abs=0.02)
