from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import DataError, ModelError, UnsupportedOperatorError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.preparation.prepare import prepare

LENET = """<ir_version: 9, opset_import: ["": 17]>
g (float[N,1,12,12] x) => (float[N,3] y)
<float[4,1,3,3] conv.w, float[4] conv_w, float[3,100] training, float[3] forward> {
  c = Conv(x, conv.w, conv_w)
  r = Relu(c)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  shape = Constant<value = int64[2] {0,-1}>()
  f = Reshape(p, shape)
  y = Gemm<transB=1>(f, training, forward)
}"""


def _model(text: str = LENET, seed: int = 0) -> onnx.ModelProto:
    """Parses a graph whose initializers are declared without values, and fills them."""
    generator = np.random.default_rng(seed)
    head, _, rest = text.partition("\n<float")
    names: list[tuple[str, list[int]]] = []
    if rest:
        declared, _, body = rest.partition("> {")
        for part in ("float" + declared).split(", "):
            kind, name = part.split(" ")
            names.append((name, [int(n) for n in kind[6:-1].split(",")]))
        safe = {name: name.replace(".", "__") for name, _ in names}
        for name, other in safe.items():
            body = body.replace(f" {name},", f" {other},")
        text = head + " {" + body
    model = onnx.parser.parse_model(text)
    for name, shape in names:
        array = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        for node in model.graph.node:
            for index, used in enumerate(node.input):
                if used == name.replace(".", "__"):
                    node.input[index] = name
    return model


def _image(batch: int = 2) -> Tensor:
    return torch.randn(batch, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def test_same_as_onnxruntime_for_any_batch() -> None:
    model = _model()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    mirror = Mirror(model)
    for batch in (1, 3):
        x = _image(batch)
        (expected,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(mirror({"x": x})["y"].detach().numpy(), expected, atol=1e-4)


def test_parameters_are_named_after_values_without_collisions() -> None:
    mirror = Mirror(_model())
    assert list(mirror.value_parameters) == ["conv.w", "conv_w", "training", "forward"]
    assert set(dict(mirror.named_parameters())) == {"conv_w", "conv_w_1", "training_1", "forward_1"}
    assert mirror.input_names == ("x",)
    assert mirror.output_names == ("y",)
    assert "conv_w_1" in mirror.state_dict()


def test_one_tensor_will_do_for_one_input() -> None:
    mirror = Mirror(_model())
    x = _image()
    assert torch.equal(mirror(x)["y"], mirror({"x": x})["y"])


def test_inputs_that_do_not_fit_are_named() -> None:
    mirror = Mirror(_model())
    with pytest.raises(DataError, match="inputs are x; got z"):
        mirror({"z": _image()})
    two = Mirror(
        onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17]>
        g (float[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }""")
    )
    with pytest.raises(DataError, match="2 inputs; pass a dict with a, b"):
        two(torch.zeros(2))


def test_a_failing_operator_is_named() -> None:
    with pytest.raises(ModelError, match=r"Gemm node '.*' \(opset 17\) failed"):
        Mirror(_model())(torch.zeros(1, 1, 20, 20))


def test_any_value_can_be_asked_for() -> None:
    mirror = Mirror(_model())
    x = _image()
    values = mirror.run({"x": x}, ["r", "x", "conv.w", "y"])
    assert list(values) == ["r", "x", "conv.w", "y"]
    assert values["r"].shape == (2, 4, 10, 10)
    assert values["x"] is x
    assert values["conv.w"] is mirror.value_parameters["conv.w"]
    with pytest.raises(ModelError, match="no value named 'nothing'"):
        mirror.run({"x": x}, ["nothing"])


def test_intermediate_values_are_dropped_after_their_last_use() -> None:
    mirror = Mirror(_model())
    with torch.no_grad():
        slots = mirror._execute({"x": _image()}, None)
    alive = [value for value in slots if isinstance(value, Tensor)]
    assert len(alive) == len(mirror.value_parameters) + len(mirror.output_names)


def test_all_unsupported_operators_are_named_at_once() -> None:
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17, "com.example": 3]>
        g (float[2] x) => (float[2] y) {
          [first] a = com.example.Mystery(x)
          [second] b = StringNormalizer(a)
          [third] c = com.example.Mystery(a)
          [fourth] d = Dropout(c)
          [fifth] y = Cast<to=17>(d)
        }""")
    with pytest.raises(UnsupportedOperatorError) as caught:
        Mirror(model)
    message = str(caught.value)
    assert (
        "Mystery (com.example opset 3): no such operator in the mirror; nodes first, third"
        in message
    )
    assert "StringNormalizer (ai.onnx opset 17)" in message
    assert "no tensors of type FLOAT8E4M3FN; node fifth" in message
    assert "Dropout" not in message


def test_opsets_that_are_too_old_are_refused() -> None:
    model = onnx.parser.parse_model("""<ir_version: 3, opset_import: ["": 5]>
        g (float[2] x) => (float[2] y) { y = Add(x, x) }""")
    with pytest.raises(UnsupportedOperatorError, match="before 6 must be upgraded"):
        Mirror(model)


def test_the_callers_model_is_not_changed() -> None:
    model = ir.serde.deserialize_model(_model())
    mirror = Mirror(model)
    with torch.no_grad():
        for parameter in mirror.parameters():
            parameter.zero_()
    assert mirror.model is not model
    assert model.graph.initializers["conv.w"].const_value.numpy().any()


def test_constants_are_held_as_what_they_are_used_for() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        g (float[2,2] x) => (float[2,2] y, int64[2] k) {
          w = Constant<value = float[2,2] {1.0, 2.0, 3.0, 4.0}>()
          low = Constant<value_float = 0.5>()
          index = Constant<value_ints = [1, 0]>()
          k = Identity(index)
          m = MatMul(x, w)
          g = Gather(m, index)
          y = Clip(g, low)
        }""")
    mirror = Mirror(model)
    assert list(mirror.value_parameters) == ["w"]
    assert [name for name, _ in mirror.named_buffers()] == ["index"]
    assert list(mirror.state_dict()) == ["w"]
    y = mirror(torch.eye(2))
    assert y["y"].tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert y["k"].tolist() == [1, 0]


def test_shapes_may_be_computed() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
        g (float[N,2,3] x) => (float[N,6] y) {
          s = Shape(x)
          zero = Constant<value_ints = [0]>()
          rest = Constant<value_ints = [-1]>()
          n = Gather(s, zero)
          t = Concat<axis=0>(n, rest)
          y = Reshape(x, t)
        }""")
    assert Mirror(model)(torch.zeros(5, 2, 3))["y"].shape == (5, 6)


def test_convolutions_run_in_channels_last() -> None:
    mirror = Mirror(_model())
    pooled = mirror.run(_image(), ["p"])["p"]
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_copies_conversions_and_state() -> None:
    mirror = Mirror(_model())
    x = _image()
    expected = mirror(x)["y"]
    assert torch.equal(copy.deepcopy(mirror)(x)["y"], expected)
    other = Mirror(_model(seed=1))
    assert not torch.equal(other(x)["y"], expected)
    other.load_state_dict(mirror.state_dict())
    assert torch.equal(other(x)["y"], expected)
    assert mirror.double()(x.double())["y"].dtype is torch.float64


@pytest.mark.slow
def test_compiles_to_one_graph() -> None:
    mirror = Mirror(_model())
    compiled = torch.compile(mirror, fullgraph=True, backend="eager")
    x = _image()
    torch.testing.assert_close(compiled({"x": x})["y"], mirror(x)["y"])


# -- quantizers -----------------------------------------------------------------------------------


def _gated() -> tuple[ir.Model, QuantizerSpec]:
    """``y = x @ Q(w) + accumulator(b)`` with the weight at 2 bits."""
    ladder = Ladder()
    spec = QuantizerSpec(
        "w", Role.WEIGHT, GridForm.SYMMETRIC, Granularity.TENSOR, ladder, shape=(2, 3)
    )
    model = ir.serde.deserialize_model(
        onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21, "onnx_cgmq": 1]>
        g (float[1,2] x) => (float[1,3] y) {
          q, step = onnx_cgmq.GatedQDQ_test(w, w_high, w_gate)
          one = Constant<value_float = 0.5>()
          b_q = onnx_cgmq.AccumulatorQDQ(b, one, step)
          y = Gemm(x, q, b_q)
        }""")
    )
    arrays = {
        "w": np.array([[1.0, -0.2, 0.6], [0.0, 3.0, -3.0]], np.float32),
        "b": np.array([0.3, -0.1, 0.0], np.float32),
        "w_high": np.full(4, 1.5, np.float32),
        "w_gate": np.float32(ladder.gate_of(2)),
    }
    for name, array in arrays.items():
        value = next(v for node in model.graph for v in node.inputs if v and v.name == name)
        value.const_value = ir.tensor(array, name=name)
        model.graph.initializers[name] = value
    node = next(node for node in model.graph if node.op_type == "GatedQDQ_test")
    node.metadata_props["onnx_cgmq.quantizer"] = spec.to_json()
    return model, spec


def test_gated_nodes_become_quantizers() -> None:
    model, spec = _gated()
    mirror = Mirror(model)
    assert list(mirror.quantizers) == ["w"]
    quantizer = mirror.quantizers["w"]
    assert isinstance(quantizer, GatedQuantizer)
    assert quantizer.spec == spec
    assert list(mirror.value_parameters) == ["w", "b", "one"]
    values = mirror.run(torch.ones(1, 2), ["q", "step", "b_q"])
    # two bits over [-1.5, 1.5]: the levels -1, 0 and 1
    assert values["q"].tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]]
    assert values["step"].item() == 1.0
    assert values["b_q"].tolist() == [0.5, 0.0, 0.0]
    mirror(torch.ones(1, 2))["y"].sum().backward()
    assert mirror.value_parameters["w"].grad is not None


def test_a_copy_has_its_own_quantizers() -> None:
    model, spec = _gated()
    mirror = Mirror(model)
    other = copy.deepcopy(mirror)
    other.quantizers["w"].set_gate(torch.tensor(spec.ladder.gate_of(32)))
    x = torch.ones(1, 2)
    assert mirror.run(x, ["q"])["q"].tolist() != other.run(x, ["q"])["q"].tolist()


@pytest.mark.parametrize("broken", ["metadata", "gate"])
def test_broken_quantizers_are_named(broken: str) -> None:
    model, _ = _gated()
    node = next(node for node in model.graph if node.op_type == "GatedQDQ_test")
    if broken == "metadata":
        node.metadata_props.clear()
        message = "has no 'onnx_cgmq.quantizer'"
    else:
        node.replace_input_with(2, model.graph.inputs[0])
        message = "must be initializers, but x"
    with pytest.raises(ModelError, match=message):
        Mirror(model)


@pytest.mark.parametrize("granularity", list(Granularity))
def test_what_was_learned_is_a_model_that_onnxruntime_runs_and_a_mirror_goes_on_from(
    granularity: Granularity,
) -> None:
    gated = insert_gates(_model(), granularity=granularity)
    mirror = Mirror(gated)
    generator = np.random.default_rng(0)
    image = _image(8)
    for quantizer in mirror.quantizers.values():
        quantizer.fit(mirror.run(image, [quantizer.spec.tensor])[quantizer.spec.tensor])
        widths = generator.choice([2, 4, 8], quantizer.spec.gate_shape)
        quantizer.set_gate(quantizer.gate_for(np.asarray(widths)))
    with torch.no_grad():
        for parameter in mirror.value_parameters.values():
            parameter.mul_(1.1)
        expected = mirror(image)["y"]
    model = mirror.to_model()
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), _without_optimizations()
    )
    (y,) = session.run(None, {"x": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(Mirror(model)(image)["y"], expected)


def _without_optimizations() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def test_tensors_are_shown_before_rounding_and_only_in_the_block() -> None:
    model = prepare(_model())
    gated = Mirror(insert_gates(model, widths=(2, 4), target="generic"))
    x = {"x": torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))}
    names = gated.tensors_of(Role.ACTIVATION)
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad():
        with gated.shown({name: seen[name].append for name in names}):
            gated(x)
        wanted = gated.run(x, names)
    assert names
    for name in names:
        assert len(seen[name]) == 1
        assert torch.equal(seen[name][0], wanted[name])
