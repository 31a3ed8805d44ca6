from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.gated_qdq import ACCUMULATOR_OP
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.writing.gated_tensors import GatedTensors
from onnx_cgmq.writing.node_writer import NodeWriter
from tests.support.convolutions import gated
from tests.support.plans import make_plan


def tensors_of(**widths: int) -> GatedTensors:
    model = gated()
    names = quantizer_nodes(model)
    return GatedTensors(
        model, make_plan(model, {name: np.array(widths.get(name, 8)) for name in names})
    )


def tensor(tensors: GatedTensors, name: str):
    return next(tensor for tensor in tensors.of_role(*Role) if tensor.name == name)


def test_tensors_by_role_and_by_value() -> None:
    tensors = tensors_of()
    assert [weight.name for weight in tensors.of_role(Role.WEIGHT)] == ["w0", "w1", "v0", "v1"]
    weight = tensor(tensors, "w0")
    assert tensors.of(weight.node.outputs[0]) is tensors.of(weight.node.outputs[1]) is weight
    assert tensors.of(weight.source) is None
    assert tensors.of(None) is None


def test_values_of_the_plan_go_before_those_of_the_model() -> None:
    tensors = tensors_of()
    bias = tensor(tensors, "b0")
    for own in (np.ones(8, np.float32), None):
        with replace(bias, plan=bias.plan.model_copy(update={"values": own})).values() as values:
            expected = bias.source.const_value.numpy() if own is None else own
            np.testing.assert_array_equal(values, expected)
    activation = tensor(tensors, "x")
    with pytest.raises(ModelError, match="'x' is not an initializer"), activation.values():
        pass


def test_codes_and_floats_of_a_weight() -> None:
    tensors = tensors_of(w0=4, w1=32)
    narrow, wide = tensor(tensors, "w0"), tensor(tensors, "w1")
    assert np.abs(narrow.codes().codes).max() <= 7
    assert wide.codes() is None
    written = wide.float_value(NodeWriter(wide.node, "w1"))
    np.testing.assert_array_equal(written.const_value.numpy(), wide.source.const_value.numpy())


def test_accumulators_step_is_the_product_of_both() -> None:
    tensors = tensors_of(x=8, w0=4, w1=16)
    accumulators = [node for node in tensors.graph if node.op_type == ACCUMULATOR_OP]
    steps = [tensors.accumulator_step(node) for node in accumulators]
    expected = tensor(tensors, "x").plan.step * tensor(tensors, "w0").plan.step
    assert steps[0] == expected
    assert steps[1] is None  # 16 bits have no integer kernel
