"""How a written file agrees with its float model, both in onnxruntime."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest

from onnx_cgmq.api.float_agreement import float_agreement
from onnx_cgmq.data import open_data
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.ort.session import open_session
from tests.support.toys import mlp, toy_data


def _parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21]> {text}""")


def _with_last_bias(model: onnx.ModelProto, values) -> onnx.ModelProto:
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    (bias,) = (tensor for tensor in changed.graph.initializer if tensor.name == "b2")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.asarray(values, np.float32), "b2"))
    return changed


def _measured(float_model, written, data):
    written = load_model(written)
    return float_agreement([float_model], written, open_data(data, written))


def test_outputs_classes_and_accuracy_are_compared() -> None:
    model, data = mlp(), toy_data(mlp())
    biased = _with_last_bias(model, [100, 0, 0])  # always class 0
    agreement = _measured(model, biased, data)
    wanted, found = (open_session(m).run(["y"], {"x": data["x"]})[0] for m in (model, biased))
    expected = 10 * math.log10((wanted**2).sum() / ((found - wanted) ** 2).sum())
    assert agreement.outputs["y"].snr_db == pytest.approx(expected, abs=1e-3)
    share = (data["label"] == 0).mean()
    assert agreement.same_class == agreement.accuracy == pytest.approx(share)
    assert agreement.float_accuracy == 1.0
    assert (agreement.samples, agreement.class_output) == (192, "y")
    assert agreement.text == (
        f"{expected:.1f} dB (y), same class for {share:.2%} of 192 held-out samples"
    )


def test_a_file_that_computes_the_same_says_so() -> None:
    agreement = _measured(mlp(), mlp(), {"x": toy_data(mlp())["x"]})
    assert agreement.text == "no difference (y), same class for 100.00% of 192 held-out samples"
    assert agreement.accuracy is agreement.float_accuracy is None
    record = json.loads(json.dumps(agreement.to_record(), allow_nan=False))
    assert record["outputs"]["y"]["snr_db"] is None
    assert record["outputs"]["y"]["max_abs_difference"] == 0.0


def test_at_most_512_samples_are_compared() -> None:
    data = toy_data(mlp(), count=700)
    data["x"] = data["x"][np.argsort(data["label"], kind="stable")]  # sorted by class
    data["label"] = np.sort(data["label"])
    agreement = _measured(mlp(), _with_last_bias(mlp(), [0, 0, 100]), data)
    assert agreement.samples == 512
    assert agreement.accuracy == pytest.approx((data["label"] == 2).mean(), abs=0.05)


def test_padding_samples_are_not_counted() -> None:
    data = toy_data(mlp(), count=7)
    agreement = _measured(mlp(batch=5), mlp(batch=5), data)
    assert agreement.samples == agreement.classes_compared == 7


def test_the_prepared_model_stands_in_for_one_that_onnxruntime_does_not_run() -> None:
    data, written = toy_data(mlp()), load_model(mlp())
    samples = open_data(data, written)
    assert float_agreement(["nowhere.onnx", mlp()], written, samples).same_class == 1.0
    with pytest.raises(ModelError, match=r"nowhere\.onnx"):
        float_agreement(["nowhere.onnx", "nowhere else.onnx"], written, samples)


def test_what_chance_decides_is_not_compared() -> None:
    model = _parsed(
        """g (float[n,3] x) => (float[n,3] y)
        { r = RandomNormalLike <scale = 0.001> (x)  y = Add (x, r) }"""
    )
    labels = np.arange(6) % 3
    agreement = _measured(model, model, (np.eye(3, dtype=np.float32)[labels], labels))
    assert agreement.outputs == {}
    assert agreement.same_class is None
    assert agreement.accuracy == agreement.float_accuracy == 1.0
    assert "chance" in agreement.text


def test_things_found_may_differ_in_number() -> None:
    """As boxes do: their number is a size that the data decide."""
    text = """g (float[n,3] x) => (float[1,k] found, float[n,3] y)
        <float limit = {LIMIT}, int64[1] flat = {-1}, int64[2] row = {1, -1}>
        { m = Greater (x, limit)  chosen = Reshape (m, flat)  c = Compress (x, chosen)
          found = Reshape (c, row)  y = Identity (x) }"""
    one, two = (_parsed(text.replace("LIMIT", limit)) for limit in ("0.5", "0.7"))
    x = np.linspace(0, 1, 30, dtype=np.float32).reshape(10, 3)
    agreement = _measured(one, two, x)
    assert agreement.outputs["found"].text == "not comparable"
    assert agreement.outputs["y"].snr_db == math.inf
    assert "not comparable (found)" in agreement.text


def test_values_that_the_float_model_does_not_define_are_left_out_and_said() -> None:
    model = _parsed("g (float[n,2,1] x) => (float[n,2,1] y) { y = Log (x) }")
    agreement = _measured(model, model, np.array([[[0.0], [1.0]]] * 4, np.float32))
    assert agreement.text == (
        "no difference (y) for 4 held-out samples, "
        "without 4 values that are NaN or infinite in the float model"
    )


def test_positions_are_said() -> None:
    model = _parsed("g (float[n,5,4] x) => (float[n,5,4] y) { y = Softmax <axis = -1> (x) }")
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    text = _measured(model, model, x).text
    assert text.endswith("same class for 100.00% of 30 positions in 6 held-out samples")
