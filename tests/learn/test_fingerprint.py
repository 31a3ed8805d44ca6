"""A fingerprint tells runs apart, and says in which part they differ."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_cgmq.data.source import Samples, open_data
from onnx_cgmq.learn import fingerprint as fingerprints
from onnx_cgmq.learn.fingerprint import differences, fingerprint
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings.config import Config
from tests.support.toys import mlp, toy_data

GRAPH = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 8] x) => (float[n, 3] y)
    <float[8, 4] v, float[4, 3] w, float half = {0.5}, bool yes = {1}>
    { a = MatMul (x, v)
      b = LeakyRelu <alpha = 0.1> (a)
      c = Mul (b, half)
      y = MatMul (c, w) }
"""


def graph(text: str = GRAPH, scale: float = 1.0) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    kept = [t for t in model.graph.initializer if t.name not in ("v", "w")]
    del model.graph.initializer[:]
    arrays = {"v": rng.normal(size=(8, 4)), "w": scale * rng.normal(size=(4, 3))}
    kept += [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    model.graph.initializer.extend(kept)
    return model


def of(data=None, *, model=None, bound="3%", validation=None, **settings):
    config = Config(**settings)
    float_model = prepare(model or mlp())
    samples = open_data(toy_data(mlp()) if data is None else data, float_model)
    train, held_out = samples.split(config.validation_share, config.seed)
    if validation is not None:
        train, held_out = samples, open_data(validation, float_model)
    return fingerprint(config, bound, train, held_out, float_model)


def test_the_same_run_has_the_same_fingerprint() -> None:
    assert differences(of(), of(time_limit=3)) == []


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"bound": "4%"}, ["bound"]),
        ({"model": mlp(1)}, ["weights"]),
        ({"batch_size": 7}, ["batch_size"]),
        ({"seed": 1}, ["choice of training samples", "seed"]),
        ({"direction": "gradient", "epochs": 3}, ["direction", "epochs"]),
        ({"validation": toy_data(mlp())}, ["choice of training samples", "held-out data"]),
    ],
)
def test_settings_and_weights(change, parts) -> None:
    assert differences(of(), of(**change)) == parts


def test_data_labels_and_target_values() -> None:
    data = toy_data(mlp())
    x, label = data["x"], data["label"]
    other = x.copy()
    other[-1, -1] += 1
    targets = {"x": x, "y": np.zeros((len(x), 3), np.float32)}
    for change, part in (
        ({"x": other, "label": label}, "training data"),
        ({"x": x[::-1], "label": label}, "training data"),
        ({"x": x, "label": (label + 1) % 3}, "labels"),
        ({"x": x}, "labels"),
    ):
        assert differences(of(data), of(change)) == [part]
    changed = {**targets, "y": targets["y"] + 1}
    assert differences(of(targets), of(changed)) == ["target values"]
    fewer = differences(of(data), of({"x": x[:-1], "label": label[:-1]}))
    assert fewer[:2] == ["number of samples", "labels"]


def test_held_out_data() -> None:
    one = toy_data(mlp(), count=8)
    other = {**one, "label": (one["label"] + 1) % 3}
    assert differences(of(validation=one), of(validation=other)) == ["held-out data"]


def test_of_much_data_the_first_samples_are_read(monkeypatch) -> None:
    monkeypatch.setattr(fingerprints, "_MOST_BYTES", 500)
    monkeypatch.setattr(fingerprints, "_ROWS", 10)
    data = toy_data(mlp())
    first, last = (data["x"].copy() for _ in range(2))
    first[12, 0] += 1
    last[-1, 0] += 1
    assert differences(of(data), of({**data, "x": first})) == ["training data"]
    assert differences(of(data), of({**data, "x": last})) == []
    assert differences(of(data), of({**data, "label": data["label"][::-1]})) == ["labels"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LeakyRelu <alpha = 0.1>", "LeakyRelu <alpha = 0.9>"),
        ("LeakyRelu <alpha = 0.1>", "Tanh"),
        ("Mul (b, half)", "Mul (a, half)"),
        ("Mul (b, half)", "Sub (b, half)"),
        ("Mul (b, half)", "Sub (half, b)"),
        ("float[n, 8]", "float[2, 8]"),
    ],
)
def test_operators_attributes_and_connections(old, new) -> None:
    changed = GRAPH.replace(old, new)
    if "Mul" in old:  # a factor would be folded into weights
        base = GRAPH.replace("Mul (b, half)", "Sub (b, b)")
        assert "graph" in differences(of(model=graph(base)), of(model=graph(changed)))
    else:
        assert differences(of(model=graph()), of(model=graph(changed))) == ["graph"]


def test_a_constant_and_the_body_of_a_branch() -> None:
    assert differences(of(model=graph()), of(model=graph(scale=2))) == ["weights"]

    def branching(low: str) -> onnx.ModelProto:
        model = graph(GRAPH.replace("float[n, 8] x", "float[n, 8] x, bool[] flag"))
        scores = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
        bodies = {
            name: helper.make_graph([helper.make_node(op, ["y"], ["z"])], name, [], [scores])
            for name, op in (("then_branch", low), ("else_branch", "Tanh"))
        }
        model.graph.node.append(helper.make_node("If", ["flag"], ["out"], "if", **bodies))
        model.graph.output[0].name = "out"
        return model

    float_models = [prepare(branching(low)) for low in ("Abs", "Neg")]
    assert fingerprints._graph(float_models[0]) != fingerprints._graph(float_models[1])
    assert fingerprints._graph(float_models[0]) == fingerprints._graph(prepare(branching("Abs")))


def test_text_of_the_docs_is_no_difference() -> None:
    model = graph()
    model.graph.doc_string = model.producer_name = "exported another time"
    model.graph.node[0].doc_string = "a line of the exporter"
    assert differences(of(model=graph()), of(model=model)) == []


def test_streamed_samples_are_those_in_memory(tmp_path) -> None:
    data = toy_data(mlp())
    for number, rows in enumerate((slice(0, 100), slice(100, None))):
        np.savez(tmp_path / f"{number}.npz", **{name: a[rows] for name, a in data.items()})
    assert not differences(_stored(data), _stored(tmp_path))


def _stored(data):
    samples: Samples = open_data(data, prepare(mlp()))
    return fingerprint(Config(), "3%", samples, samples, prepare(mlp()))


def test_samples_of_different_lengths_are_all_read() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[n, length, 8] x) => (float[n, length, 4] y) <float[8, 4] v, float[4, 3] w>
        { y = MatMul (x, v) }
    """
    data = [np.full((2, 3 + k % 2, 8), k, np.float32) for k in range(4)]
    other = [*data[:3], data[3] + 1]
    assert differences(of(data, model=graph(text)), of(data, model=graph(text))) == []
    found = differences(of(data, model=graph(text)), of(other, model=graph(text)))
    assert found == ["training data"]
