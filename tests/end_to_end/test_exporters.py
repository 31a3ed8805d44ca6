"""What torch's exporters write: mirrored, differentiated, quantized, loaded."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch

import onnx_cgmq
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.ort.session import open_session
from tests.support.networks import NETWORKS, export

BOUND = "5%"  # below what 8 bits everywhere cost, so that widths have to fall


def _export(name: str, *, dynamo: bool) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        return export(NETWORKS[name], dynamo=dynamo)


def _run(model: object, x: torch.Tensor) -> np.ndarray:
    (y,) = open_session(model, threads=1).run(["y"], {"x": x.numpy()})
    return y


def _check_mirror(model: onnx.ModelProto, *batches: torch.Tensor) -> None:
    """The mirror agrees with onnxruntime; gradients reach every weight."""
    mirror = Mirror(model)
    for x in batches:
        expected, y = _run(model, x), mirror({"x": x})["y"]
        assert np.abs(y.detach().numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    y.square().sum().backward()
    weights = {name: p for name, p in mirror.value_parameters.items() if p.dim() > 0}
    assert weights
    assert not [name for name, p in weights.items() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_from_the_older_exporter_are_mirrored(name: str) -> None:
    inputs = NETWORKS[name].inputs
    _check_mirror(_export(name, dynamo=False), inputs(2), inputs(5))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_from_torchs_exporter_are_quantized(name: str) -> None:
    model, network = _export(name, dynamo=True), NETWORKS[name]
    shorter = network.inputs(5)[:, :4] if 1 in network.dynamic else network.inputs(5)
    _check_mirror(model, network.inputs(2), shorter)
    x = network.inputs(32)
    result = onnx_cgmq.quantize(
        model, {"x": x.numpy()}, BOUND, validation={"x": x.numpy()}, epochs=1, batch_size=16
    )
    assert result.check.within_bound
    written, expected = _run(result.model, x), result.mirror({"x": x})["y"].detach().numpy()
    # A value on the edge between two codes may fall to either side; it must not happen often.
    assert np.mean(np.abs(written - expected) > 1e-4) < 0.1
    assert _run(result.model, network.inputs(3)).shape == (3, *expected.shape[1:])
