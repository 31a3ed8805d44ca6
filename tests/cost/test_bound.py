from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_cgmq.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.cost.bound import Bound, CostKind, CostModel, parse_bound
from onnx_cgmq.cost.macs import mac_ops
from onnx_cgmq.errors import BoundError
from onnx_cgmq.graph.gating.quantizer_spec import QuantizerSpec


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("0.4%", CostKind.BOPS, 4096),
        (" 0.4 % ", CostKind.BOPS, 4096),
        (0.25, CostKind.BOPS, 256_000),
        ("12.5MBOP", CostKind.BOPS, 12_500_000),
        ("3 kbops", CostKind.BOPS, 3000),
        ("1e6BOP", CostKind.BOPS, 1_000_000),
        ("2TBOPs", CostKind.BOPS, 2 * 10**12),
        ("200KB", CostKind.SIZE, 200_000),
        ("1.5MiB", CostKind.SIZE, 1_572_864),
        ("900 bytes", CostKind.SIZE, 900),
        ("size:25%", CostKind.SIZE, 1000),
        ("size:2KB", CostKind.SIZE, 2000),
    ],
)
def test_parse_bound(text, kind, limit) -> None:
    bound = parse_bound(text, macs=1000, float_bytes=4000)
    assert (bound.kind, bound.limit) == (kind, limit)


@pytest.mark.parametrize(
    "text",
    [
        *("", "%", "abc", "0.4", "nan%", "inf%", "0%", "-1%", "1..2%", "4XBOP", "size:3MBOP"),
        *(0.0, -0.1, float("nan"), float("inf")),
    ],
)
def test_parse_bound_refuses(text) -> None:
    with pytest.raises(BoundError, match=r"0\.4%"):
        parse_bound(text, macs=1000, float_bytes=4000)


def test_a_bound_passes_through() -> None:
    bound = Bound(CostKind.SIZE, 7, "7B")
    assert parse_bound(bound, 1, 1) is bound


def mlp(ladder: Ladder, granularity: Granularity):
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="fc1"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], name="fc2"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 6])],
        [value("y", TensorProto.FLOAT, [1, 2])],
        [
            helper.make_tensor("w1", TensorProto.FLOAT, (6, 4), np.zeros(24)),
            helper.make_tensor("w2", TensorProto.FLOAT, (4, 2), np.zeros(8)),
        ],
        value_info=[value("h", TensorProto.FLOAT, [1, 4])],
    )
    shapes = {"x": (1, 6), "w1": (6, 4), "h": (1, 4), "w2": (4, 2)}
    specs = {}
    for name, shape in shapes.items():
        weight = name.startswith("w")
        role = Role.WEIGHT if weight else Role.ACTIVATION
        form = GridForm.SYMMETRIC if weight else GridForm.UNSIGNED
        specs[name] = QuantizerSpec(name, role, form, granularity, ladder, shape, 1)
    return mac_ops(ir.from_proto(helper.make_model(graph))), specs


def test_minimum_and_refusal_below_it() -> None:
    ops, specs = mlp(Ladder(), Granularity.TENSOR)
    model, bound = CostModel.for_bound(ops, specs, "0.39%")
    assert model.minimum()[0] == 4 * (24 + 8)
    message = r"smallest is 128 bit operations \('0.391%'\).*fc1 \(75%: x x w1\)"
    with pytest.raises(BoundError, match=message):
        model.check_feasible(bound)
    model.check_feasible(parse_bound("0.391%", model.macs, 1))


def test_refusal_of_a_size() -> None:
    ops, specs = mlp(Ladder((4, 8)), Granularity.ELEMENT)
    model, bound = CostModel.for_bound(ops, specs, "15 B")
    with pytest.raises(BoundError, match=r"smallest is 16 bytes \('size:12.6%'\).*w1 \(75%"):
        model.check_feasible(bound)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    widths=st.sampled_from([(2,), (4, 8), (2, 4, 8, 16, 32), (8, 32)]),
    kind=st.sampled_from(["{}%", "size:{}%"]),
    share=st.floats(0.01, 20),
)
def test_the_smallest_bound_named_is_feasible_and_below_it_is_not(widths, kind, share) -> None:
    ops, specs = mlp(Ladder(widths), Granularity.TENSOR)
    model, bound = CostModel.for_bound(ops, specs, kind.format(f"{share:.4f}"))
    smallest, assignment = model.minimum()
    assert model.cost(assignment) == smallest
    if smallest <= bound.limit:
        model.check_feasible(bound)
        return
    with pytest.raises(BoundError) as refusal:
        model.check_feasible(bound)
    named = str(refusal.value).split("('")[1].split("')")[0]
    again, feasible = CostModel.for_bound(ops, specs, named)
    again.check_feasible(feasible)


def test_plan_cost_has_every_figure() -> None:
    ops, specs = mlp(Ladder(), Granularity.TENSOR)
    model, _ = CostModel.for_bound(ops, specs, "size:50%")
    cost = model.plan_cost({name: np.array(8) for name in specs})
    assert cost.bops == 64 * 32
    assert cost.rbop == 64 / 1024
    assert cost.macs == 32
    assert cost.weight_bytes == 32
    assert cost.bops_by_node == {"fc1": 64 * 24, "fc2": 64 * 8}


def test_marginal_of_size_is_shared_among_gates() -> None:
    ops, specs = mlp(Ladder(), Granularity.CHANNEL)
    model, _ = CostModel.for_bound(ops, specs, "size:50%")
    widths = {name: np.full(spec.gate_shape, 8) for name, spec in specs.items()}
    marginal = model.marginal(widths)
    assert set(marginal) == {"w1", "w2"}
    assert marginal["w1"].shape == (1, 4)
    assert marginal["w1"].sum() == 24 / 8
