from __future__ import annotations

from collections import Counter

import pytest

from tools.compare.macs import Row, count_biases, count_ours, single_operators, write_table

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


def test_rows_say_what_differs() -> None:
    ours = Counter({"Conv": 1000, "LSTM": 10})
    row = Row(
        "m", ours, Counter({"Conv": 1000}), Counter({"Conv": 1005, "LSTM": 10}), Counter(Conv=5)
    )
    assert row.to_markdown() == "| m | 1,010 | 1,000 | 1,015 (Conv +5) | 1,010 |"
    assert Row("m", ours, None, None, Counter()).to_markdown() == "| m | 1,010 | - | - | - |"
    pytest.importorskip("qonnx")
    pytest.importorskip("onnx_tool")
    assert row.to_markdown() in write_table([row])
