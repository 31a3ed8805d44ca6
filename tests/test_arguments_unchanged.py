"""No public function changes what it is given: models, plans and data are the same bytes after."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import onnx_cgmq as cgmq
from onnx_cgmq.data import open_data

X = np.random.default_rng(3).normal(size=(32, 40)).astype(np.float32)


@cache
def float_proto() -> onnx.ModelProto:
    """Weights above and below the size of a page, short names, a Constant, and a function."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(40, 40)),
        "g": rng.normal(size=40) + 2,
        "f": rng.normal(size=40),
        "w2": rng.normal(size=(20, 4)),
        "b2": rng.normal(size=4),
    }
    node = helper.make_node
    shape = numpy_helper.from_array(np.array([-1, 20]), "shape")
    nodes = [
        node("MatMul", ["x", "w1"], ["v1"], name="first"),
        node("LayerNormalization", ["v1", "g", "f"], ["v2"]),
        node("Twice", ["v2"], ["v3"], domain="local"),
        node("Constant", [], ["s"], value=shape),
        node("Reshape", ["v3", "s"], ["v4"]),
        node("Gemm", ["v4", "w2", "b2"], ["y"], name="last"),
    ]
    two = numpy_helper.from_array(np.float32(2), "two")
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    body = [node("Constant", [], ["c"], value=two), node("Mul", ["a", "c"], ["r"])]
    twice = helper.make_function("local", "Twice", ["a"], ["r"], body, opsets[:1])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 4])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[twice])


@cache
def gated_and_plan() -> tuple[onnx.ModelProto, cgmq.BitPlan]:
    gated = cgmq.insert_gates(float_proto())
    mirror = cgmq.Mirror(gated)
    cgmq.calibrate(mirror, open_data({"x": X.copy()}, gated))
    guide = cgmq.Guide(mirror, bound="10%", steps=2)
    guide.settle()
    return ir.to_proto(gated), guide.plan()


@cache
def written_proto() -> onnx.ModelProto:
    return ir.to_proto(cgmq.write_back(*gated_and_plan()))


def of_arrays(proto: onnx.ModelProto) -> ir.Model:
    """A graph in memory whose tensors are arrays of the caller's."""
    model = ir.from_proto(proto)
    for value in model.graph.initializers.values():
        if value.const_value.dtype.bitwidth >= 8:
            array = np.array(value.const_value.numpy())
            value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=value.name)
    return model


def saved(proto: onnx.ModelProto, folder, **settings) -> str:
    onnx.save(copy.deepcopy(proto), folder / "model.onnx", **settings)
    return str(folder / "model.onnx")


KINDS: dict[str, Callable[[onnx.ModelProto, Any], Any]] = {
    "path": saved,
    "path, external data": lambda proto, folder: saved(
        proto, folder, save_as_external_data=True, location="weights", size_threshold=100
    ),
    "ModelProto": lambda proto, folder: copy.deepcopy(proto),
    "ir.Model of a proto": lambda proto, folder: ir.from_proto(copy.deepcopy(proto)),
    "ir.Model of arrays": lambda proto, folder: of_arrays(proto),
}

FUNCTIONS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[Any], Any]]] = {
    "prepare": (float_proto, cgmq.prepare),
    "insert_gates": (float_proto, cgmq.insert_gates),
    "quantize": (
        float_proto,
        lambda model: cgmq.quantize(model, {"x": X}, bound="10%", epochs=1),
    ),
    "explain": (float_proto, cgmq.explain),
    "explain, quantized": (written_proto, cgmq.explain),
    "Mirror": (float_proto, cgmq.Mirror),
    "Mirror, trained": (lambda: gated_and_plan()[0], lambda model: trained(cgmq.Mirror(model))),
    "write_back": (
        lambda: gated_and_plan()[0],
        lambda model: cgmq.write_back(model, gated_and_plan()[1]),
    ),
    "inspect": (written_proto, lambda model: cgmq.inspect(model, {"x": (1, 40)}, kernels=True)),
    "verify, reference": (
        float_proto,
        lambda model: cgmq.verify(model, written_proto(), {"x": X}),
    ),
    "verify, deployed": (
        written_proto,
        lambda model: cgmq.verify(float_proto(), model, {"x": X}, bound="20%"),
    ),
}


def trained(mirror: cgmq.Mirror) -> None:
    optimizer = torch.optim.Adam(mirror.parameters(), lr=0.1)
    for _ in range(2):
        mirror({"x": torch.from_numpy(X)})["y"].square().sum().backward()
        optimizer.step()


def content(model: Any, folder) -> Any:
    """All bytes of a model, however it is given."""
    if isinstance(model, str):
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString(deterministic=True)
    graphs = [*model.graphs(), *model.functions.values()]
    tensors = [
        (v.name, v.const_value.name, v.const_value.tobytes())
        for v in model.graph.initializers.values()
    ]
    values = [
        (v.name, str(v.type), str(v.shape), v.const_value, dict(v.metadata_props))
        for graph in graphs
        for v in (*graph.inputs, *(output for node in graph for output in node.outputs))
    ]
    proto = ir.to_proto(model).SerializeToString(deterministic=True)
    return tensors, values, dict(model.metadata_props), proto


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_models(function: str, kind: str, tmp_path) -> None:
    proto, call = FUNCTIONS[function]
    model = KINDS[kind](proto(), tmp_path)
    before = content(model, tmp_path)
    call(model)
    assert content(model, tmp_path) == before


@pytest.mark.parametrize("function", ["prepare", "insert_gates", "write_back"])
def test_what_comes_back_is_not_tied_to_what_was_given(function: str) -> None:
    proto, call = FUNCTIONS[function]
    for kind in ("ModelProto", "ir.Model of a proto", "ir.Model of arrays"):
        model = KINDS[kind](proto(), None)
        before = content(model, None)
        result = call(model)
        result.metadata_props["mine"] = "yes"
        for index, value in enumerate(list(result.graph.initializers.values())):
            value.name = f"renamed{index}"
            value.dtype = ir.DataType.DOUBLE
        assert content(model, None) == before


def test_bench_leaves_files(tmp_path) -> None:
    paths = [tmp_path / "float.onnx", tmp_path / "written.onnx"]
    onnx.save(float_proto(), paths[0])
    onnx.save(written_proto(), paths[1])
    before = [path.read_bytes() for path in paths]
    data = {"x": X.copy()}
    cgmq.bench(paths, data, rounds=2, round_seconds=0.001)
    assert [path.read_bytes() for path in paths] == before
    np.testing.assert_array_equal(data["x"], X)


def test_a_plan() -> None:
    gated, plan = gated_and_plan()
    before = plan.to_json()
    cgmq.write_back(gated, plan)
    cgmq.write_back(gated, plan, form="native")
    assert plan.to_json() == before


class Reader:
    """onnxruntime's CalibrationDataReader."""

    def __init__(self, feeds: list[dict[str, Any]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


@pytest.mark.parametrize("kind", ["arrays", "read-only arrays", "DataLoader", "reader"])
@pytest.mark.parametrize("function", ["quantize", "verify"])
def test_data(function: str, kind: str) -> None:
    held = X.copy()
    held.flags.writeable = kind != "read-only arrays"
    data: Any = {"x": held}
    if kind == "DataLoader":
        held = torch.from_numpy(held)
        data = torch.utils.data.DataLoader([{"x": row} for row in held], batch_size=8)
    elif kind == "reader":
        data = Reader([{"x": held[:16]}, {"x": held[16:]}])
    if function == "quantize":
        cgmq.quantize(float_proto(), data, bound="10%", epochs=1)
    else:
        cgmq.verify(float_proto(), written_proto(), data)
    np.testing.assert_array_equal(np.asarray(held), X)


def test_arrays_for_calibration_and_training() -> None:
    gated = gated_and_plan()[0]
    mirror, held = cgmq.Mirror(gated), torch.from_numpy(X.copy())
    cgmq.calibrate(mirror, open_data({"x": held.numpy()}, cgmq.prepare(float_proto())))
    mirror({"x": held})["y"].sum().backward()
    np.testing.assert_array_equal(held.numpy(), X)
