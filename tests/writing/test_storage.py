from __future__ import annotations

import onnx_ir as ir
import pytest
from packaging.version import Version

from onnx_cgmq.ort.versions import Runtime
from onnx_cgmq.writing import storage

NEW = Runtime(Version("1.24.1"))


def narrowest(width: int, opset: int, runtime: Runtime = NEW) -> ir.DataType:
    return storage.WeightTypes(opset, runtime).narrowest(width)


@pytest.mark.parametrize(
    ("version", "types"),
    [
        ("1.22.1", ["INT8", "INT8", "INT8"]),
        ("1.23", ["INT4", "INT4", "INT8"]),
        ("1.24.1", ["INT2", "INT4", "INT8"]),
    ],
)
def test_weights_have_types_that_the_oldest_runtime_loads(version, types, monkeypatch) -> None:
    monkeypatch.setattr(storage, "folds_cast_of", lambda data_type: True)
    runtime = Runtime(Version(version))
    assert [narrowest(width, 25, runtime).name for width in (2, 4, 8)] == types


def test_weight_type_is_the_smallest_that_loads(monkeypatch) -> None:
    def types():
        return [narrowest(width, 25).name for width in (2, 4, 8, 16)]

    monkeypatch.setattr(storage, "folds_cast_of", lambda data_type: True)
    assert types() == ["INT2", "INT4", "INT8", "INT16"]
    assert narrowest(2, 24) is ir.DataType.INT4
    assert narrowest(4, 20) is ir.DataType.INT8
    monkeypatch.setattr(storage, "folds_cast_of", lambda data_type: data_type is ir.DataType.INT4)
    assert types() == ["INT4", "INT4", "INT8", "INT16"]
    monkeypatch.setattr(storage, "folds_cast_of", lambda data_type: False)
    assert types() == ["INT8", "INT8", "INT8", "INT16"]
