from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.cost.bound import CostKind
from onnx_cgmq.cost.model import CostModel
from onnx_cgmq.cost.size import Storage
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.writing.storage import WeightTypes
from tests.support.toys import CLASSES, make_model


def spec(name, role, shape, granularity=Granularity.ELEMENT) -> QuantizerSpec:
    form = GridForm.UNSIGNED if role is Role.ACTIVATION else GridForm.SYMMETRIC
    return QuantizerSpec(name, role, form, granularity, Ladder(), shape, 0)


NEWEST = Storage()


def test_a_weight_is_stored_on_its_widest_grid() -> None:
    weight = spec("w", Role.WEIGHT, (3, 5))
    widths = np.full((3, 5), 2)
    assert NEWEST.stored_bits(weight, widths) == 30
    widths[1, 2] = 8
    assert NEWEST.stored_bits(weight, widths) == 120


def test_older_opsets_lack_the_narrow_types() -> None:
    weight, widths = spec("w", Role.WEIGHT, (3, 5)), np.full((3, 5), 2)
    assert Storage(WeightTypes(23)).stored_bits(weight, widths) == 60
    assert Storage(WeightTypes(20)).stored_bits(weight, widths) == 120


def test_pruned_weights_take_the_narrowest_type() -> None:
    pruned = np.zeros((3, 5), dtype=np.int64)
    assert NEWEST.stored_bits(spec("w", Role.WEIGHT, (3, 5)), pruned) == 30


def test_biases_take_32_bits_and_activations_none() -> None:
    assert NEWEST.stored_bits(spec("b", Role.BIAS, (5,)), np.full(5, 2)) == 160
    assert NEWEST.stored_bits(spec("x", Role.ACTIVATION, (1, 5)), np.full((1, 5), 2)) == 0


def test_totals_are_whole_bytes_per_tensor() -> None:
    specs = {
        "w": spec("w", Role.WEIGHT, (3, 5)),
        "b": spec("b", Role.BIAS, (5,)),
        "x": spec("x", Role.ACTIVATION, (1, 5)),
    }
    widths = {"w": np.array(2)}
    assert NEWEST.tensor_bytes(specs, widths) == {"w": 4, "b": 20}
    assert NEWEST.total_bytes(specs, widths) == 24
    assert Storage(ungated=100).total_bytes(specs, {}) == 180


def one_bias_for_all() -> onnx.ModelProto:
    """Three layers that add the same bias."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.6, (CLASSES, CLASSES)) for name in ("w1", "w2", "w3")}
    nodes, x = [], "x"
    for number, weight in enumerate(weights, 1):
        nodes.append(helper.make_node("Gemm", [x, weight, "b"], [f"h{number}"], name=f"fc{number}"))
        x = f"r{number}" if number < 3 else "y"
        nodes.append(helper.make_node("Relu", [f"h{number}"], [x], name=f"relu{number}"))
    return make_model(nodes, {**weights, "b": rng.normal(0, 0.1, CLASSES)}, [CLASSES])


def test_a_shared_bias_counts_once_for_each_accumulator() -> None:
    gated = insert_gates(one_bias_for_all())
    storage, specs = Storage.of(gated), CostModel.of(gated).specs
    assert storage.copies == {"b": 3}
    assert storage.tensor_bytes(specs, {})["b"] == 3 * 4 * CLASSES
    float_cost = CostModel.of(gated).cost(CostKind.SIZE).float_cost
    assert float_cost == 4 * (3 * CLASSES**2 + CLASSES)


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_a_bound_on_the_size_holds_with_a_shared_bias(target) -> None:
    x = np.random.default_rng(0).normal(size=(64, CLASSES)).astype(np.float32)
    bound = 3 * 4 * CLASSES + 20  # bytes: all copies of the bias, and weights of few bits
    result = quantize(one_bias_for_all(), {"x": x}, f"{bound}B", target=target, epochs=1)
    assert result.report.weight_bytes <= result.cost.weight_bytes <= bound


def test_weights_that_a_branch_computes_count_as_in_the_file() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[n, 8] x) => (float[n, 8] y)
        <float zero = {0}> {
            [first] h = MatMul (x, w)
            total = ReduceSum <keepdims = 0> (h)
            positive = Greater (total, zero)
            y = If (positive) <
                then_branch = t () => (a) { u = Transpose (v)  s = Neg (u)  a = MatMul (h, s) },
                else_branch = e () => (b) { b = Identity (h) }>
        }"""
    )
    for name in ("w", "v"):
        values = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    storage = Storage.of(insert_gates(model, target="generic"))
    assert storage.ungated == 4 * 64
    x = np.random.default_rng(1).normal(size=(32, 8)).astype(np.float32)
    result = quantize(model, {"x": x}, "size:65%", target="generic", epochs=1)
    assert result.cost.weight_bytes == result.report.weight_bytes <= 0.65 * 2 * 4 * 64
