"""Timing models side by side: what is compared and with which inputs, but not speed itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.api import benchmark
from onnx_cgmq.api.benchmark import bench
from onnx_cgmq.api.random_inputs import Lengths, random_inputs
from onnx_cgmq.errors import ConfigError, DataError, ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.ort import session
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.writing.write_back import write_back
from tests.support.plans import make_plan, set_initializer
from tests.support.toys import mlp, toy_data

FAST = {"rounds": 2, "round_seconds": 1e-6}


@pytest.fixture
def files(tmp_path) -> list:
    """Files of a model and of one whose class scores are negated."""
    model = mlp()
    onnx.save(model, tmp_path / "a.onnx")
    last = model.graph.node[-1]
    inner = last.output[0]
    last.output[0] = "inner"
    model.graph.node.append(onnx.helper.make_node("Neg", ["inner"], [inner], name="neg"))
    onnx.save(model, tmp_path / "b.onnx")
    return [tmp_path / "a.onnx", tmp_path / "b.onnx"]


def _written(form: str) -> onnx.ModelProto:
    """The model of the first file, quantized to 4 bits, in a form for other flows."""
    gated = insert_gates(prepare(mlp()), form=form, target="generic")
    for node, spec in quantizer_nodes(gated).values():
        set_initializer(node.inputs[-1], np.full(spec.gate_shape, spec.ladder.gate_of(4)))
    return ir.to_proto(write_back(gated, make_plan(gated), form=form))


def test_bench_compares_models_with_the_first_one(files) -> None:
    result = bench(files, toy_data(mlp()), **FAST)
    first, second = result.timings
    assert first.ratio == first.same_class == first.accuracy == 1
    assert first.max_difference == 0
    assert second.same_class < 0.5
    assert second.max_difference > 0
    assert [t.file_bytes for t in result.timings] == [path.stat().st_size for path in files]
    assert not result.random_inputs
    assert json.loads(result.to_json())["timings"][1]["model"] == str(files[1])


def test_every_model_is_timed_in_every_round_and_takes_each_place(monkeypatch) -> None:
    sessions = [SimpleNamespace(name=name, run=lambda names, feed: None) for name in "abc"]
    timed: list[str] = []

    def seconds(session, feed, calls) -> float:
        timed.append(session.name)
        return 1.0

    monkeypatch.setattr(benchmark, "_seconds", seconds)
    benchmark._rounds(sessions, {}, 3, 0.1)
    assert timed[-9:] == [*"abc", *"bca", *"cab"]


@pytest.mark.parametrize("form", ["native", "qonnx"])
def test_bench_runs_forms_for_other_flows_without_optimizations(files, form, monkeypatch) -> None:
    onnx.save(_written(form), files[1])
    opened = []
    original = session.new_session

    def new_session(source, **options):
        opened.append(options["optimize"])
        return original(source, **options)

    monkeypatch.setattr(session, "new_session", new_session)
    result = bench(files, toy_data(mlp()), **FAST)
    assert (opened[0], opened[-1]) == (True, False)
    assert result.timings[1].peak_bytes != 0  # the process that measures loaded it too
    (note,) = result.notes
    assert note.startswith(f"{files[1]}: the form '{form}'")
    assert "optimizations off" in note
    assert bench(files[:1], **FAST).notes == ()


def test_bench_without_data_has_random_inputs_and_compares_nothing(files) -> None:
    result = bench(files, batch=3, **FAST)
    assert result.random_inputs
    assert all(t.same_class is t.max_difference is t.accuracy is None for t in result.timings)


def test_bench_without_data_refuses_open_sizes(tmp_path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[n, 3, h, w] x) => (float[n, 3, h, w] y) { y = Relu(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    with pytest.raises(DataError, match="--shape x=1x3x224x224"):
        bench([tmp_path / "m.onnx"], **FAST)
    assert bench([tmp_path / "m.onnx"], shapes={"x": (1, 3, 4, 4)}, **FAST).timings


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"threads": 0}, {"rounds": 0}])
def test_bench_refuses_numbers_below_1(files, wrong) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        bench(files, **{**FAST, **wrong})
    with pytest.raises(ConfigError, match="no model"):
        bench([])


def test_bench_refuses_models_with_other_outputs(files, tmp_path) -> None:
    model = mlp()
    model.graph.node[-1].output[0] = model.graph.output[0].name = "other"
    onnx.save(model, tmp_path / "c.onnx")
    with pytest.raises(ModelError, match="different outputs"):
        bench([files[0], tmp_path / "c.onnx"], toy_data(mlp()), **FAST)


def test_random_inputs_have_the_types_of_the_model(files) -> None:
    inputs = random_inputs(benchmark.load_model(files[0]), {}, 5, Lengths())
    assert {name: (array.dtype, array.shape) for name, array in inputs.items()} == {
        "x": (np.dtype(np.float32), (5, 8))
    }


def decoder(tmp_path) -> Path:
    """Only the inputs of a decoder matter here."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (int64[batch, length] ids, int64[batch, total] attention_mask,
           float[batch, 2, past, 3] past_key) => (float[batch, 2, p, 3] y, int64[m] z)
        { y = Identity (past_key) z = Shape (ids) }"""
    )
    path = tmp_path / "decoder.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("rows", "past"), [(16, 0), (1, 16)])
def test_a_decoder_is_timed_with_and_without_a_cache(rows, past, tmp_path) -> None:
    model = benchmark.load_model(decoder(tmp_path))
    inputs = random_inputs(model, {}, 2, Lengths(rows, past))
    assert {name: array.shape for name, array in inputs.items()} == {
        "ids": (2, rows),
        "attention_mask": (2, rows + past),
        "past_key": (2, 2, past, 3),
    }
    assert benchmark.bench([decoder(tmp_path)], rows=rows, past=past, rounds=1).timings
    given = {"ids": (1, 5), "attention_mask": (1, 7)}
    inputs = random_inputs(benchmark.load_model(decoder(tmp_path)), given, 1, Lengths(past=2))
    assert inputs["ids"].shape == (1, 5)


def test_lengths_that_say_nothing_are_refused(files, tmp_path) -> None:
    with pytest.raises(ConfigError, match="no input whose name begins with 'past'"):
        benchmark.bench(files, past=3)
    with pytest.raises(ConfigError, match="no input of the model leaves a length open"):
        benchmark.bench(files, rows=3)
    with pytest.raises(ConfigError, match="can't be negative"):
        benchmark.bench([decoder(tmp_path)], rows=1, past=-1)
    with pytest.raises(ConfigError, match="are for random inputs"):
        benchmark.bench(files, {"x": np.zeros((2, 4), np.float32)}, rows=1)
