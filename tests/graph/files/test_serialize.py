from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.graph.files.serialize import write_model

TENSORS = {
    "scalar": ir.tensor(np.float32(2.5)),
    "empty": ir.tensor(np.zeros((0, 3), np.float32)),
    "small": ir.tensor(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "large": ir.tensor(np.arange(5000, dtype=np.float32).reshape(50, 100)),
    "bfloat16": ir.tensor(np.arange(5000).astype(ml_dtypes.bfloat16)),
    "int4": ir.PackedTensor(np.arange(5000, dtype=np.uint8), ir.DataType.INT4, shape=[9999]),
    "text": ir.tensor(["a", "bc"]),
}


def _model(**tensors: ir.TensorProtocol) -> ir.Model:
    values = [ir.Value(name=name, const_value=tensor) for name, tensor in tensors.items()]
    nodes = [ir.node("Identity", [value], name=f"of {value.name}") for value in values]
    outputs = [node.outputs[0] for node in nodes]
    for output, (name, tensor) in zip(outputs, tensors.items(), strict=True):
        output.name, output.type = f"{name}_out", ir.TensorType(tensor.dtype)
    opsets = {"": 21}
    graph = ir.Graph([], outputs, nodes=nodes, initializers=values, opset_imports=opsets, name="g")
    return ir.Model(graph, ir_version=10, producer_name="test")


def _written(model: ir.Model, path: Path) -> onnx.ModelProto:
    with path.open("wb") as file:
        write_model(model, file)
    return onnx.load(path)


def test_written_file_equals_that_of_protobuf(tmp_path: Path) -> None:
    proto = _written(_model(**TENSORS), tmp_path / "m.onnx")
    expected = ir.to_proto(_model(**TENSORS))
    assert list(proto.graph.initializer) == list(expected.graph.initializer)
    for part in (proto, expected):
        part.graph.ClearField("initializer")
    assert proto == expected


@pytest.mark.parametrize("size", [10, 5000])
def test_external_data_becomes_part_of_the_file(tmp_path: Path, size: int) -> None:
    array = np.arange(size, dtype=np.float32)
    array.tofile(tmp_path / "data")
    dtype, shape = ir.DataType.FLOAT, ir.Shape([size])
    tensor = ir.ExternalTensor(
        "data", 0, array.nbytes, dtype, shape=shape, name="another", base_dir=tmp_path
    )
    proto = _written(_model(w=tensor), tmp_path / "m.onnx")
    (initializer,) = proto.graph.initializer
    assert initializer.name == "w"
    assert not initializer.external_data
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(initializer), array)
