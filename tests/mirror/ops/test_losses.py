from __future__ import annotations

import numpy as np
import pytest

from tests.support.referee import assert_gradients, assert_like_onnxruntime, parse

SHAPES = [(4,), (3, 2), (2, 2, 3)]
ATTRIBUTES = ['reduction="none"', 'reduction="sum"', 'reduction="mean"']
ATTRIBUTES += [f"{attribute}, ignore_index=-1" for attribute in ATTRIBUTES]


def _feeds(rest: tuple[int, ...], attributes: str, dtype: type) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, rest)
    if "ignore_index" in attributes:
        labels.reshape(-1)[1] = -1
    scores = generator.standard_normal((rest[0], 5, *rest[1:])).astype(dtype)
    return {"x": scores, "t": labels, "w": generator.random(5).astype(dtype)}


def _signature(rest: tuple[int, ...], kind: str) -> str:
    dims = ",".join(map(str, (rest[0], 5, *rest[1:])))
    return f"{kind}[{dims}] x, int64[{','.join(map(str, rest))}] t, {kind}[5] w"


@pytest.mark.parametrize("rest", SHAPES)
@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("weighted", [False, True])
def test_same_as_onnxruntime(rest: tuple[int, ...], attributes: str, weighted: bool) -> None:
    weight = ", w" if weighted else ""
    body = f"y, l = SoftmaxCrossEntropyLoss<{attributes}>(x, t{weight})"
    body += f" z = NegativeLogLikelihoodLoss<{attributes}>(x, t{weight})"
    model = parse(_signature(rest, "float"), "float y, float l, float z", body, 13)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    feeds = _feeds(rest, attributes, np.float32)
    if not weighted:
        del feeds["w"]
        del model.graph.input[2]
    assert_like_onnxruntime(model, feeds)


@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_gradients_reach_scores_and_weights(attributes: str) -> None:
    body = f"y, l = SoftmaxCrossEntropyLoss<{attributes}>(x, t, w)"
    model = parse(_signature((3, 2), "double"), "y, l", body, 13)
    assert_gradients(model, _feeds((3, 2), attributes, np.float64))
