"""onnxruntime's own quantizer, to compare with."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import pytest

from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import ModelError
from onnx_cgmq.inspection import inspect
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.ort.static_quantization import quantize_static
from onnx_cgmq.preparation.prepare import prepare
from tests.support.toys import convnet, mlp, toy_data


def test_a_static_model_has_8_bits_and_is_near_the_float_model(caplog) -> None:
    model = prepare(convnet())
    data, before = toy_data(convnet()), ir.serde.serialize_model(model).SerializeToString()
    with caplog.at_level(logging.WARNING):
        written = quantize_static(model, open_data(data, model))
    assert not caplog.records
    assert inspect(written).rbop == 8 * 8 / 1024
    (wanted,) = open_session(convnet(), threads=1).run(["y"], {"x": data["x"]})
    (found,) = open_session(written, threads=1).run(["y"], {"x": data["x"]})
    assert ((wanted - found) ** 2).sum() < 1e-2 * (wanted**2).sum()
    assert ir.serde.serialize_model(model).SerializeToString() == before


def test_what_onnxruntime_can_not_quantize_is_an_error(monkeypatch) -> None:
    from onnxruntime import quantization

    def fail(*_, **__):
        raise RuntimeError("no way\nto do it")

    monkeypatch.setattr(quantization, "quantize_static", fail)
    model = prepare(mlp())
    data = open_data({"x": np.zeros((3, 8), np.float32)}, model)
    with pytest.raises(ModelError, match="can't quantize the model: no way to do it"):
        quantize_static(model, data)
