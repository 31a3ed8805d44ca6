"""The shipped model and digits are what their README says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "mnist"


@pytest.mark.parametrize(("name", "count"), [("train.npz", 8_000), ("test.npz", 2_000)])
def test_digits(name: str, count: int) -> None:
    with np.load(FOLDER / name) as arrays:
        image, label = arrays["image"], arrays["label"]
    assert (image.shape, image.dtype) == ((count, 1, 28, 28), np.float32)
    assert (label.shape, label.dtype) == ((count,), np.int64)
    assert (image.min(), image.max()) == (0.0, 1.0)
    assert set(label.tolist()) == set(range(10))


def test_model_is_accurate() -> None:
    session = ort.InferenceSession(FOLDER / "lenet5.onnx")
    with np.load(FOLDER / "test.npz") as arrays:
        (logits,) = session.run(["logits"], {"image": arrays["image"]})
        accuracy = np.mean(np.asarray(logits).argmax(1) == arrays["label"])
    assert accuracy >= 0.99


def test_model_says_nothing_about_where_it_was_made() -> None:
    model = onnx.load(FOLDER / "lenet5.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
