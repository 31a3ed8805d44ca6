from __future__ import annotations

import math
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.packaged_models import FOLDER, NAMES, packaged_model, read
from tools.fetch.model_structures import FEWEST, constants, main


def branching() -> onnx.ModelProto:
    """A weight, a branch with a weight in a node, a limit, and a shape."""
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    branch = helper.make_graph(
        [
            helper.make_node("Constant", [], ["v"], value=weight),
            helper.make_node("MatMul", ["x", "v"], ["y"]),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [helper.make_tensor_value_info("condition", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((2, 4), np.float32), "x"),
            numpy_helper.from_array(np.arange(100), "shape"),
            helper.make_tensor("typed", TensorProto.FLOAT, [16], np.ones(16)),
        ],
    )
    return helper.make_model(graph)


def has_values(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.raw_data or tensor.float_data)


def test_only_large_float_constants_lose_their_values(tmp_path, monkeypatch) -> None:
    onnx.save(branching(), tmp_path / "m.onnx")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "m.onnx"), "--out", str(tmp_path)])
    main()
    stored = list(constants(read(tmp_path / "m.onnx.xz").graph))
    assert {(t.name, *t.dims, has_values(t)) for t in stored} == {
        ("x", 2, 4, True),
        ("shape", 100, True),
        ("typed", 16, False),
        ("w", 4, 4, False),
    }


@pytest.mark.parametrize("name", NAMES)
def test_stored_graphs_have_no_weights_and_get_random_ones(name) -> None:
    stored = list(constants(read(FOLDER / f"{name}.onnx.xz").graph))
    filled = list(constants(packaged_model(name).graph))
    weights = [
        index
        for index, tensor in enumerate(stored)
        if tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= FEWEST
    ]
    assert weights
    assert not any(has_values(stored[index]) for index in weights)
    for index in weights:
        array = numpy_helper.to_array(filled[index])
        assert array.shape == tuple(stored[index].dims)
        assert array.std() > 0
