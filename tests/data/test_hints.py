"""Hints in messages on data: doing what they say gives data of the right meaning."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.data import open_data
from onnx_cgmq.errors import DataError


def model(dtype: str, shape: str = "n, 4") -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g ({dtype}[{shape}] x) => (float[n, 3] scores) {{ scores = Identity(x) }}"""
    return ir.from_proto(onnx.parser.parse_model(text))


def refusal(data, dtype: str = "float", shape: str = "n, 4") -> str:
    with pytest.raises(DataError) as error:
        open_data(data, model(dtype, shape))
    return str(error.value)


FRACTIONS = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)


def test_pixels_that_were_divided_become_pixels_again() -> None:
    text = refusal({"x": FRACTIONS}, "uint8")
    assert "give them as they were, numpy.uint8(numpy.rint(x * 255))" in text
    assert "a conversion would cut its values off, which are from 0 to 1" in text
    pixels = np.uint8(np.rint(FRACTIONS * 255))
    assert open_data({"x": pixels}, model("uint8")).batch(np.array([1])).inputs["x"].max() == 255


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64"])
def test_scaled_values_are_wanted_as_they_were(dtype) -> None:
    text = refusal({"x": 4 * FRACTIONS - 2}, dtype)
    assert "give them as they were before scaling" in text
    assert "from -2 to 2" in text


def test_whole_numbers_are_converted() -> None:
    text = refusal({"x": np.arange(8.0).reshape(2, 4)}, "int64")
    assert text.endswith("convert it with astype('int64')")


def test_only_masks_of_0_and_1_become_booleans_by_conversion() -> None:
    assert refusal({"x": np.eye(4)}, "bool").endswith("astype('bool')")
    scores = np.where(np.eye(4) > 0, 0.0, -10000.0)  # astype would turn this mask around
    assert "say which of them mean True" in refusal({"x": scores}, "bool")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_raw_pixels_are_scaled(dtype) -> None:
    images = np.arange(32, dtype=dtype).reshape(2, 4, 4)
    assert "(x / 255).astype('float32')" in refusal({"x": images}, "float", "n, 4, 4")
    assert refusal({"x": images % 2}, "float", "n, 4, 4").endswith("astype('float32')")


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (np.array([0.0, 2.0]), r"labels.astype('int64')"),
        (np.array([[0.0], [2.0]]), r"labels.astype('int64')"),
        (np.array([False, True]), "True becomes class 1 with labels.astype('int64')"),
        (np.array([0.5, 1.2]), "go into an array named as the model's output"),
        (np.eye(3)[:2], "numpy.argmax(labels, axis=1)"),
    ],
)
def test_labels_become_class_indexes(labels, hint) -> None:
    text = refusal({"x": FRACTIONS, "label": labels})
    assert hint in text
    assert ("argmax" in text) is (hint.startswith("numpy.argmax"))


def test_names_of_classes_become_indexes(tmp_path) -> None:
    names = np.array(["cat", "dog"])
    assert "the index of its class" in refusal({"x": FRACTIONS, "label": names})
    np.savez(tmp_path / "data.npz", x=FRACTIONS, label=names)
    assert "the index of its class" in refusal(tmp_path / "data.npz")


def test_arrays_that_nothing_reads_are_to_be_left_out() -> None:
    text = refusal({"x": FRACTIONS, "file": np.arange(2)})
    assert "leave out ['file'], which nothing reads" in text
    assert "rename" not in text
    assert "rename" in refusal({"input": FRACTIONS})
    assert refusal({"scores": np.ones((2, 3))}).endswith("add the arrays that are missing")


def test_python_objects_are_no_reason_to_unpickle(tmp_path) -> None:
    ragged = np.empty(2, object)
    ragged[:] = [np.ones((1, 4)), np.ones((2, 4))]
    np.savez(tmp_path / "data.npz", x=ragged)
    text = refusal(tmp_path / "data.npz")
    assert "samples of different shapes in files of their own" in text
    assert "pickle" not in text
