"""Carried quantizers that cost too much are left out, unless someone wants them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import onnx_cgmq as cgmq
from onnx_cgmq.api.costly import leave_out_costly
from onnx_cgmq.data.source import open_data
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from tests.support.toys import CLASSES, make_model

FAR = 400.0  # behind a Sigmoid it is 1, but 256 codes up to there are 1.6 apart


def _model(reach: float) -> onnx.ModelProto:
    """Conv, Sigmoid, Conv, Flatten, Gemm; one channel of the first Conv reaches far."""
    rng = np.random.default_rng(0)
    bias = np.zeros(4)
    bias[0] = reach
    weights = {
        "k1": rng.normal(0, 0.5, (4, 2, 3, 3)),
        "c1": bias,
        "k2": rng.normal(0, 0.5, (6, 4, 3, 3)),
        "w": rng.normal(0, 0.3, (CLASSES, 6 * 64)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k1", "c1"], ["far"], name="conv1", pads=[1] * 4),
        helper.make_node("Sigmoid", ["far"], ["s"], name="sigmoid"),
        helper.make_node("Conv", ["s", "k2"], ["h"], name="conv2", pads=[1] * 4),
        helper.make_node("Flatten", ["h"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w"], ["y"], name="last", transB=1),
    ]
    return make_model(nodes, weights, [2, 8, 8])


def _samples(count: int = 48) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, 2, 8, 8)).astype(np.float32)


def _left_out(reach: float, bound: str = "6.25%", **settings) -> tuple[set[str], Config, str]:
    config, model = Config.create(**settings), prepare(_model(reach))
    gated = insert_gates(model, config)
    before = set(Mirror(gated).quantizers)
    data = open_data(_samples(), model)
    gated, config, note = leave_out_costly(model, gated, config, bound, data)
    return before - set(Mirror(gated).quantizers), config, note


def test_a_costly_one_is_left_out_with_a_note() -> None:
    names, config, note = _left_out(FAR)
    assert names == {"far"}
    assert "far" in config.keep_float
    assert "'far'" in note
    assert "fix" in note


def test_a_cheap_one_stays() -> None:
    assert _left_out(0.5)[0] == set()


@pytest.mark.parametrize(
    ("bound", "settings"),
    [("6.25%", {"fix": {"far": 8}}), (["6.25%", "activations:90%"], {})],
    ids=["it is named", "the bound counts activations"],
)
def test_one_that_is_wanted_stays(bound, settings) -> None:
    names, config, note = _left_out(FAR, bound, **settings)
    assert names == set()
    assert not note
    assert "far" not in config.keep_float


def test_a_run_leaves_it_out_and_is_better_for_it() -> None:
    notes: list[str] = []

    def listen(event) -> None:
        if isinstance(event, cgmq.Notice):
            notes.append(event.message)

    runs = [
        cgmq.quantize(_model(FAR), _samples(), "6.25%", effort="fast", progress=listen, **settings)
        for settings in ({}, {"fix": {"far": 8}})
    ]
    assert sum("'far'" in note and "not quantized" in note for note in notes) == 1
    snr = [run.float_agreement.outputs["y"].snr_db for run in runs]
    assert snr[0] > snr[1] + 6
    assert all(run.report.rbop <= 0.0625 for run in runs)
