from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnx_cgmq.graph.layouts import permutation, stored_weight, transposed_views


def chain(*perms):
    """A constant [2, 3, 4] below Transpose nodes."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    weight = value = ir.Value(name="w", const_value=ir.tensor(array))
    for perm in perms:
        value = ir.node("Transpose", [value], {"perm": perm} if perm else {}).outputs[0]
        array = array.transpose(perm)
    return weight, value, array


def test_permutation_names_the_axis_of_the_source() -> None:
    for perms in ([None], [[1, 2, 0]], [[1, 2, 0], [0, 2, 1]], [[2, 0, 1], None, [1, 0, 2]]):
        weight, value, expected = chain(*perms)
        found, path = stored_weight(value)
        assert found is weight
        axes = permutation(path, 3)
        np.testing.assert_array_equal(weight.const_value.numpy().transpose(axes), expected)


def test_views_of_a_weight_are_found_from_above_as_from_below() -> None:
    weight, value, _ = chain([1, 2, 0], [0, 2, 1])
    views = dict(transposed_views(weight))
    assert list(views) == [weight, value.producer().inputs[0], value]
    assert all(stored_weight(view) == (weight, path) for view, path in views.items())


def test_stored_weight_of_a_computed_value_is_the_value_itself() -> None:
    x = ir.Value(name="x")
    below = ir.node("Transpose", [x]).outputs[0]
    assert stored_weight(below) == (below, ())
    assert stored_weight(x) == (x, ())
