from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.ort.capabilities import folds_cast_of


def test_folds_cast_of_int4_in_the_installed_onnxruntime() -> None:
    assert folds_cast_of(ir.DataType.INT4)


def test_folds_cast_of_a_type_that_onnxruntime_refuses_is_false(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise RuntimeError("tensor(int2) is not supported")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    assert not folds_cast_of.__wrapped__(ir.DataType.INT2)
