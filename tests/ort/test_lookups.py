"""Indices beyond a table are found before a run, with input, sample, index and table."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq import bench, quantize, verify
from onnx_cgmq.data import open_data
from onnx_cgmq.errors import DataError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.ort.lookups import check_lookups
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config

COUNT = 300


def model(nodes: str, inputs: str = "int64[n] id", output: str = "float[n, 4] y") -> ir.Model:
    """A model with a table ``e`` of 5 rows with 6 numbers and a weight ``w`` ``[6, 4]``."""
    text = f"""<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({output})
        <float[5, 6] e, float[6, 4] w, int64 one = {{1}}, float half = {{0.5}},
         int64[1] zeroth = {{0}}, int64[1] first = {{1}}, int64[1] last = {{9}}>
        {{ {nodes} y = MatMul (rows, w) }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    kept = [t for t in proto.graph.initializer if t.name not in ("e", "w")]
    del proto.graph.initializer[:]
    arrays = {"e": rng.normal(size=(5, 6)), "w": rng.normal(size=(6, 4))}
    kept += [onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    proto.graph.initializer.extend(kept)
    return ir.from_proto(proto)


def ids(wrong: int | None = None, shape: tuple[int, ...] = (), dtype: type = np.int64):
    """Indices from 0 to 3, and one that is wrong at the end of sample 270."""
    array = np.arange(COUNT * int(np.prod(shape))).reshape(COUNT, *shape) % 4
    if wrong is not None:
        array[(270, *(-1 for _ in shape))] = wrong
    return array.astype(dtype)


PLAIN = model("rows = Gather (e, id)")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [5, -6, 2**40])
def test_an_index_is_named_by_all_that_read_data(wrong: int, tmp_path) -> None:
    told = rf"input 'id': the index {wrong} in sample 270 is outside of the table 'e' \(Gather '.*5"
    with pytest.raises(DataError, match=told):
        quantize(PLAIN, {"id": ids(wrong)}, "10%", epochs=1)
    result = quantize(PLAIN, {"id": ids()}, "10%", epochs=1)
    for reference in (PLAIN, result.mirror):
        with pytest.raises(DataError, match=f"the index {wrong} in sample 270"):
            verify(reference, result.model, {"id": ids(wrong)})
    with pytest.raises(DataError, match=f"the index {wrong} in sample 270"):
        quantize(PLAIN, {"id": ids()}, "10%", epochs=1, validation={"id": ids(wrong)})
    result.save(tmp_path / "m.onnx")
    with pytest.raises(DataError, match=f"the index {wrong} in sample 270"):
        bench([tmp_path / "m.onnx"], {"id": ids(wrong)}, rounds=1)


@pytest.mark.parametrize(
    ("nodes", "inputs", "array", "told"),
    [
        ("i = Add (id, one) rows = Gather (e, i)", "int64[n] id", ids(4), "5 computed of sample"),
        ("i = Cast <to = 7> (id) rows = Gather (e, i)", "int32[n] id", ids(7, (), np.int32), "7 c"),
        (
            "p = Slice (id, first, last, first) i = Squeeze (p, first) rows = Gather (e, i)",
            "int64[n, 2] id",
            ids(6, (2,)),
            "the index 6 computed of sample 270",
        ),
        (
            "r = Gather (e, id) rows = ReduceMean <axes = [1], keepdims = 0> (r)",
            "int64[n, 3] id",
            ids(9, (3,)),
            "the index 9 in sample 270",
        ),
    ],
)
def test_an_index_that_is_computed(nodes, inputs, array, told) -> None:
    built = prepare(model(nodes, inputs))
    with pytest.raises(DataError, match=told):
        check_lookups(built, open_data({"id": array}, built))
    array[270] = 0
    check_lookups(built, open_data({"id": array}, built))


def test_a_column_that_another_table_takes_may_have_larger_numbers() -> None:
    nodes = "p = Slice (id, first, last, first) i = Squeeze (p, first) rows = Gather (e, i)"
    built = prepare(model(nodes, "int64[n, 2] id"))
    array = ids(None, (2,))
    array[:, 0] = 100
    check_lookups(built, open_data({"id": array}, built))


def test_a_sequence_that_is_longer_than_the_table_of_positions() -> None:
    nodes = """s = Shape (x) t = Gather (s, first) l = Squeeze (t) z = Squeeze (zeroth)
        p = Range (z, l, one) q = Gather (e, p) r = Add (x, q)
        rows = ReduceMean <axes = [1], keepdims = 0> (r)"""
    built = prepare(model(nodes, "float[n, length, 6] x"))
    check_lookups(built, open_data({"x": np.ones((4, 5, 6), np.float32)}, built))
    with pytest.raises(DataError, match=r"input 'x': the index 5 computed of sample 0 .*table 'e'"):
        check_lookups(built, open_data({"x": np.ones((4, 7, 6), np.float32)}, built))


def test_the_table_of_a_gated_model_has_its_own_name() -> None:
    gated = insert_gates(prepare(PLAIN), Config())
    with pytest.raises(DataError, match="table 'e'"):
        check_lookups(gated, open_data({"id": ids(5)}, gated))


def test_indices_that_the_network_computes_are_left_to_the_run() -> None:
    nodes = """f = Cast <to = 1> (id) g = Mul (f, half) h = Floor (g) i = Cast <to = 7> (h)
        rows = Gather (e, i)"""
    built = prepare(model(nodes))
    check_lookups(built, open_data({"id": ids(9)}, built))
