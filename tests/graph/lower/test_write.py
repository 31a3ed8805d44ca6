from __future__ import annotations

import pytest
from plans import make_plan
from toys import mlp

from onnx_cgmq.errors import ConfigError
from onnx_cgmq.graph.gating.insert import insert_gates
from onnx_cgmq.graph.lower.form import Form
from onnx_cgmq.graph.lower.write import write_back


def test_a_form_that_is_not_there_is_refused() -> None:
    gated = insert_gates(mlp())
    with pytest.raises(ConfigError, match="'tflite' can't be written; choose one of ort"):
        write_back(gated, make_plan(gated), form="tflite")


def test_forms_by_name() -> None:
    gated = insert_gates(mlp())
    plan = make_plan(gated)
    texts = [
        write_back(gated, plan, form=form).graph.display(page=False) for form in (Form.ORT, "ort")
    ]
    assert texts[0] == texts[1]
