from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq.contract.bits import Role
from tests.support.toys import mlp, toy_data
from tools.compare import qonnx
from tools.compare.qonnx import VARIANTS, Row, calibrated, write_page


def row(theirs: int) -> Row:
    return Row("m", "8 bits", 4, 0.0, 1.5, 1.0, (10, 10), (640, 640, theirs), (80, 80))


def test_rows_say_what_differs() -> None:
    assert row(640).to_markdown() == (
        "| m | 8 bits | 4 | 0 | 1.5 | 100.0% | 640 | 640 (equal) | 10 (equal) | 80 (equal) |"
    )
    assert "| 700 (+60) |" in row(700).to_markdown()
    assert row(640).to_markdown() in write_page({"qonnx 1.0.0": [row(640)]})


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_widths_are_drawn_from_those_of_the_variant(variant) -> None:
    model = mlp()
    mirror = calibrated(model, {"x": toy_data(model)["x"]}, variant, seed=0)
    operands = [q for q in mirror.quantizers.values() if q.spec.role is not Role.BIAS]
    widths = np.concatenate([quantizer.widths.reshape(-1) for quantizer in operands])
    assert set(widths) <= set(variant.widths)
    zero_points = [plan.zero_point.any() for plan in mirror.plan().tensors.values()]
    assert any(zero_points) == ("form" in variant.settings)


def test_plan_and_file_are_counted_alike(monkeypatch, tmp_path) -> None:
    """QONNX is not installed here: what it answers is made up."""
    model = mlp()
    onnx.save(model, tmp_path / "mlp.onnx")
    answer = {"versions": "v", "total_macs": 1, "total_bops": 2, "total_mem_w_bits": 3}
    outputs = np.zeros((4, 3), np.float32)
    monkeypatch.setattr(qonnx, "run_in_qonnx", lambda *arguments: (outputs, answer))
    by_channel = VARIANTS[-1]
    rows = qonnx.compare("m", tmp_path / "mlp.onnx", toy_data(model), by_channel, 4, ["python"])
    planned, read, theirs = rows["v"].bops
    assert planned == read > theirs == 2
