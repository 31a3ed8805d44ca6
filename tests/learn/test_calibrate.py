"""Calibration fits the range of every width to part of the data, with any batch size."""

from __future__ import annotations

import weakref

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.contract.bits import Granularity, Role
from onnx_cgmq.data.source import Samples, open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers import observed
from onnx_cgmq.mirror.quantizers.observed import Observed, Observer
from onnx_cgmq.mirror.quantizers.ranges import fit_ranges
from onnx_cgmq.preparation.prepare import prepare
from tests.support.toys import convnet, mlp, toy_data


def _mirror(model, **settings) -> tuple[Mirror, Samples]:
    float_model = prepare(model)
    return Mirror(insert_gates(float_model, **settings, target="generic")), open_data(
        toy_data(model), float_model
    )


@pytest.mark.parametrize("granularity", [g.value for g in Granularity])
def test_calibrated_ranges_fit_the_values_of_the_float_model(granularity) -> None:
    mirror, data = _mirror(convnet(), granularity=granularity)
    gates = {name: quantizer.gate.clone() for name, quantizer in mirror.quantizers.items()}
    calibrate(mirror, data)
    x = torch.from_numpy(data.batch(np.arange(len(data))).inputs["x"])
    with torch.no_grad():
        values = mirror.run({"x": x}, list(mirror.quantizers))
    for name, quantizer in mirror.quantizers.items():
        fitted = fit_ranges(quantizer.spec, values[name])
        torch.testing.assert_close(quantizer.high.detach(), fitted.high)
        torch.testing.assert_close(quantizer.noise, fitted.error)
        assert torch.equal(quantizer.gate, gates[name])
        assert bool(quantizer.calibrated)


def test_calibration_does_not_depend_on_the_batch_size() -> None:
    results = []
    for batch_size in (7, 192):
        mirror, data = _mirror(convnet())
        calibrate(mirror, data, batch_size=batch_size)
        results.append([quantizer.high.detach() for quantizer in mirror.quantizers.values()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_calibration_takes_data_of_any_form() -> None:
    results = []
    for opened in (True, False):
        mirror, data = _mirror(mlp())
        calibrate(mirror, data if opened else toy_data(mlp()))
        results.append([quantizer.high.detach() for quantizer in mirror.quantizers.values()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_calibration_samples_are_spread_over_the_data() -> None:
    mirror, _ = _mirror(mlp())
    seen: list[torch.Tensor] = []
    mirror.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]["x"]))
    x = np.zeros((100, 8), dtype=np.float32)
    x[:, 0] = np.arange(100)
    calibrate(mirror, open_data({"x": x}, mirror.model), samples=5, batch_size=2)
    _, *seen = seen  # one sample tells how much memory a batch needs
    assert [len(batch) for batch in seen] == [2, 2, 1]
    assert torch.cat(seen)[:, 0].tolist() == [0, 24, 49, 74, 99]


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_calibration_keeps_part_of_large_activations(granularity, monkeypatch) -> None:
    kept: dict[str, int] = {}
    mirror, data = _mirror(convnet(), granularity=granularity)
    for name, quantizer in mirror.quantizers.items():
        fit = quantizer.fit

        def watched(values, name=name, fit=fit):
            kept[name] = values.rows.numel() if isinstance(values, Observed) else 0
            fit(values)

        quantizer.fit = watched
    monkeypatch.setattr(observed, "_MOST_VALUES", 2000)
    monkeypatch.setattr(observed, "_FEWEST_VALUES", 50)
    calibrate(mirror, data, batch_size=64)
    activations = [n for n, q in mirror.quantizers.items() if q.spec.role is Role.ACTIVATION]
    assert activations
    for name in activations:
        assert 500 <= kept[name] <= 4000


def test_activations_are_calibrated_on_values_of_the_float_model() -> None:
    """With no float width on the ladder, quantizers are on from the start; ranges are the same."""
    float_too, data = _mirror(convnet())
    always, _ = _mirror(convnet(), widths=(2, 4, 8, 16))
    for mirror in (float_too, always):
        calibrate(mirror, data, batch_size=50)
    for name, quantizer in always.quantizers.items():
        torch.testing.assert_close(quantizer.high, float_too.quantizers[name].high)


def test_values_that_are_not_finite_have_no_place_in_a_range() -> None:
    mirror, data = _mirror(mlp())
    calibrate(mirror, data)
    wanted = mirror.quantizers["x"].high.detach().clone()

    def with_nan(_, arguments):
        (x,) = arguments
        return (torch.cat([x, torch.full_like(x[:1], torch.nan)]),)

    mirror.quantizers["x"].register_forward_pre_hook(with_nan)
    calibrate(mirror, data)
    torch.testing.assert_close(mirror.quantizers["x"].high.detach(), wanted, rtol=0.05, atol=0)


def test_no_activation_is_kept_until_the_end_of_a_run(monkeypatch) -> None:
    layers = 12
    nodes = "  ".join(f"h{i + 1} = MatMul (h{i}, w)" for i in range(layers))
    text = f"float[n, 8] h0) => (float[n, 8] h{layers}) {{ {nodes} }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g ({text}')
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w"))
    mirror = Mirror(insert_gates(model, target="generic"))
    alive: list[weakref.ref[torch.Tensor]] = []
    most = []
    add = Observer.add

    def watched(self, values):
        alive.append(weakref.ref(values))
        most.append(sum(tensor() is not None for tensor in alive))
        add(self, values)

    monkeypatch.setattr(Observer, "add", watched)
    calibrate(mirror, open_data({"h0": np.ones((6, 8), np.float32)}, mirror.model), batch_size=2)
    activations = len(mirror.tensors_of(Role.ACTIVATION))
    assert activations >= layers
    assert len(most) >= 3 * activations
    assert max(most) <= 3
