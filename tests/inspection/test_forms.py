"""inspect() reads from every written form the widths and cost of the plan."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.inspection import inspect
from onnx_cgmq.writing.write_back import write_back
from tests.support.convolutions import gated
from tests.support.plans import OF_ANY_WIDTH, draw_widths, make_plan


@pytest.mark.parametrize(
    ("weights", "activations"),
    [("tensor", "tensor"), ("channel", "tensor"), ("element", "element")],
)
@pytest.mark.parametrize("form", OF_ANY_WIDTH)
def test_a_form_reads_back_as_its_plan(form, weights, activations) -> None:
    model = gated(
        granularity=weights,
        activation_granularity=activations,
        widths=(2, 4, 8),
        prune=weights != "tensor",
    )
    plan = make_plan(model, draw_widths(model, np.random.default_rng(2)))
    report = inspect(write_back(model, plan, form=form))
    assert {node.name: node.bops for node in report.nodes} == plan.cost.bops_by_node
    assert not report.notes
    for name, tensor in report.tensors.items():
        if tensor.role.value != "bias":
            widths = plan.tensors[name].widths
            np.testing.assert_array_equal(*np.broadcast_arrays(tensor.widths, widths), name)
