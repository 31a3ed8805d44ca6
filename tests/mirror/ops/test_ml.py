from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError
from tests.support.referee import assert_like_onnxruntime, parse, run_mirror

X = np.array([[1.5, 0.0, 2.5], [0.25, 4.0, 3.0], [0, 0, 0]], np.float32)


@pytest.mark.parametrize(
    "body",
    [
        "y = ai.onnx.ml.Binarizer<threshold=1.5>(x)",
        "y = ai.onnx.ml.Scaler<offset=[1.0,2.0,3.0], scale=[0.5,2.0,-1.0]>(x)",
        "y = ai.onnx.ml.Scaler<offset=[1.0], scale=[0.5]>(x)",
        'y = ai.onnx.ml.Normalizer<norm="MAX">(x)',
        'y = ai.onnx.ml.Normalizer<norm="L1">(x)',
        'y = ai.onnx.ml.Normalizer<norm="L2">(x)',
        "y = ai.onnx.ml.Imputer<imputed_value_floats=[7.0], replaced_value_float=4.0>(x)",
        "y = ai.onnx.ml.Imputer<imputed_value_floats=[7.0,8.0,9.0], replaced_value_float=0.0>(x)",
        "y = ai.onnx.ml.FeatureVectorizer<inputdimensions=[3,3]>(x, x)",
        "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0,2.0,3.0], intercepts=[0.5]>(x)",
        "y = ai.onnx.ml.LinearRegressor<targets=2, coefficients=[1.0,2.0,3.0,0.5,0.1,-2.0]>(x)",
    ],
)
def test_same_as_onnxruntime(body: str) -> None:
    model = parse("float[3,3] x", "float[a,b] y", body)
    assert_like_onnxruntime(model, {"x": X})
    if "Binarizer" not in body:
        assert run_mirror(model, {"x": X}, gradient=True)[0].requires_grad


def test_missing_values_are_imputed() -> None:
    model = parse("float[1,2] x", "y", "y = ai.onnx.ml.Imputer<imputed_value_floats=[7.0,8.0]>(x)")
    model.graph.node[0].attribute.add(name="replaced_value_float", f=float("nan"), type=1)
    (y,) = run_mirror(model, {"x": np.array([[np.nan, 1]], np.float32)})
    assert y.tolist() == [[7, 1]]


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("count", [2, 3])
def test_linear_classifier(transform: str, count: int) -> None:
    numbers = np.random.default_rng(0).standard_normal(4 * count).round(3).tolist()
    body = (
        f"l, y = ai.onnx.ml.LinearClassifier<classlabels_ints={[7, 3, 5][:count]}, "
        f"coefficients={numbers[: 3 * count]}, intercepts={numbers[3 * count :]}, "
        f'multi_class=1, post_transform="{transform}">(x)'
    )
    assert_like_onnxruntime(parse("float[3,3] x", "int64[3] l, float[3,k] y", body), {"x": X})


def test_class_names_are_refused() -> None:
    body = (
        'l, y = ai.onnx.ml.LinearClassifier<classlabels_strings=["a"], coefficients=[1.0,1.0,1.0], '
        "intercepts=[0.0]>(x)"
    )
    with pytest.raises(UnsupportedOperatorError, match="strings"):
        run_mirror(parse("float[3,3] x", "l, y", body), {"x": X})


def test_array_feature_extractor() -> None:
    model = parse(
        "float[3,3] x, int64[2] i", "float[3,2] y", "y = ai.onnx.ml.ArrayFeatureExtractor(x, i)"
    )
    assert_like_onnxruntime(model, {"x": X, "i": np.array([2, 0])})
    flat = parse(
        "int64[3] x, int64[2] i", "int64[1,2] y", "y = ai.onnx.ml.ArrayFeatureExtractor(x, i)"
    )
    assert_like_onnxruntime(flat, {"x": np.array([4, 5, 6]), "i": np.array([1, 1])})
