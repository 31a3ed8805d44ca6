from __future__ import annotations

import onnx
import pytest

from onnx_cgmq.inspection import inspect
from tests.support.toys import mlp
from tools.compare import inspect as tool
from tools.compare.inspect import Product, Row, onnxruntime_files, write_table


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[Row]:
    folder = tmp_path_factory.mktemp("files")
    onnx.save(mlp(), folder / "mlp.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "TYPES", tool.TYPES[::5])
        return list(onnxruntime_files(folder / "mlp.onnx", folder))


def test_onnxruntime_files_are_read_right(rows) -> None:
    assert all(row.agrees for row in rows)
    assert len({row.made for row in rows}) == len(rows) == 2 * 2 + 2 + 1
    macs = [node.macs for node in inspect(mlp()).nodes]
    assert {row.expected for row in rows} == {
        tuple(Product(n, 8, weight) for n in macs) for weight in (4, 8)
    }


def test_a_wrong_width_shows(rows) -> None:
    right = Product(10, 8, 4)
    row = Row("m", "made", (right, right), (right, Product(10, 8, 8)))
    assert not row.agrees
    assert row.to_markdown() == "| m | made | 1 of 2 | 640 | 960 |  |"
    assert row.to_markdown() in write_table([row], {"qonnx": "1.0.0"})
    assert Row("m", "made", (right,), (right,)).agrees
    assert not Row("m", "made", (right,), (right,), notes=("unknown",)).agrees
    assert not Row("m", "made", (right,), (right,), qonnx_differs=True).agrees
