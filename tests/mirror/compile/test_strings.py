"""Models with outputs of strings: the names of classes, as scikit-learn pipelines give them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.api.verification import verify
from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.ort.session import open_session

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)

NAMES = """
    m = MatMul (x, w)
    prob = Softmax <axis = 1> (m)
    index = ArgMax <axis = 1, keepdims = 0> (prob)
    name = ai.onnx.ml.ArrayFeatureExtractor (classes, index)
    label = Reshape (name, all)
"""
ENCODED = """
    m = MatMul (x, w)
    prob = Softmax <axis = 1> (m)
    index = ArgMax <axis = 1, keepdims = 0> (prob)
    label = ai.onnx.ml.LabelEncoder <keys_int64s = [0, 1, 2], values_strings = ["cat", "dog", "é"]>
        (index)
"""


def model(body: str, outputs: str = "string[n] label, float[n, 3] prob") -> onnx.ModelProto:
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 2]>
        g (float[n, 4] x) => ({outputs}) <int64[1] all = {{-1}}> {{ {body} }}"""
    )
    w = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    classes = onnx.helper.make_tensor("classes", onnx.TensorProto.STRING, [3], [b"a", b"b", b"c"])
    parsed.graph.initializer.extend([onnx.numpy_helper.from_array(w, "w"), classes])
    return parsed


@pytest.mark.parametrize("body", [NAMES, ENCODED])
def test_names_of_classes_stay_in_the_file_and_out_of_the_mirror(body, tmp_path) -> None:
    given = model(body)
    mirror = Mirror(given)
    assert mirror.output_names == ("prob",)
    session = open_session(given, threads=1)
    names, expected = session.run(["label", "prob"], {"x": X})
    with torch.no_grad():
        np.testing.assert_allclose(mirror({"x": torch.from_numpy(X)})["prob"], expected, atol=1e-6)
    result = quantize(given, X, "6.25%", epochs=1, batch_size=16, output=tmp_path / "out.onnx")
    written = open_session(tmp_path / "out.onnx", threads=1)
    assert [output.name for output in written.get_outputs()] == ["label", "prob"]
    found = written.run(["label"], {"x": X})[0]
    assert np.mean(found == names) > 0.9
    assert verify(given, result.model, X).class_agreement > 0.9


def test_nodes_that_other_outputs_need_are_refused_by_name() -> None:
    outputs = "string[n] label, float[n, 3] prob, int64[1] shape"
    with pytest.raises(UnsupportedOperatorError, match=r"ArrayFeatureExtractor.*type STRING"):
        Mirror(model(NAMES + "shape = Shape (name)", outputs))
    with pytest.raises(UnsupportedOperatorError, match=r"ArrayFeatureExtractor.*type STRING"):
        Mirror(model(NAMES, "string[n] label"))
