"""A file must not lie: widths, sizes and bytes are only believed where they must hold."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_cgmq.contract.identifiers import PLAN_KEY
from onnx_cgmq.contract.plan import PLAN_VERSION
from onnx_cgmq.errors import ModelError
from onnx_cgmq.inspection import inspect
from tests.support.foreign import foreign_model

node = helper.make_node
RNG = np.random.default_rng(0)
W = RNG.normal(size=(32, 8)).astype(np.float32)
SIZES = np.abs(W)
SIGNS = helper.make_tensor("c", TensorProto.INT4, W.shape, np.sign(W).astype(int).flatten())
SIGNS_IN_A_ROW = helper.make_tensor("c", TensorProto.INT4, [W.size], np.sign(W).astype(int).ravel())
ONE, TWO_D = np.float32(1), np.array([32, 8])

FORGED = {
    "a step for each element": (
        [node("Cast", ["c"], ["f"], to=1), node("Mul", ["f", "s"], ["w"])],
        {"c": SIGNS, "s": SIZES},
    ),
    "the step first": (
        [node("Cast", ["c"], ["f"], to=1), node("Mul", ["s", "f"], ["w"])],
        {"c": SIGNS, "s": SIZES},
    ),
    "blocks of one": (
        [node("DequantizeLinear", ["c", "s"], ["w"], axis=0, block_size=1)],
        {"c": SIGNS, "s": SIZES},
    ),
    "an offset for each element": (
        [
            node("Cast", ["c"], ["f"], to=1),
            node("Sub", ["f", "z"], ["o"]),
            node("Mul", ["o", "s"], ["w"]),
        ],
        {"c": SIGNS, "z": -W, "s": ONE},
    ),
    "a step for each channel of one element": (
        [
            node("DequantizeLinear", ["c", "s"], ["row"], axis=0),
            node("Reshape", ["row", "shape"], ["w"]),
        ],
        {"c": SIGNS_IN_A_ROW, "s": SIZES.ravel(), "shape": TWO_D},
    ),
    "parts of one element": (
        [
            *(node("DequantizeLinear", [f"c{i}", f"s{i}"], [f"d{i}"]) for i in range(W.size)),
            node("Concat", [f"d{i}" for i in range(W.size)], ["row"], axis=0),
            node("Reshape", ["row", "shape"], ["w"]),
        ],
        {f"c{i}": np.sign(W).astype(np.int8).ravel()[i : i + 1] for i in range(W.size)}
        | {f"s{i}": SIZES.ravel()[i] for i in range(W.size)}
        | {"shape": TWO_D},
    ),
    "one column of many": (
        [
            node("DequantizeLinear", ["c", "s"], ["rows"], axis=0),
            node("Gather", ["rows", "first"], ["column"], axis=1),
            node("Reshape", ["column", "shape"], ["w"]),
        ],
        {
            "c": np.repeat(np.sign(W).astype(np.int8).reshape(-1, 1), 16, axis=1),
            "s": SIZES.ravel(),
            "first": np.array([0]),
            "shape": TWO_D,
        },
    ),
    "a float weight behind an operator, quantized for each element": (
        [
            node("Identity", ["v"], ["v2"]),
            node("Flatten", ["v2"], ["v3"], axis=0),
            node("Reshape", ["v3", "row"], ["v4"]),
            node("QuantizeLinear", ["v4", "s"], ["q"], axis=0, output_dtype=TensorProto.INT4),
            node("DequantizeLinear", ["q", "s"], ["d"], axis=0),
            node("Reshape", ["d", "shape"], ["w"]),
        ],
        {"v": W, "s": SIZES.ravel(), "row": np.array([-1]), "shape": TWO_D},
    ),
}


def product_with(nodes, constants) -> onnx.ModelProto:
    last = node("MatMul", ["x", "w"], ["y"], name="mac")
    return foreign_model([*nodes, last], constants, ("n", 32))


@pytest.mark.parametrize("name", FORGED)
def test_weights_whose_steps_hold_their_values_are_float(name) -> None:
    report = inspect(product_with(*FORGED[name]))
    assert report.rbop == 1
    assert any("a step or an offset of its own" in note for note in report.notes)
    assert report.weight_bytes >= W.size * 4  # the steps are the weight


@pytest.mark.parametrize(
    ("axis", "columns", "width"), [(1, 8, 4), (0, 8, 32), (0, 16, 4), (1, 1, 4)]
)
def test_steps_of_output_channels_are_believed_however_few_share_one(axis, columns, width) -> None:
    """Each multiplies what an integer kernel added up; those of inputs must be shared."""
    codes = helper.make_tensor("c", TensorProto.INT4, [32, columns], [3] * 32 * columns)
    nodes = [node("DequantizeLinear", ["c", "s"], ["w"], axis=axis)]
    scale = np.ones((32, columns)[axis], np.float32)
    report = inspect(product_with(nodes, {"c": codes, "s": scale}))
    assert report.bops == report.macs * 32 * width


def test_blocks_of_sixteen_are_believed() -> None:
    nodes = [node("DequantizeLinear", ["c", "s"], ["w"], axis=0, block_size=16)]
    report = inspect(product_with(nodes, {"c": SIGNS, "s": np.ones((2, 8), np.float32)}))
    assert (report.bops, report.notes) == (report.macs * 32 * 4, ())


def with_plan(model: onnx.ModelProto, entry: dict, names: dict | None = None) -> onnx.ModelProto:
    fields = {"version": PLAN_VERSION, "bound": "1%", "ladder": [2, 4, 8], "names": names or {}}
    text = json.dumps({**fields, "tensors": {"w": entry}})
    model.metadata_props.add(key=PLAN_KEY, value=text)
    return model


def test_a_plan_with_a_step_for_each_element_is_not_believed() -> None:
    widths = [[32, 8], "2" * W.size]
    entry = {"granularity": "element", "grid_width": 32, "widths": widths, "step": SIZES.tolist()}
    assert inspect(with_plan(product_with([], {"w": W}), entry)).rbop == 1
    entry["step"] = [[0.5]]
    on_grid = (np.sign(W) * 0.5).astype(np.float32)
    assert inspect(with_plan(product_with([], {"w": on_grid}), entry)).rbop == 2 / 32


def test_a_weight_that_callers_may_override_is_no_constant() -> None:
    entry = {"granularity": "element", "grid_width": 32, "widths": 2, "step": 0.5}
    model = with_plan(product_with([], {"w": (np.sign(W) / 2).astype(np.float32)}), entry)
    assert inspect(model).rbop == 2 / 32
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [32, 8]))
    assert inspect(model).rbop == 1


def test_a_limit_that_callers_may_override_is_none() -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Clip", ["q", "z", "most"], ["c"]),
        node("DequantizeLinear", ["c", "s", "z"], ["xq"]),
        node("MatMul", ["xq", "w"], ["y"]),
    ]
    constants = {"s": ONE, "z": np.uint8(0), "most": np.uint8(3), "w": W}
    model = foreign_model(nodes, constants, ("n", 32))
    assert inspect(model).rbop == 2 / 32
    model.graph.input.append(helper.make_tensor_value_info("most", TensorProto.UINT8, []))
    report = inspect(model)
    assert report.rbop == 8 / 32
    assert any("callers may override" in note and "most" in note for note in report.notes)


def test_a_plan_may_not_call_a_value_by_the_name_of_another() -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("MatMul", ["r", "w"], ["y"])]
    for names in ({"r": "x"}, {"r": "w"}, {"x": "a"}, {"r": "a", "w": "a"}):
        with pytest.raises(ModelError, match="bit plan in the model's metadata"):
            inspect(with_plan(foreign_model(nodes, {"w": W}, ("n", 32)), {}, names))


def convolution(*declared: onnx.ValueInfoProto) -> onnx.ModelProto:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Conv", ["r", "k"], ["c"], pads=[1] * 4, name="mac"),
        node("GlobalAveragePool", ["c"], ["y"]),
    ]
    kernel = np.ones((4, 3, 3, 3), np.float32)
    model = foreign_model(nodes, {"k": kernel}, (1, 3, 16, 16))
    model.graph.value_info.extend(declared)
    return model


def test_declared_sizes_are_not_believed() -> None:
    small = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 3, 1, 1])
    assert inspect(convolution(small)).macs == inspect(convolution()).macs == 27 * 4 * 256


def test_declared_sizes_that_nothing_contradicts_are_told() -> None:
    """The size of what NonZero finds is only known when it runs."""
    nodes = [
        node("NonZero", ["x"], ["i"]),
        node("Cast", ["i"], ["f"], to=1),
        node("Transpose", ["f"], ["t"]),
        node("MatMul", ["t", "w"], ["y"], name="mac"),
    ]
    model = foreign_model(nodes, {"w": W[:2]}, (1, 5))
    assert "leaves open" in inspect(model).notes[0]
    info = helper.make_tensor_value_info("t", TensorProto.FLOAT, [3, 2])
    model.graph.value_info.append(info)
    report = inspect(model)
    assert report.macs == 3 * 2 * 8
    assert report.notes == ("sizes that do not follow from the inputs are as the file says: mac",)


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        ([node("Identity", ["v"], ["w"])], {}),
        ([node("Neg", ["v"], ["w"])], {}),
        ([node("Cast", ["v"], ["h"], to=10), node("Cast", ["h"], ["w"], to=1)], {}),
        ([node("Add", ["v", "u"], ["w"])], {"u": W}),
        ([node("Concat", ["v", "u"], ["w"], axis=1)], {"u": W}),
        ([node("Where", ["m", "v", "u"], ["w"])], {"u": W, "m": W > 0}),
    ],
)
def test_weights_behind_operators_count_their_bytes(nodes, more) -> None:
    constants = {"v": W, **more}
    report = inspect(product_with(nodes, constants))
    assert report.weight_bytes == sum(array.nbytes for array in constants.values())


def test_constants_that_nothing_counted_reads_are_counted_as_others() -> None:
    nodes = [node("Add", ["x", "big"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    big = np.ones((1000, 32), np.float32)
    report = inspect(foreign_model(nodes, {"big": big, "w": W}, (1000, 32)))
    assert (report.weight_bytes, report.other_bytes) == (W.nbytes, big.nbytes)
    assert any("constants of 128,000 bytes" in note for note in report.notes)


SPELLED = {
    "a constant matrix": [
        node("Unsqueeze", ["h", "two"], ["u"]),
        node("Mul", ["u", "big"], ["m"]),
        node("ReduceSum", ["m", "one"], ["y"], keepdims=0),
    ],
    "two activations": [
        node("Unsqueeze", ["h", "two"], ["u"]),
        node("Unsqueeze", ["h", "one"], ["v"]),
        node("Mul", ["u", "v"], ["m"]),
        node("ReduceMean", ["m", "one"], ["y"], keepdims=0),
    ],
    "a dot product": [
        node("Sin", ["h"], ["a"]),
        node("Cos", ["x"], ["b"]),
        node("MatMul", ["b", "w"], ["c"]),
        node("Mul", ["a", "c"], ["m"]),
        node("Transpose", ["m"], ["t"]),
        node("ReduceSum", ["t", "zero"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", SPELLED)
def test_products_that_are_spelled_out_are_told(name) -> None:
    constants = {
        "w": W,
        "big": np.ones((8, 100), np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
    }
    nodes = [node("MatMul", ["x", "w"], ["h"]), *SPELLED[name]]
    report = inspect(foreign_model(nodes, constants, (1, 32)))
    assert any("multiplications that are not counted" in note for note in report.notes)


def test_gates_and_scales_are_no_products_of_matrices() -> None:
    """As a hard swish, squeeze and excitation, and a scale of channels before average pooling."""
    nodes = [
        node("Conv", ["x", "k"], ["c"]),
        node("HardSigmoid", ["c"], ["g"]),
        node("Mul", ["c", "g"], ["h"]),
        node("GlobalAveragePool", ["h"], ["p"]),
        node("Mul", ["p", "gamma"], ["q"]),
        node("Mul", ["h", "q"], ["e"]),
        node("Conv", ["e", "k"], ["y"]),
    ]
    constants = {"k": np.ones((4, 4, 3, 3), np.float32), "gamma": np.ones((4, 1, 1), np.float32)}
    assert inspect(foreign_model(nodes, constants, (1, 4, 8, 8))).notes == ()


def test_a_graph_that_parts_and_joins_is_read_in_time() -> None:
    """Each Concat reads the one before twice, in two ways: 2**40 paths."""
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    nodes.append(node("DequantizeLinear", ["q", "s", "z"], ["k0"]))
    for i in range(40):
        nodes += [
            node("Identity", [f"k{i}"], [f"i{i}"]),
            node("Concat", [f"k{i}", f"i{i}"], [f"b{i}"], axis=0),
            node("Slice", [f"b{i}", "start", "end"], [f"k{i + 1}"]),
        ]
    nodes.append(node("MatMul", ["k40", "w"], ["y"]))
    constants = {"s": ONE, "z": np.uint8(0), "w": W, "start": np.array([0]), "end": np.array([1])}
    assert inspect(foreign_model(nodes, constants, (1, 32))).rbop == 8 / 32


def test_graphs_that_make_no_sense_are_refused() -> None:
    codes = numpy_helper.from_array(np.ones((32, 8), np.int8), "c")
    model = product_with(
        [node("Cast", ["c"], ["k"], to=35), node("DequantizeLinear", ["k", "s"], ["w"])],
        {"c": codes, "s": ONE},
    )
    with pytest.raises(ModelError, match="Cast of output 'k': there is no type 35"):
        inspect(model)
    deep = [node("Identity", ["x" if i == 0 else f"d{i}"], [f"d{i + 1}"]) for i in range(3000)]
    model = foreign_model([*deep, node("MatMul", ["d3000", "w"], ["y"])], {"w": W}, ("n", 32))
    with pytest.raises(ModelError, match="RecursionError"):
        inspect(model)
