"""The device without hardware finds what is left behind on the CPU, as a GPU would."""

from __future__ import annotations

import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.core.registry import Context, onnx_op
from tests.support.guarded_device import NAME, guarded_device

DOMAIN = "test.guarded_device"


@onnx_op("LeavesBehind", domain=DOMAIN)
def _leaves_behind(ctx: Context, x: Tensor) -> Tensor:
    """Adds a constant of the CPU, which is a fault."""
    return x + torch.arange(x.shape[-1])


@onnx_op("Follows", domain=DOMAIN)
def _follows(ctx: Context, x: Tensor) -> Tensor:
    """Adds a constant where the input is."""
    return x + torch.arange(x.shape[-1], device=x.device)


def _mirror(op_type: str) -> Mirror:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("x", "y")]
    node = helper.make_node(op_type, ["x"], ["y"], domain=DOMAIN)
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return Mirror(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def test_a_handler_that_makes_a_tensor_on_the_cpu_is_found() -> None:
    mirror = _mirror("LeavesBehind")
    assert mirror(torch.zeros(3))["y"].tolist() == [0, 1, 2]
    with pytest.raises(ModelError, match="on the CPU"):
        mirror.to(guarded_device())(torch.zeros(3))


def test_a_handler_that_follows_its_input_passes_and_its_inputs_are_moved() -> None:
    mirror = _mirror("Follows").to(guarded_device())
    output = mirror(torch.zeros(3))["y"]
    assert output.device.type == NAME
    assert output.tolist() == [0, 1, 2]


def test_numpy_does_not_read_it() -> None:
    with pytest.raises((RuntimeError, TypeError)):
        torch.zeros(3, device=guarded_device()).numpy()


def test_values_and_gradients_are_those_of_the_cpu() -> None:
    x = torch.rand(4, 3)
    results = []
    for device in (torch.device("cpu"), guarded_device()):
        layer = torch.nn.Linear(3, 2)
        layer.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
        with torch.no_grad():
            results.append(layer.to(device)(x.to(device)).sigmoid().cpu())
    assert torch.equal(*results)
