"""quantize() equalizes channels, unless the user does not want it."""

from __future__ import annotations

import onnx
import pytest
from onnx import numpy_helper

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.decisions import Verdict, collected_decisions
from tests.support.toys import mlp, toy_data


def uneven_mlp() -> onnx.ModelProto:
    """The network of :func:`mlp`, with a hidden unit that reaches a hundred times as far."""
    model = mlp()
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("w1", "b1"):
            array[..., 3] *= 100
        elif tensor.name == "w2":
            array[3] /= 100
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


@pytest.mark.parametrize("equalize", [True, False])
def test_a_run_moves_factors_of_uneven_channels(equalize: bool) -> None:
    model = uneven_mlp()
    with collected_decisions() as found:
        result = quantize(model, toy_data(model), "6.25%", epochs=1, equalize=equalize)
    moved = [d.name for d in found if d.verdict is Verdict.REWRITTEN]
    assert moved == ["first"] * equalize
    assert bool(result.plan.tensors["r"].high > 50) is not equalize
