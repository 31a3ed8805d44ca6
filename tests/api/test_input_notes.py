"""Notes on labels and preprocessing that don't fit the float model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_cgmq.api.input_notes import input_notes
from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.events import Notice, Started
from onnx_cgmq.data import open_data
from onnx_cgmq.examples import digits
from onnx_cgmq.graph.files.load import load_model
from tests.support.networks import NETWORKS, export
from tests.support.toys import convnet, mlp, toy_data


def _notes(model: onnx.ModelProto, data) -> list[str]:
    graph = load_model(model)
    return input_notes(graph, open_data(data, graph))


def _parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21]> {text}""")


@pytest.fixture(scope="module")
def digit_files(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("digits"))


def _digits(files) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    data = np.load(files.test)
    return onnx.load(files.model), data["image"], data["label"]


@pytest.mark.parametrize("make", [mlp, convnet])
def test_data_that_fit_the_model_have_no_notes(make) -> None:
    assert _notes(make(), toy_data(make())) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_are_not_trained_have_no_notes(name) -> None:
    """They may well find the same class for all samples, but not the same scores."""
    inputs = NETWORKS[name].inputs(64).numpy()
    assert _notes(export(NETWORKS[name], dynamo=False), {"x": inputs}) == []


def test_real_digits_have_no_notes(digit_files) -> None:
    model, images, labels = _digits(digit_files)
    assert _notes(model, {"image": images, "label": labels}) == []


def test_labels_of_other_samples_are_noted(digit_files) -> None:
    model, images, labels = _digits(digit_files)
    (note,) = _notes(
        model, {"image": images, "label": np.random.default_rng(0).permutation(labels)}
    )
    assert "of 128 samples right, near what chance gives for 10 classes" in note
    assert "labels or preprocessing don't fit the model" in note


def test_labels_of_another_order_are_noted(digit_files) -> None:
    model, images, labels = _digits(digit_files)
    (note,) = _notes(model, {"image": images, "label": (labels + 1) % 10})
    assert "labels or preprocessing" in note


def test_two_classes_are_judged_by_what_is_above_chance() -> None:
    """Twice chance would be all samples right."""
    model = _parsed("g (float[n,2] x) => (float[n,2] y) { y = Identity (x) }")
    labels = np.arange(100) % 2
    x = np.eye(2, dtype=np.float32)[labels] + np.linspace(0, 0.1, 100, dtype=np.float32)[:, None]
    wrong = np.arange(100) < 30
    assert _notes(model, (x, np.where(wrong, 1 - labels, labels))) == []
    half = np.arange(100) < 50
    (note,) = _notes(model, (x, np.where(half, 1 - labels, labels)))
    assert "only 50.0% of 100 samples right" in note


def test_images_that_are_far_too_dark_are_noted_without_labels(digit_files) -> None:
    """Pixels 0 .. 1 divided by 255 once more: all outputs are those of a black image."""
    model, images, _ = _digits(digit_files)
    (note,) = _notes(model, {"image": images / np.float32(255)})
    assert note == (
        "the float model gives nearly the same output for all of 128 samples, though they differ: "
        "is their preprocessing the one that the model was trained with?"
    )


def test_a_saturated_network_is_noted() -> None:
    model = _parsed(
        """g (float[n,2] x) => (float[n,3] y) <float[2,3] w = {1, 2, 9, 1, 2, 9}>
        { h = MatMul (x, w)  y = Softmax (h) }"""
    )
    x = np.random.default_rng(0).uniform(0, 1, (64, 2)).astype(np.float32)
    assert _notes(model, x) == []
    (note,) = _notes(model, x + 255)
    assert "nearly the same output for all of 64 samples" in note


def test_a_network_may_be_sure_of_one_class_for_all_samples() -> None:
    """All samples may be of that class, and there are no labels to tell."""
    model = _parsed("g (float[n,2] x) => (float[n,2] y) { y = Softmax (x) }")
    x = np.random.default_rng(0).normal(0, 1, (64, 2)) + np.array([12, 0])
    assert _notes(model, x.astype(np.float32)) == []


def test_samples_of_one_class_may_have_the_same_output() -> None:
    model = _parsed("g (float[n,2] x) => (float[n,2] y) { y = Identity (x) }")
    x = np.array([0, 2], np.float32) + np.linspace(0, 1e-3, 64, dtype=np.float32)[:, None]
    assert len(_notes(model, x)) == 1
    assert _notes(model, (x, np.ones(64, np.int64))) == []
    assert len(_notes(model, (x, np.arange(64) % 2))) == 2  # near chance too


def test_equal_samples_give_equal_outputs() -> None:
    assert _notes(mlp(), np.ones((64, 8), np.float32)) == []


def test_a_quantity_may_vary_little_around_a_large_value() -> None:
    """As a pressure does: an output without classes."""
    model = _parsed(
        """g (float[n,1] x) => (float[n,1] y) <float p = {100000.0}, float z = {0.0}>
        { y = Add (x, p) }"""
    )
    x = np.linspace(0, 3, 64, dtype=np.float32)[:, None]
    assert _notes(model, x) == []
    dead = _parsed(
        """g (float[n,1] x) => (float[n,1] y) <float p = {100000.0}>
        { n1 = Neg (x)  r = Relu (n1)  y = Add (r, p) }"""
    )
    assert len(_notes(dead, x)) == 1


def test_few_samples_prove_nothing() -> None:
    model = _parsed("g (float[n,2] x) => (float[n,2] y) { y = Identity (x) }")
    x = np.array([0, 2], np.float32) + np.linspace(0, 1e-3, 49, dtype=np.float32)[:, None]
    assert _notes(model, (x, np.zeros(49, np.int64))) == []


@pytest.mark.filterwarnings("error")
def test_outputs_that_are_not_finite_or_empty_have_no_note() -> None:
    model = _parsed(
        """g (float[n,2] x) => (float[n,2] y, float[n,0] none)
        <int64[1] zero = {0}, int64[1] one = {1}>
        { l = Log (x)  y = Div (l, x)  none = Slice (x, zero, zero, one) }"""
    )
    assert _notes(model, np.zeros((64, 2), np.float32) + np.eye(64, 2, dtype=np.float32)) == []


def test_sequences_of_any_length_are_looked_at() -> None:
    model = _parsed("g (float[n,t,3] x) => (float[n,t,3] y) { y = Softmax <axis = -1> (x) }")
    rng = np.random.default_rng(0)
    items = [{"x": rng.normal(size=(1, 2 + i % 3, 3)).astype(np.float32)} for i in range(60)]
    assert _notes(model, items) == []


def test_a_run_says_so_before_it_trains() -> None:
    data, told = toy_data(mlp()), []
    data["label"] = (data["label"] + 1) % 3
    quantize(mlp(), data, "6.25%", epochs=1, progress=told.append)
    kinds = [type(event) for event in told]
    assert kinds.index(Notice) < kinds.index(Started)
    assert "labels or preprocessing" in told[kinds.index(Notice)].message
