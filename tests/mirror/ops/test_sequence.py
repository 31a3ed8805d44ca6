"""Sequences and optionals: most of their cases are in the standard's own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror import Mirror
from tests.support.referee import assert_like_onnxruntime, parse

EDIT = """
  one = Constant<value_int = 1>() minus = Constant<value_int = -1>()
  parts = SplitToSequence<axis=1>(x) more = SequenceInsert(parts, z, one)
  last = SequenceAt(more, minus) fewer = SequenceErase(more)
  y = ConcatFromSequence<axis=1>(fewer) n = SequenceLength(fewer) w = Mul(last, last)
"""


def test_gradients_pass_through_sequences() -> None:
    model = parse("float[2,3] x, float[2,1] z", "float[2,c] y, int64 n, float[2,1] w", EDIT, 18)
    generator = np.random.default_rng(0)
    feeds = {"x": generator.standard_normal((2, 3)), "z": generator.standard_normal((2, 1))}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    assert_like_onnxruntime(model, feeds)
    tensors = {name: torch.from_numpy(array).requires_grad_() for name, array in feeds.items()}
    outputs = Mirror(ir.from_proto(model))(tensors)
    assert outputs["n"] == 3
    (outputs["y"].sum() + outputs["w"].sum()).backward()
    assert tensors["x"].grad[:, :2].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    torch.testing.assert_close(tensors["x"].grad[:, 2], 2 * tensors["x"][:, 2].detach())
    assert tensors["z"].grad.tolist() == [[1.0], [1.0]]


def test_positions_that_are_not_there_are_refused() -> None:
    body = "s = SequenceConstruct(x, x) p = Constant<value_int = 2>() y = SequenceAt(s, p)"
    mirror = Mirror(ir.from_proto(parse("float[2] x", "float[2] y", body, 18)))
    with pytest.raises(ModelError, match="a sequence of 2 tensors has no position 2"):
        mirror(torch.zeros(2))


def test_empty_optionals_are_refused_where_something_is_needed() -> None:
    model = parse("float[2] x", "float[2] y", "o = Optional() y = OptionalGetElement(o)", 18)
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [2])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("type", kind))
    with pytest.raises(ModelError, match="the optional is empty"):
        Mirror(ir.from_proto(model))(torch.zeros(2))
