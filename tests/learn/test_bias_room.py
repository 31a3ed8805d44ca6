"""Dead channels with a bias: no code of the bias leaves INT32."""

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
    """The second channel of the first convolution is a constant that the classes depend on."""
    model = convnet()
    arrays = {t.name: onnx.numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    arrays["k1"][1] = 1e-12
    arrays["c1"][1] = 3.0
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items())
    return model


@pytest.mark.parametrize("settings", [{"granularity": "channel"}, {"weight_ranges": "channel"}])
def test_a_calibrated_model_stays_in_integers(settings, tmp_path) -> None:
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


def test_without_calibration_the_kernel_is_float_and_right(tmp_path) -> None:
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
