from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_cgmq.ort.session import open_session
from onnx_cgmq.writing.older_opset import lower_opset

OPSET = 21
X = np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)


def model_of(op_type: str, *constants, dtype=np.float32, rank=4, **attributes) -> ir.Model:
    """A node that reads ``x`` and constants."""
    names = [f"c{index}" for index in range(len(constants))]
    node = helper.make_node(op_type, ["x", *names], ["y"], **attributes)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", element, X.shape)],
        [helper.make_tensor_value_info("y", element, list("abcd")[:rank])],
        [numpy_helper.from_array(np.asarray(c), n) for c, n in zip(constants, names, strict=True)],
    )
    imports = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
WEIGHT = np.random.default_rng(1).normal(size=(5, 4, 3, 3)).astype(np.float32)
FACTORS = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("model", "opset"),
    [
        (model_of("Relu"), 13),
        (model_of("Conv", WEIGHT, strides=[2, 2]), 13),
        (model_of("MaxPool", kernel_shape=[2, 2]), 13),
        (model_of("Pad", PADS), 13),
        (model_of("Pad", PADS[2::4], np.float32(0), np.array([2])), 18),  # axes
        (model_of("Pad", PADS, mode="reflect"), OPSET),  # a string that may be new
        (model_of("Reshape", np.array([0, -1]), rank=2), 14),  # an attribute more
        (model_of("ReduceMean", np.array([1])), 18),  # axes became an input
        (model_of("GroupNormalization", FACTORS, FACTORS, num_groups=2), OPSET),  # another meaning
        (model_of("Relu", dtype=np.int32), 14),  # a type more
        (model_of("Gelu"), 20),  # an operator more
    ],
    ids=lambda value: value.graph[0].op_type if isinstance(value, ir.Model) else str(value),
)
def test_opset_is_lowered_as_far_as_the_node_keeps_its_meaning(model, opset) -> None:
    x = {"x": X.astype(model.graph.inputs[0].dtype.numpy())}
    (before,) = open_session(model, optimize=False).run(None, x)
    lower_opset(model)
    assert model.graph.opset_imports[""] == opset
    assert model.ir_version == helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    (after,) = open_session(model, optimize=False).run(None, x)
    np.testing.assert_array_equal(after, before)


def test_the_node_that_needs_the_highest_opset_decides() -> None:
    model = model_of("Relu")
    reduced = ir.node("ReduceMean", [model.graph.outputs[0]])
    model.graph.append(reduced)
    lower_opset(model)
    assert model.graph.opset_imports[""] == 18


def test_an_opset_below_the_oldest_is_kept() -> None:
    model = model_of("Relu")
    model.graph.opset_imports[""] = 11
    lower_opset(model)
    assert model.graph.opset_imports[""] == 11
