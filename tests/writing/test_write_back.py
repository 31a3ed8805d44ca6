from __future__ import annotations

import pytest

from onnx_cgmq.contract.form import Form, written_form
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan
from tests.support.toys import mlp


def test_an_unknown_form_is_refused() -> None:
    gated = insert_gates(mlp())
    with pytest.raises(ConfigError, match="choose one of ort, native, tensorrt, qonnx"):
        write_back(gated, make_plan(gated), form="tflite")


def test_form_ort_is_the_default() -> None:
    gated = insert_gates(mlp())
    assert written_form(write_back(gated, make_plan(gated))) is Form.ORT
