"""Peak memory of a model in a process of its own."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

from onnx_cgmq.errors import ModelError
from onnx_cgmq.ort.memory import peak_bytes
from tests.support.toys import make_model


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux reports the peak of a process"
)
def test_peak_bytes_include_the_weights(tmp_path) -> None:
    weights = {"w": np.ones((1024, 2048), np.float32)}
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")
    onnx.save(make_model([node], weights, [1024]), tmp_path / "m.onnx")
    inputs = {"x": np.ones((1, 1024), np.float32)}
    peak = peak_bytes(tmp_path / "m.onnx", inputs)
    assert peak is not None
    assert weights["w"].nbytes <= peak < 20 * weights["w"].nbytes


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux reports the peak of a process"
)
def test_peak_bytes_of_a_broken_file_is_an_error(tmp_path) -> None:
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")
    onnx.save(make_model([node], {"w": np.ones((8, 3))}, [8]), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="can't be run in a process of its own"):
        peak_bytes(tmp_path / "m.onnx", {})  # without its input
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"m\.onnx is not"):
        peak_bytes(tmp_path / "m.onnx", {})
