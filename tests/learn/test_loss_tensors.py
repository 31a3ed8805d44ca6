"""Which tensors the loss compares, for the ways in which real models end."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

from onnx_cgmq.errors import ModelError
from onnx_cgmq.learn.loss_tensors import LossTensors, loss_tensors
from onnx_cgmq.mirror.module import Mirror

WEIGHTS = {"w": (8, 8), "v": (8, 4), "u": (8, 3)}


def _find(body: str, outputs: str, constants: str = "") -> LossTensors:
    """The tensors that the loss compares in a graph with the input x [n, 8]."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    graph (float[n, 8] x) => ({outputs}) <{constants}> {{ {body} }}"""
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    used = {name for node in model.graph.node for name in node.input}
    for name, shape in WEIGHTS.items():
        if name in used:
            array = rng.normal(size=shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    x = torch.from_numpy(rng.normal(size=(5, 8)).astype(np.float32))
    return loss_tensors(Mirror(model), {"x": x}, WEIGHTS.keys())


def test_loss_compares_outputs_that_have_a_gradient() -> None:
    found = _find(
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) z = MatMul(r, u)", "float y, float z"
    )
    assert found == LossTensors(("y", "z"), ())


def test_loss_leaves_out_a_class_that_is_given_beside_its_scores() -> None:
    found = _find("y = MatMul(x, v) c = ArgMax<axis=1>(y)", "int64 c, float y")
    assert found == LossTensors(("y",), ())


def test_loss_compares_the_scores_of_a_class_that_is_the_only_output() -> None:
    found = _find("h = MatMul(x, v) s = Softmax(h) [top] c = ArgMax<axis=1>(s)", "int64 c")
    assert found.names == ("s",)
    assert found.without_gradient == ("ArgMax 'top'",)


def test_loss_compares_boxes_and_scores_before_suppression() -> None:
    found = _find(
        """h = MatMul(x, w)
        r = Relu(h)
        b = MatMul(r, v)
        s = MatMul(r, u)
        scores = Sigmoid(s)
        turned = Transpose(scores)
        boxes = Unsqueeze(b, zero)
        ranked = Unsqueeze(turned, zero)
        [nms] kept = NonMaxSuppression(boxes, ranked, many, half)
        column = Gather<axis=1>(kept, two)
        y = Gather(b, column)
        """,
        "float y, int64 kept",
        "int64[1] zero = {0}, int64 two = {2}, int64[1] many = {3}, float[1] half = {0.5}",
    )
    assert found == LossTensors(("boxes", "ranked"), ("NonMaxSuppression 'nms'",))


def test_loss_compares_the_best_k_and_values_before_they_are_picked() -> None:
    found = _find(
        """b = MatMul(x, v)
        s = MatMul(x, u)
        [top] best, index = TopK(s, k)
        y = GatherElements<axis=1>(b, index)
        """,
        "float y, float best",
        "int64[1] k = {1}",
    )
    assert found == LossTensors(("best", "b"), ("TopK 'top'",))


def test_a_choice_before_another_layer_does_not_move_the_loss() -> None:
    found = _find(
        """s = MatMul(x, w)
        best, index = TopK<axis=0>(s, k)
        h = GatherElements<axis=0>(x, index)
        g = Mul(h, best)
        y = MatMul(g, v)
        """,
        "float y",
        "int64[1] k = {2}",
    )
    assert found == LossTensors(("y",), ())


@pytest.mark.parametrize(
    "body",
    [
        "h = MatMul(x, v) on = Greater(h, zero) low = Mul(h, h) y = Where(on, h, low)",
        "h = MatMul(x, v) whole = Floor(h) y = Sub(h, whole)",
        "h = MatMul(x, v) size = Shape(h) y = Reshape(h, size)",
        "h = MatMul(x, v) on = Cast<to=9>(x) y = Identity(h) never = Not(on)",
    ],
    ids=["mask", "fraction", "shape", "dead"],
)
def test_masks_rounding_and_shapes_do_not_move_the_loss(body: str) -> None:
    assert _find(body, "float y", "float zero = {0}") == LossTensors(("y",), ())


def test_loss_compares_an_output_before_it_is_rounded() -> None:
    found = _find("h = MatMul(x, v) [up] r = Ceil(h) y = Neg(r)", "float y")
    assert found == LossTensors(("h",), ("Ceil 'up'",))


def test_outputs_without_a_gradient_to_a_weight_are_refused() -> None:
    with pytest.raises(ModelError, match="no gradient comes back"):
        _find("y = Relu(x)", "float y")


def test_a_loss_of_the_users_own_gets_every_output() -> None:
    mirror = Mirror(
        parser.parse_model(
            """<ir_version: 10, opset_import: ["" : 20]>
            graph (float[n, 2] x) => (int64 c) <float[2, 2] w = {1, 2, 3, 4}> {
                y = MatMul(x, w)
                [top] c = ArgMax<axis=1>(y)
            }"""
        )
    )
    found = loss_tensors(mirror, {"x": torch.ones(3, 2)}, ["w"], all_outputs=True)
    assert found.names == ("c", "y")
    assert found.text == "no gradient passes through ArgMax 'top'; the loss is taken at c, y"
