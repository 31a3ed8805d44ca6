from __future__ import annotations

import onnx
import pytest
from onnx import parser

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.graph.infer import infer_shapes
from onnx_cgmq.ort.capabilities import OLDEST_OPSET, newest_opset
from onnx_cgmq.preparation.opset import convert, target_opset


def test_target_opset_is_the_newest_with_kernels_for_all_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert target_opset(["Conv", "Relu", "NoSuchOperator"]) == newest_opset()
    since = onnx.defs.get_schema("Relu", 25, "").since_version
    kernels = {"Conv": {(22, 2**31 - 1)}, "RoiAlign": {(16, 2**31 - 1)}, "Relu": {(since, 30)}}
    monkeypatch.setattr("onnx_cgmq.ort.capabilities._kernels", lambda: kernels)
    assert target_opset(["Conv", "Relu"]) == newest_opset()
    assert target_opset(["Conv", "RoiAlign"]) == OLDEST_OPSET  # since 22 another operator


def group_norm(channels: str) -> str:
    return (
        '<ir_version: 8, opset_import: ["" : 19]> '
        f"g (float[1,{channels},3] x, float[2] s) => (float[1,{channels},3] y) "
        "{ r = Relu(x) y = GroupNormalization <num_groups = 2> (r, s, s) }"
    )


def test_group_normalization_of_unknown_channels_is_refused() -> None:
    for channels in ("4", "c"):
        graph = load_model(parser.parse_model(group_norm(channels)))
        infer_shapes(graph)
        if channels == "4":
            convert(graph)
            assert graph.opset_imports[""] == newest_opset()
            continue
        with pytest.raises(ModelError, match=r"of output 'y' \(opset 19\).* is unknown; export"):
            convert(graph)
