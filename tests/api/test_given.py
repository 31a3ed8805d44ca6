"""Runs that are given a plan: of ours, of AIMET or of onnxruntime."""

from __future__ import annotations

import json

import pytest

from onnx_cgmq.api.export import export_encodings
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.events import Notice
from onnx_cgmq.errors import BoundError, ConfigError
from tests.support.toys import convnet, toy_data

MODEL = convnet()
DATA = toy_data(MODEL, count=96)
RUN = {"effort": "fast", "seed": 1}


@pytest.fixture(scope="module")
def first():
    """A run that chose widths of 2, 4 and 8 bits."""
    return quantize(MODEL, DATA, "3%", **RUN)


def widths(plan) -> dict[str, int]:
    found = {name: tensor for name, tensor in plan.tensors.items() if tensor.role is not Role.BIAS}
    return {name: int(tensor.widths) for name, tensor in found.items()}


def notes(result) -> str:
    return "\n".join(event.message for event in result.events if isinstance(event, Notice))


@pytest.mark.slow
def test_a_plan_fixes_widths(first) -> None:
    result = quantize(MODEL, DATA, "100%", plan=first.plan, **RUN)
    assert widths(result.plan) == widths(first.plan)
    assert result.report.bops == first.report.bops
    assert "the plan" not in notes(result)


@pytest.mark.slow
def test_a_run_starts_from_a_plan_and_uses_the_bound(first) -> None:
    result = quantize(MODEL, DATA, "5%", plan=first.plan, plan_use="start", **RUN)
    assert first.plan.cost.bops < result.plan.cost.bops <= 0.05 * 1024 * first.plan.cost.macs


@pytest.mark.slow
def test_exported_widths_come_back(first) -> None:
    fields = json.loads(export_encodings(first.plan, "aimet").text)
    result = quantize(MODEL, DATA, "100%", plan=fields, **RUN)
    assert widths(result.plan) == widths(first.plan)


@pytest.mark.slow
def test_a_file_of_ours_can_be_quantized_again_from_its_encodings(first) -> None:
    exported = export_encodings(first.model, "aimet")
    result = quantize(exported.model, DATA, "100%", plan=json.loads(exported.text), **RUN)
    assert result.report.bops == first.report.bops
    assert result.float_agreement.outputs["y"].snr_db > 20


def test_a_bound_below_fixed_widths_is_an_error(first) -> None:
    with pytest.raises(BoundError, match="the plan fixes widths, which plan_use='start'"):
        quantize(MODEL, DATA, "1%", plan=first.plan, **RUN)


@pytest.mark.slow
def test_what_a_plan_leaves_open_and_what_is_not_taken_are_notes(first) -> None:
    overrides = {
        "k1": [{"quant_type": "QInt4"}],
        "c1": [{"quant_type": "QInt8"}],
        "h1": [{"quant_type": "QUInt8"}],
    }
    result = quantize(MODEL, DATA, "100%", plan=overrides, **RUN)
    assert widths(result.plan)["k1"] == 4
    text = notes(result)
    assert "'c1' not taken: a bias" in text
    assert "'h1' not taken: no quantizer" in text
    assert "says nothing of 'x', " in text


def test_settings_by_name_count_more_than_the_plan(first) -> None:
    result = quantize(MODEL, DATA, "100%", plan=first.plan, fix={"k2": 8}, **RUN)
    assert widths(result.plan) == widths(first.plan) | {"k2": 8}


def test_a_plan_of_another_model_is_an_error(first) -> None:
    other = {"stranger": [{"quant_type": "QInt8"}]}
    with pytest.raises(
        ConfigError, match=r"none of the tensors.*'stranger'.*but the model has 'x'"
    ):
        quantize(MODEL, DATA, "100%", plan=other, **RUN)


def test_a_width_that_the_target_lacks_is_an_error() -> None:
    wide = {"k1": [{"quant_type": "QInt16"}]}
    with pytest.raises(ConfigError, match=r"'k1'.*no weights of 16 bits"):
        quantize(MODEL, DATA, "100%", plan=wide, **RUN)
