from __future__ import annotations

import pytest

from onnx_cgmq.contract.form import Form, written_form
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan
from tests.support.toys import mlp


@pytest.mark.parametrize("form", list(Form))
def test_a_model_says_its_form(form) -> None:
    gated = insert_gates(mlp(), target="tensorrt" if form is Form.TENSORRT else "onnxruntime")
    plan = make_plan(gated)
    assert written_form(gated) is None
    for given in (form, form.value):
        assert written_form(write_back(gated, plan, form=given)) is form


def test_a_form_that_nobody_knows() -> None:
    gated = insert_gates(mlp())
    gated.metadata_props["onnx_cgmq.form"] = "tomorrow's"
    assert written_form(gated) is None
