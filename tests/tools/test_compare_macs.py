from __future__ import annotations

import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from tests.support.packaged_models import NAMES, packaged_model

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from compare_macs import (
    LENET5,
    SHAPES,
    Row,
    Shapes,
    compare,
    count_biases,
    count_ours,
    single_operators,
    write_table,
)

EXPECTED = {
    "Conv 2-D, depthwise": 6 * 9 * 20 * 22,
    "ConvTranspose, 2 groups": 6 * 100 * 2 * 9,
    "Gemm, both transposed": 5 * 7 * 9,
    "LSTM, two directions": 9 * 2 * 24 * (5 + 6),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_single_operators(name) -> None:
    model, shapes = single_operators()[name]
    assert count_ours(model, shapes).total() == EXPECTED[name]
    assert not count_biases(model, shapes)


# What others count, by operator: said by `compare` (tools/compare_macs.py) with qonnx 1.0.0 and
# onnx-tool 1.0.1. QONNX knows three operators only. onnx-tool counts biases too, and stops at an
# operator of magika; docs/benchmarks/macs.md says why its ConvTranspose, LSTM and GRU are no truth.
QONNX = {
    "lenet5": {"Conv": 3_737_600, "Gemm": 529_408},
    "magika": {"Conv": 332_922_880, "Gemm": 109_568, "MatMul": 33_685_504},
    "ocr-detection": {"Conv": 558_364_544},
    "ocr-recognition": {"Conv": 660_685_440, "MatMul": 41_784_000},
    "ocr-orientation": {"Conv": 16_314_976, "Gemm": 400},
    "open-nsfw": {"Conv": 1_068_548_096, "Gemm": 2_048},
    "Conv 1-D, dilated": {"Conv": 5_760},
    "Conv 2-D, strided, 2 groups": {"Conv": 29_160},
    "Conv 2-D, depthwise": {"Conv": 23_760},
    "Conv 3-D": {"Conv": 34_560},
    "Gemm, both transposed": {"Gemm": 315},
    "MatMul, broadcast": {"MatMul": 1_260},
}
ONNX_TOOL = {
    "lenet5": {"Conv": 3_760_128, "Gemm": 529_930},
    "ocr-detection": {"Conv": 562_997_864, "ConvTranspose": 60_108_800},
    "ocr-recognition": {"Conv": 666_149_700, "MatMul": 41_784_000},
    "ocr-orientation": {"Conv": 16_921_938, "Gemm": 402},
    "open-nsfw": {"Conv": 1_074_243_072, "Gemm": 2_050},
    "Conv 1-D, dilated": {"Conv": 5_760},
    "Conv 2-D, strided, 2 groups": {"Conv": 29_160},
    "Conv 2-D, depthwise": {"Conv": 23_760},
    "Conv 3-D": {"Conv": 34_560},
    "Gemm, both transposed": {"Gemm": 315},
    "MatMul, broadcast": {"MatMul": 1_260},
    "Einsum": {"Einsum": 210},
}
CASES = [
    pytest.param(name, marks=pytest.mark.slow) if name in NAMES else name
    for name in QONNX | ONNX_TOOL
]


def case(name: str) -> tuple[onnx.ModelProto, Shapes | None]:
    if name == "lenet5":
        return onnx.load(LENET5), None
    return (packaged_model(name), SHAPES[name]) if name in NAMES else single_operators()[name]


@pytest.mark.parametrize("name", CASES)
def test_others_count_the_same(name) -> None:
    row = compare(name, *case(name))
    if name in QONNX:
        known = {op: count for op, count in row.ours.items() if op in ("Conv", "Gemm", "MatMul")}
        assert known == QONNX[name]
    if name in ONNX_TOOL:
        ours, theirs = row.ours + row.biases, Counter(ONNX_TOOL[name])
        assert ours.keys() == theirs.keys()
        del ours["ConvTranspose"], theirs["ConvTranspose"]
        assert ours == theirs
    # Where the two are installed (pip install -e '.[compare]'), they still say what is frozen here.
    if find_spec("qonnx") is not None:
        assert row.qonnx == QONNX.get(name, {})
    if find_spec("onnx_tool") is not None:
        assert row.onnx_tool == ONNX_TOOL.get(name)


def test_rows_say_what_differs(monkeypatch) -> None:
    ours = Counter({"Conv": 1000, "LSTM": 10})
    row = Row(
        "m", ours, Counter({"Conv": 1000}), Counter({"Conv": 1005, "LSTM": 10}), Counter(Conv=5)
    )
    assert row.to_markdown() == "| m | 1,010 | 1,000 | 1,015 (Conv +5) | 1,010 |"
    assert Row("m", ours, None, None, Counter()).to_markdown() == "| m | 1,010 | - | - | - |"
    monkeypatch.setattr(sys.modules[write_table.__module__], "version", lambda name: "1.0")
    assert row.to_markdown() in write_table([row])
