"""Weights of matrix products are written packed where onnxruntime multiplies them so."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from onnx_cgmq.contract.bits import BLOCK_SIZES
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.predicted_kernels import Kernel
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes
from onnx_cgmq.inspection import inspect
from onnx_cgmq.inspection.kernel_differences import kernel_differences
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.mirror.quantizers.tensor_plans import tensor_plan
from onnx_cgmq.writing.write_back import Written, write
from tests.support.convolutions import run
from tests.support.plans import make_plan

SHAPES = {
    "a": (32, 64),
    "wide": (64, 48),
    "b": (48, 40),
    "gemm": (40, 32),
    "c": 32,
    "linear": (6, 32),
    "d": 6,
}


def products() -> onnx.ModelProto:
    """MatMul and Gemm in each layout, with and without Relu behind; the last has 6 columns."""
    return with_weights(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n, 32] x) => (float[n, 6] y) {
            [first] h = MatMul(x, a)
            [second] i = MatMul(h, wide)
            [relu] r = Relu(i)
            [third] j = MatMul(r, b)
            [fourth] k = Gemm(j, gemm, c)
            [last] y = Gemm<transB=1>(k, linear, d)
        }""",
        SHAPES,
    )


def with_weights(text: str, shapes) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    model.graph.initializer.extend(
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    return model


def gated_at(
    model: onnx.ModelProto, width: int, weight_kernels: bool = True, **settings
) -> tuple[ir.Model, Written]:
    """The gated model, and the same written, with all weights at one width."""
    gated = insert_gates(model, target="ort-weights", **settings)
    widths = {
        name: np.array(width if width in spec.ladder.widths else 32)
        for name, (_, spec) in quantizer_nodes(gated).items()
    }
    return gated, write(gated, make_plan(gated, widths), weight_kernels=weight_kernels)


def kernels(written: Written) -> dict[str, Kernel | None]:
    return {node.name: node.kernel for node in inspect(written.model, kernels=True).nodes}


def assert_computes_the_same(gated: ir.Model, written: Written, shape=(7, 32)) -> None:
    """Without optimizations the same as the gated model; with them, but for rounded activations."""
    x = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    wanted = run(gated, x, optimize=False)
    largest = np.abs(wanted).max()
    for optimize, share in ((False, 1e-5), (True, 0.03)):
        found = run(written.model, x, optimize)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=share * largest)


@pytest.mark.parametrize("ranges", ["tensor", "channel"])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_onnxruntime_multiplies_the_packed_weights(width, ranges):
    gated, written = gated_at(products(), width, weight_ranges=ranges)
    expected = dict.fromkeys(("first", "second", "third", "fourth", "last"), Kernel.PACKED)
    if width == 2:
        expected["last"] = Kernel.FLOAT  # 6 columns
    assert kernels(written) == expected
    report = inspect(written.model, kernels=True)
    assert list(kernel_differences(written.kernels, report)) == []
    assert {tuple(node.bits) for node in report.nodes} == {(32, width)}
    assert {t.stored for n, t in report.tensors.items() if len(t.shape) == 2 and n in SHAPES} == {
        f"INT{width}"
    }
    bits = (np.prod(shape) * (width if np.ndim(shape) else 32) for shape in SHAPES.values())
    assert report.weight_bytes == sum(bits) // 8
    assert all("8 bits in blocks" in n.reason for n in report.nodes if n.kernel is Kernel.PACKED)
    assert_computes_the_same(gated, written)


def test_int2_weights_that_onnxruntime_gets_wrong_become_floats():
    """Their values are right, with optimizations too, although the columns are no fours."""
    model = with_weights(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 32] x) => (float[n, 7] y) '
        "{ [mac] y = MatMul(x, w) }",
        {"w": (32, 7)},
    )
    for width, kernel in ((2, Kernel.FLOAT), (4, Kernel.PACKED)):
        gated, written = gated_at(model, width)
        assert kernels(written) == {"mac": kernel}
        assert_computes_the_same(gated, written)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[mac] h = MatMul(x, w) [other] y = MatMul(w, h)", "first factor"),
        ("[mac] y = Gemm<transA=1>(x, w)", "turns its first operand"),
        ("[mac] h = MatMul(x, w) [t] v = Transpose(w) [other] y = MatMul(h, v)", "layouts"),
    ],
)
def test_other_readers_get_floats(body, reason, caplog):
    model = with_weights(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[8, 8] x) => (float[8, 8] y) {{{body}}}',
        {"w": (8, 8)},
    )
    with caplog.at_level("DEBUG", "onnx_cgmq.decisions"):
        gated, written = gated_at(model, 4)
    assert reason in caplog.text
    assert set(kernels(written).values()) == {Kernel.FLOAT}
    assert_computes_the_same(gated, written, (8, 8))


def test_convolutions_get_floats():
    model = with_weights(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 2, 5, 5] x) => (float[n, 4, 5, 5] y) '
        "{ [mac] y = Conv<pads=[1, 1, 1, 1]>(x, w) }",
        {"w": (4, 2, 3, 3)},
    )
    gated, written = gated_at(model, 4)
    assert kernels(written) == {"mac": Kernel.FLOAT}
    assert not any(node.op_type == "DequantizeLinear" for node in written.model.graph)
    assert_computes_the_same(gated, written, (3, 2, 5, 5))


def test_a_quantized_activation_is_not_rounded_again():
    gated = insert_gates(products(), target="onnxruntime", integer_kernels=False)
    plan = make_plan(gated)
    packed, plain = (write(gated, plan, weight_kernels=flag).model for flag in (True, False))
    assert ir.to_proto(packed) == ir.to_proto(plain)


def test_older_versions_of_onnxruntime_get_floats():
    """Not all of them have these kernels, and some compute wrong values."""
    _, written = gated_at(products(), 8, runtime="onnxruntime>=1.22")
    assert set(kernels(written).values()) == {Kernel.FLOAT}


@pytest.mark.parametrize("weight_kernels", [True, False])
@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_blocks_have_steps_of_their_own(width, block, weight_kernels):
    settings = {"weight_ranges": "block", "block_size": block}
    gated, written = gated_at(products(), width, weight_kernels, **settings)
    blocks = {name: spec.block for name, (_, spec) in quantizer_nodes(gated).items()}
    assert blocks["wide"] == block  # 64 are summed over
    assert blocks["b"] == (block if block == 16 else None)  # 48 are
    assert blocks["gemm"] is None  # 40 are
    report = inspect(written.model, kernels=True)
    assert list(kernel_differences(written.kernels, report)) == []
    for node in report.nodes:
        slow = node.name == "last" or (block == 16 and blocks[node.operands[1]] is not None)
        is_packed = weight_kernels and not (width == 2 and slow)
        assert node.kernel is (Kernel.PACKED if is_packed else Kernel.FLOAT)
        assert node.bits == (32, width)
    assert_computes_the_same(gated, written)


@pytest.mark.parametrize("weight_kernels", [True, False])
def test_the_steps_of_blocks_are_part_of_the_size(weight_kernels):
    """At 4 bits, each block of 16 has 8 bytes of codes and 4 of its step."""
    gated = insert_gates(
        with_weights(
            '<ir_version: 10, opset_import: ["": 21]> g (float[n, 48] x) => (float[n, 20] y) '
            "{ [mac] y = Gemm<transB=1>(x, w, b) }",
            {"w": (20, 48), "b": 20},
        ),
        **{"target": "ort-weights", "weight_ranges": "block", "block_size": 16},
    )
    plan = make_plan(gated, {"x": np.array(32), "w": np.array(4), "b": np.array(32)})
    report = inspect(write(gated, plan, weight_kernels=weight_kernels).model)
    assert report.weight_bytes == plan.cost.weight_bytes == 60 * 12 + 20 * 4
    assert report.tensors["w"].stored_bytes == 60 * 12
    assert report.other_bytes <= 24  # the shape behind the blocks of floats


@pytest.mark.parametrize("seed", range(6))
def test_the_file_holds_the_values_of_the_mirror(seed):
    rng = np.random.default_rng(seed)
    block = int(rng.choice(BLOCK_SIZES[:3]))
    summed, outputs = block * int(rng.integers(2, 5)), 4 * int(rng.integers(1, 9))
    turned = bool(rng.integers(2))
    weight = (outputs, summed) if turned else (summed, outputs)
    model = with_weights(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[n, {summed}] x) => '
        f"(float[n, {outputs}] y) {{ [mac] y = Gemm<transB={int(turned)}>(x, w) }}",
        {"w": weight},
    )
    gated = insert_gates(model, target="ort-weights", weight_ranges="block", block_size=block)
    mirror = Mirror(gated)
    quantizer = mirror.quantizers["w"]
    values = mirror.value_parameters["w"].detach()
    quantizer.fit(values)
    for width in quantizer.spec.ladder.widths:
        quantizer.set_gate(torch.tensor(quantizer.spec.ladder.gate_of(width)))
        plans = {name: tensor_plan(q, None) for name, q in mirror.quantizers.items()}
        written = write(gated, BitPlan(tensors=plans), compact=False, weight_kernels=True).model
        (node,) = (node for node in written.graph if node.op_type == "DequantizeLinear")
        codes, steps = (value.const_value.numpy() for value in node.inputs[:2])
        assert node.inputs[0].dtype.bitwidth == width
        assert steps.shape == (summed // block, outputs)
        found = codes.astype(np.float32) * np.repeat(steps, block, axis=0)
        expected = quantizer(values)[0].detach().numpy()
        np.testing.assert_array_equal(found, expected.T if turned else expected)


@pytest.mark.parametrize("form", ["native", "qonnx"])
def test_other_forms_have_no_blocks(form):
    with pytest.raises(ConfigError, match=f"the form '{form}' has no ranges for blocks"):
        insert_gates(products(), target="generic", weight_ranges="block", form=form)
    gated = insert_gates(products(), target="ort-weights", weight_ranges="block", block_size=32)
    with pytest.raises(ConfigError, match="weight 'wide' has a range for each block of 32"):
        write(gated, make_plan(gated), form=form)
