from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from onnx_cgmq.graph.affine import Affine, affine_of
from onnx_cgmq.graph.files.load import load_model


def affine(node: str) -> Affine | None:
    """The affine map from ``x`` to ``y`` in a node; ``c`` is [2, 4], ``i`` is not constant."""
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> '
        f"g (float[2] x, float[2] i) => (float[2] y) <float[2] c = {{2, 4}}> {{ {node} }}"
    )
    graph = load_model(parser.parse_model(text)).graph
    found = affine_of(next(iter(graph)))
    assert found is None or found.source is graph.inputs[0]
    return found


@pytest.mark.parametrize(
    ("node", "scale", "shift"),
    [
        ("Add(x, c)", 1, [2, 4]),
        ("Add(c, x)", 1, [2, 4]),
        ("Sub(x, c)", 1, [-2, -4]),
        ("Sub(c, x)", -1, [2, 4]),
        ("Mul(c, x)", [2, 4], 0),
        ("Div(x, c)", [0.5, 0.25], 0),
    ],
)
def test_arithmetic_with_a_constant_is_affine(node: str, scale: object, shift: object) -> None:
    found = affine(f"y = {node}")
    assert found is not None
    np.testing.assert_array_equal(found.scale, scale)
    np.testing.assert_array_equal(found.shift, shift)


@pytest.mark.parametrize("node", ["Div(c, x)", "Add(x, i)", "Add(x, x)", "Relu(x)", "Pow(x, c)"])
def test_other_nodes_are_not_affine(node: str) -> None:
    assert affine(f"y = {node}") is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), [1, 1, 1]),
        ((3, 1), [1, 1, 1]),
        ((1, 3, 1), [1, 1, 1]),
        ((3,), None),
        ((1, 2, 1), None),
        ((1, 1, 3, 1), None),
    ],
)
def test_scale_and_shift_become_vectors_along_an_axis(
    shape: tuple[int, ...], expected: list[int] | None
) -> None:
    found = affine("y = Add(x, c)")
    assert found is not None
    vectors = Affine(found.source, np.ones(shape), np.zeros(())).along(1, 3, 3)
    assert (vectors is None) == (expected is None)
    if vectors is not None:
        np.testing.assert_array_equal(vectors, [expected, [0, 0, 0]])
