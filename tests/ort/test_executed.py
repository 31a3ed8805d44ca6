"""Which operators onnxruntime runs for nodes, even if it changes their names."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.graph.operators import computes_on_codes
from onnx_cgmq.ort.executed import executed_operators


def model(body: str, weights: dict[str, tuple[int, ...]], x: str, y: str) -> onnx.ModelProto:
    signature = f"(float[{x}] x) => (float[{y}] y)"
    text = f'<ir_version: 10, opset_import: ["": 21]> g {signature} {{ {body} }}'
    parsed = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    parsed.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.normal(0, 1, shape).astype(np.float32), name)
        for name, shape in weights.items()
    )
    return parsed


CONV = model("c = Conv(x, w) y = Relu(c)", {"w": (8, 4, 3, 3)}, "n, 4, 9, 9", "n, 8, 7, 7")
BIASED = model("m = MatMul(x, w) y = Add(m, b)", {"w": (4, 5), "b": (5,)}, "n, 4", "n, 5")


def test_executed_operators_of_nodes_without_names_are_found() -> None:
    assert executed_operators(CONV)["c"] in ("Conv", "FusedConv")
    assert executed_operators(BIASED)["m"] == "Gemm"


def test_executed_operators_does_not_change_the_model() -> None:
    before = CONV.SerializeToString()
    executed_operators(CONV)
    assert CONV.SerializeToString() == before


def test_executed_operators_are_the_same_for_path_proto_and_graph(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(BIASED, path)
    external = tmp_path / "external.onnx"
    copy = onnx.load(path)  # saving with external data changes what is saved
    onnx.save(copy, external, save_as_external_data=True, location="data", size_threshold=0)
    expected = executed_operators(BIASED)
    assert executed_operators(path) == expected
    assert executed_operators(external) == expected
    assert executed_operators(load_model(external)) == expected


def test_folded_nodes_have_no_executed_operator() -> None:
    folded = model("a = Add(w, w) y = MatMul(x, a)", {"w": (4, 5)}, "n, 4", "n, 5")
    assert set(executed_operators(folded)) == {"y"}


def test_executed_operators_of_a_model_that_does_not_load_is_an_error() -> None:
    broken = model("y = NoSuchOperator(x)", {}, "n, 4", "n, 4")
    with pytest.raises(ModelError, match=r"can't load the model.*NoSuchOperator"):
        executed_operators(broken)


@pytest.mark.parametrize(
    ("operator", "integer"),
    [
        ("QLinearConv", True),
        ("QGemm", True),
        ("MatMulIntegerToFloat", True),
        ("QLinearAdd", True),
        ("MatMulNBits", False),
        ("FusedConv", False),
        ("QuantizeLinear", False),
    ],
)
def test_computes_on_codes_knows_integer_kernels(operator, integer) -> None:
    assert computes_on_codes(operator) is integer
