"""Bounds on all costs at once: kept in the file, whatever the settings and the form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.api import pipeline
from onnx_cgmq.api.verification import verify
from onnx_cgmq.cost.bound import Bound, CostKind
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.data.source import open_data
from onnx_cgmq.errors import BoundError, VerificationError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.inspection import inspect
from onnx_cgmq.learn.calibrate import calibrate
from onnx_cgmq.learn.guide import Guide
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.preparation.prepare import prepare
from onnx_cgmq.settings import Target, load_target
from onnx_cgmq.settings.config import Config
from onnx_cgmq.writing.write_back import write_back
from tests.support.costs import GRAPHS, product_table, tables
from tests.support.toys import guided_steps, mlp, toy_data

pytestmark = pytest.mark.slow

FORMS = {
    "generic": "ort",
    "onnxruntime": "ort",
    "ort-cpu": "ort",
    "native": "native",
    "qonnx": "qonnx",
}


def with_table(name: str, table) -> Target:
    fields = load_target(name).model_dump(mode="json")
    return load_target({**fields, "cost": table.model_dump(mode="json")})


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    graph=st.sampled_from(["mlp", "convnet", "residual"]),
    name=st.sampled_from(list(FORMS)),
    granularity=st.sampled_from(["tensor", "channel"]),
    table=tables(),
    share=st.floats(0, 0.6),
    kernels=st.booleans(),
)
def test_all_costs_of_the_file_are_those_of_the_plan(
    graph, name, granularity, table, share, kernels
) -> None:
    target = with_table(name, table)
    config = Config.create(target=target, granularity=granularity, integer_kernels=kernels)
    model = GRAPHS[graph]()
    gated = insert_gates(prepare(model), config)
    costs, (least, _) = CostModel.of(gated, table), _minimum(gated, table)
    bounds = [
        Bound(kind, low + int(share * float(costs.cost(kind).float_cost - low)), kind.value, "pJ")
        for kind, low in zip(CostKind, least, strict=True)
    ]
    mirror = Mirror(gated)
    data = open_data(toy_data(model, 64), prepare(model))
    calibrate(mirror, data)
    guide = Guide(mirror, bounds, target=target, steps=4, interval=2)
    guided_steps(mirror, guide, data, 4)
    guide.settle(kernels)
    assert guide.satisfied
    plan = guide.plan()
    written = write_back(gated, plan, form=FORMS[name])
    check = verify(mirror, written, data, bound=bounds, target=target)
    assert check.bops == plan.cost.bops
    assert check.weight_bytes <= bounds[1].limit
    assert check.table_cost == plan.cost.table_cost
    assert check.peak_activation_bytes == plan.cost.peak_activation_bytes


def _minimum(gated, table):
    shares = [f"{kind.value}:100%" for kind in list(CostKind)[1:]]
    return CostModel.of(gated, table).budget(("100%", *shares)).minimum()


def test_quantize_keeps_several_bounds(tmp_path) -> None:
    target, output = with_table("generic", product_table()), tmp_path / "out.onnx"
    bounds = ("6%", "120B", "cost:5%", "activations:40%")
    data = toy_data(mlp())
    result = pipeline.quantize(mlp(), data, bounds, output=output, target=target, epochs=2)
    assert result.plan.bound == result.check.bound == ", ".join(bounds)
    cost, check = result.cost, result.check
    assert cost.weight_bytes <= 120
    assert cost.table_cost == check.table_cost == cost.bops <= 0.05 * 1024 * cost.macs
    assert cost.peak_activation_bytes == check.peak_activation_bytes
    assert {len(record["costs"]) for record in result.history} == {4}
    again = verify(mlp(), output, data, bound=result.plan.bound, target=target)
    assert again.within_bound
    report = inspect(output)
    assert sum(report.pairs.values()) == report.macs
    assert sum(i * j * count for (i, j), count in report.pairs.items()) == report.bops
    peak = report.peak_activation_bytes
    with pytest.raises(VerificationError, match=f"costs {peak} bytes of activations .* allows"):
        verify(mlp(), output, data, bound=f"activations:{peak - 1}B")
    with pytest.raises(BoundError, match="needs a target with a cost table"):
        verify(mlp(), output, data, bound="cost:5%")


def test_a_file_without_such_a_bound_says_nothing_of_activations(tmp_path) -> None:
    result = pipeline.quantize(mlp(), toy_data(mlp()), "6%", epochs=1)
    assert result.report.peak_activation_bytes is result.cost.peak_activation_bytes is None
    with pytest.raises(BoundError, match="does not say which activations"):
        verify(mlp(), result.model, toy_data(mlp()), bound="activations:1KB")


def test_one_bound_that_can_not_be_kept_stops_the_run() -> None:
    with pytest.raises(BoundError, match="bound 'activations:1B' is below what is possible"):
        pipeline.quantize(mlp(), toy_data(mlp()), ("50%", "activations:1B"))
