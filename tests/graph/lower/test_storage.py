from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from packaging.version import Version

from onnx_cgmq.graph.lower import storage
from onnx_cgmq.graph.runtimes import Runtime


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5)])
@pytest.mark.parametrize(
    ("data_type", "width"), [("INT2", 2), ("INT4", 4), ("INT8", 8), ("INT16", 16)]
)
def test_pack_round_trip_through_onnx(data_type, width, shape) -> None:
    largest = 2 ** (width - 1) - 1
    codes = np.random.default_rng(0).integers(-largest, largest + 1, shape)
    proto = ir.to_proto(storage.pack(np.asarray(codes), ir.DataType[data_type], "w"))
    assert len(proto.raw_data) == -(-codes.size * width // 8) if np.ndim(codes) else True
    unpacked = onnx.numpy_helper.to_array(proto).astype(np.int64)
    np.testing.assert_array_equal(unpacked, codes)


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
def test_weights_have_the_types_of_the_oldest_runtime(version, types, monkeypatch) -> None:
    monkeypatch.setattr(storage, "loads", lambda data_type: True)
    runtime = Runtime(Version(version))
    assert [narrowest(width, 25, runtime).name for width in (2, 4, 8)] == types


def test_weight_type_is_the_smallest_that_loads(monkeypatch) -> None:
    def types():
        return [narrowest(width, 25).name for width in (2, 4, 8, 16)]

    monkeypatch.setattr(storage, "loads", lambda data_type: True)
    assert types() == ["INT2", "INT4", "INT8", "INT16"]
    assert narrowest(2, 24) is ir.DataType.INT4
    assert narrowest(4, 20) is ir.DataType.INT8
    monkeypatch.setattr(storage, "loads", lambda data_type: data_type is ir.DataType.INT4)
    assert types() == ["INT4", "INT4", "INT8", "INT16"]
    monkeypatch.setattr(storage, "loads", lambda data_type: False)
    assert types() == ["INT8", "INT8", "INT8", "INT16"]


def test_int4_loads_in_the_installed_onnxruntime() -> None:
    assert storage.loads(ir.DataType.INT4)


def test_a_type_that_onnxruntime_refuses_does_not_load(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise RuntimeError("tensor(int2) is not supported")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    assert not storage.loads.__wrapped__(ir.DataType.INT2)
