"""Codes of biases stay within INT32, even those of channels whose weights are nearly zero."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.data.source import open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan
from tests.support.referee import optimized_operators
from tests.support.toys import convnet, toy_data


def _dead_channel() -> onnx.ModelProto:
    """A model whose first convolution has a channel of only a bias, on which classes depend."""
    model = convnet()
    arrays = {t.name: onnx.numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    arrays["k1"][1] = 1e-12
    arrays["c1"][1] = 3.0
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    return model


@pytest.mark.parametrize("settings", [{"granularity": "channel"}, {"weight_ranges": "channel"}])
def test_biases_of_dead_channels_stay_within_int32_after_calibration(settings, tmp_path) -> None:
    model = _dead_channel()
    gated = insert_gates(model, widths=(8,), activation_granularity="tensor", **settings)
    mirror = Mirror(gated)
    data = toy_data(model)
    calibrate(mirror, open_data(data, prepare(model)))
    written = write_back(gated, mirror.plan())
    kernels = Counter(optimized_operators(written, tmp_path))
    assert (kernels["QLinearConv"], kernels["Conv"]) == (2, 0)
    wanted, plain, fast = (
        open_session(m, optimize=o).run(["y"], {"x": data["x"]})[0]
        for m, o in ((model, True), (written, False), (written, True))
    )
    assert np.abs(plain - wanted).max() < 0.05 * np.abs(wanted).max()
    assert np.abs(fast - wanted).max() < 0.05 * np.abs(wanted).max()
    with torch.no_grad():
        ours = mirror({"x": torch.from_numpy(data["x"])})["y"].numpy()
    assert np.isclose(ours, plain, rtol=1e-4, atol=1e-4).mean() > 0.99


@pytest.mark.parametrize("activation", ["HardSwish", "LeakyRelu", "Relu"])
def test_a_pruned_channel_stays_in_integers_while_its_bias_is_learned(activation, tmp_path) -> None:
    """Weights and bias of one channel are zero; its bias has a gradient."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]> g (float[n,2,4,4] x) => (float[n,3,4,4] y)
        {{ c = Conv (x, w1, b1)  a = {activation} (c)  y = Conv (a, w2, b2) }}"""
    )
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(4, 2, 1, 1)),
        "b1": rng.normal(size=4) * 0.1,
        "w2": rng.normal(size=(3, 4, 1, 1)),
        "b2": rng.normal(size=3) * 0.1,
    }
    arrays["w1"][2], arrays["b1"][2] = 0, 0
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in arrays.items()
    )
    gated = insert_gates(model, target="ort-cpu", widths=(8,))
    mirror = Mirror(gated)
    x = rng.normal(size=(64, 2, 4, 4)).astype(np.float32)
    calibrate(mirror, open_data({"x": x}, gated))
    with torch.no_grad():
        mirror.value_parameters["b1"][2] = 0.05  # what training makes of it
    kernels = Counter(optimized_operators(write_back(gated, mirror.plan()), tmp_path))
    assert kernels["QLinearConv"] >= 1
    assert kernels["Conv"] + kernels["FusedConv"] <= 1  # the last one is an output of the model


def test_a_bias_outside_of_int32_gets_a_float_kernel(tmp_path) -> None:
    model = _dead_channel()
    gated = insert_gates(model, widths=(8,), granularity="channel", activation_granularity="tensor")
    written = write_back(gated, make_plan(gated))
    kernels = Counter(optimized_operators(written, tmp_path))
    assert (kernels["QLinearConv"], kernels["Conv"] + kernels["FusedConv"]) == (1, 1)
    x = toy_data(model)["x"]
    wanted, plain, fast = (
        open_session(m, optimize=o).run(["y"], {"x": x})[0]
        for m, o in ((gated, False), (written, False), (written, True))
    )
    np.testing.assert_allclose(plain, wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(fast - wanted).max() < 0.05 * np.abs(wanted).max()
