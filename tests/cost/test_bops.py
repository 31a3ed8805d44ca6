from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnx_cgmq.cost.bops import bops, marginal_bops, total_bops, total_macs
from onnx_cgmq.cost.macs import mac_ops


def small_model() -> ir.Model:
    """Conv, Relu, Conv (grouped, strided), Flatten, Gemm, and a product of two activations."""
    weights = {"w1": (4, 2, 3, 3), "w2": (4, 2, 3, 3), "w3": (5, 36)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node(
            "Conv", ["r1", "w2"], ["c2"], name="conv2", group=2, pads=[1] * 4, strides=[2, 2]
        ),
        helper.make_node("Flatten", ["c2"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["g"], name="fc", transB=1),
        helper.make_node("MatMul", ["r1", "r1"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 6, 6])],
        [
            helper.make_tensor_value_info("g", TensorProto.FLOAT, ["n", 5]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 6, 6]),
        ],
        [
            helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(np.prod(shape)))
            for name, shape in weights.items()
        ],
        value_info=[
            helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["n", 4, 6, 6]),
            helper.make_tensor_value_info("f", TensorProto.FLOAT, ["n", 36]),
        ],
    )
    opsets = [helper.make_opsetid("", 20)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets))


def test_missing_widths_are_float() -> None:
    ops = mac_ops(small_model())
    assert total_bops(ops, {}) == 1024 * total_macs(ops)
    assert bops(ops, {})["fc"] == 1024 * 5 * 36


def test_macs_counted_by_hand() -> None:
    macs = {op.node: op.macs for op in mac_ops(small_model())}
    assert macs == {
        "conv1": 36 * 4 * 2 * 9,
        "conv2": 9 * 4 * 2 * 9,
        "fc": 5 * 36,
        "product": 4 * 6 * 6 * 6,
    }


@pytest.mark.parametrize("granularity", ["tensor", "channel", "element"])
def test_marginal_bops_are_the_change_by_one_bit(granularity) -> None:
    ops = mac_ops(small_model())
    rng = np.random.default_rng(0)
    shapes = {
        "x": {"tensor": (), "channel": (1, 2, 1, 1), "element": (1, 2, 6, 6)},
        "w1": {"tensor": (), "channel": (4, 1, 1, 1), "element": (4, 2, 3, 3)},
        "w2": {"tensor": (), "channel": (4, 1, 1, 1), "element": (4, 2, 3, 3)},
        "f": {"tensor": (), "channel": (1, 36), "element": (1, 36)},
        "w3": {"tensor": (), "channel": (5, 1), "element": (5, 36)},
    }
    widths = {name: rng.choice([2, 4, 8], size=s[granularity]) for name, s in shapes.items()}
    before = total_bops(ops, widths)
    marginal = marginal_bops(ops, widths)
    assert set(marginal) == set(widths)
    for name, array in widths.items():
        assert marginal[name].shape == array.shape
        for index in {0, array.size // 2, array.size - 1}:
            moved = array.copy().reshape(-1)
            moved[index] += 1
            after = total_bops(ops, {**widths, name: moved.reshape(array.shape)})
            assert after - before == marginal[name].reshape(-1)[index]


def test_marginal_bops_of_a_tensor_multiplied_by_itself_add_up() -> None:
    ops = mac_ops(small_model())
    product = [op for op in ops if op.node == "product"]
    marginal = marginal_bops(product, {"r1": np.array(4)})
    assert marginal["r1"] == 2 * 4 * product[0].macs


SHAPES = {"w1": (4, 2, 3, 3), "w2": (5, 100)}


def by_qonnx() -> tuple[float, float]:
    """What the installed QONNX counts: MACs, and bit operations."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.inference_cost import inference_cost

    scalars = {"s": 0.1, "z": 0.0, "bits_w": 4.0, "bits_x": 2.0}
    quantizer = {"domain": "qonnx.custom_op.general", "narrow": 0, "rounding_mode": "ROUND"}
    nodes = [
        helper.make_node("Quant", ["x", "s", "z", "bits_x"], ["xq"], signed=0, **quantizer),
        helper.make_node("Quant", ["w1", "s", "z", "bits_w"], ["w1q"], signed=1, **quantizer),
        helper.make_node(
            "Conv",
            ["xq", "w1q"],
            ["c"],
            name="conv",
            kernel_shape=[3, 3],
            pads=[0, 1, 0, 1],
            group=1,
        ),
        helper.make_node("Quant", ["c", "s", "z", "bits_x"], ["cq"], signed=0, **quantizer),
        helper.make_node("Reshape", ["cq", "shape"], ["f"]),
        helper.make_node("Quant", ["w2", "s", "z", "bits_w"], ["w2q"], signed=1, **quantizer),
        helper.make_node("Gemm", ["f", "w2q"], ["y"], name="fc", transB=1),
    ]
    graph = conv_and_gemm(nodes)
    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.FLOAT, (), [v]) for name, v in scalars.items()
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(quantizer["domain"], 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    cost = inference_cost(ModelWrapper(model), discount_sparsity=False)["total_cost"]
    return cost["total_macs"], cost["total_bops"]


# Said by `by_qonnx` with qonnx 1.0.0. Where QONNX is installed (pip install -e '.[compare]'), it is
# asked again.
QONNX = {"frozen": lambda: (2300.0, 18400.0)}
if find_spec("qonnx") is not None:
    QONNX["installed"] = by_qonnx


@pytest.mark.parametrize("source", QONNX)
def test_uniform_widths_equal_qonnx(source) -> None:
    """An independent count: QONNX's cost of a graph with quantizers of one width."""
    graph = conv_and_gemm(
        [
            helper.make_node("Conv", ["x", "w1"], ["c"], name="conv", pads=[0, 1, 0, 1]),
            helper.make_node("Reshape", ["c", "shape"], ["f"]),
            helper.make_node("Gemm", ["f", "w2"], ["y"], name="fc", transB=1),
        ]
    )
    graph.value_info.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [1, 100]))
    ops = mac_ops(ir.from_proto(helper.make_model(graph)))
    two, four = np.array(2), np.array(4)
    widths = {"x": two, "f": two, "w1": four, "w2": four}
    assert (total_macs(ops), total_bops(ops, widths)) == QONNX[source]()


def conv_and_gemm(nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
    rng = np.random.default_rng(0)
    initializers = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, rng.uniform(1, 2, shape).ravel())
        for name, shape in SHAPES.items()
    ]
    initializers.append(helper.make_tensor("shape", TensorProto.INT64, (2,), [1, 100]))
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 7, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        initializers,
    )
