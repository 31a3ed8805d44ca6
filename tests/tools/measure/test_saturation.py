"""That the installed onnxruntime adds no products in INT16 but those that we name."""

from __future__ import annotations

import pytest

from tools.measure.saturation import Case, cases, measure


@pytest.mark.parametrize(
    ("case", "kernel", "pairs"),
    [
        (Case("Conv", (3, 3, 3), (1, 3, 5, 5)), "QLinearConv", 13),
        (Case("Conv", (4, 2, 2), (1, 4, 5, 5), in_eights=True), "QLinearConv", 8),
        (Case("Conv", (1, 3, 3), (1, 1, 5, 5), depthwise=True), "QLinearConv", 0),
        (Case("Conv", (2, 3), (1, 4, 5), {"group": 2}), "QLinearConv", 3),
        (Case("Gemm", (5,), (2, 5), {"transB": 1}), "QGemm", 2),
        (Case("MatMul", (2, 5), (2, 3, 5)), "QLinearMatMul", 2),
        (Case("MatMul", (4,), (1, 4), quantized=False), "MatMulIntegerToFloat", 2),
    ],
    ids=str,
)
def test_pairs_that_saturate_are_named(case, kernel, pairs) -> None:
    """With VNNI none saturates, on other x86 processors all that are named."""
    found, named, ran = measure(case)
    assert ran == kernel
    assert len(named) == pairs
    assert found in (set(), named)


def test_cases_are_all_different() -> None:
    assert len({str(case) for case in cases()}) == len(list(cases()))
