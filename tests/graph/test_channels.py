from __future__ import annotations

import onnx
import pytest
from onnx import parser

from onnx_cgmq.graph.channels import Channels, channels_behind
from onnx_cgmq.graph.files.load import load_model
from onnx_cgmq.graph.infer import infer_shapes


def behind(node: str, shape: str, channels: Channels, given: str = "") -> Channels | None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[{shape}] x) => (float[{"q," * 9}q] y) <{given}> {{ y = {node} }}"""
    proto = parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = load_model(onnx.shape_inference.infer_shapes(proto))
    infer_shapes(model)
    return channels_behind(model.graph.node(-1), channels)


IMAGE = "n,4,6,6"
AT_1 = Channels(1, 4)


@pytest.mark.parametrize(
    "node",
    [
        "Relu(x)",
        "LeakyRelu(x)",
        "Identity(x)",
        "MaxPool<kernel_shape = [2, 2]>(x)",
        "AveragePool<kernel_shape = [2, 2]>(x)",
        "GlobalAveragePool(x)",
        "GlobalMaxPool(x)",
    ],
)
def test_channels_stay_where_they_are(node: str) -> None:
    assert behind(node, IMAGE, AT_1) == AT_1


@pytest.mark.parametrize("node", ["MaxPool<kernel_shape = [2, 2]>(x)", "GlobalAveragePool(x)"])
def test_pools_mix_other_axes(node: str) -> None:
    assert behind(node, IMAGE, Channels(2, 6)) is None


@pytest.mark.parametrize("node", ["Sigmoid(x)", "HardSwish(x)", "Softmax(x)", "Exp(x)", "Neg(x)"])
def test_no_factor_passes(node: str) -> None:
    assert behind(node, IMAGE, AT_1) is None


@pytest.mark.parametrize(
    ("limits", "passes"),
    [("0.0", True), ("0.0, 6.0", False), ("-1.0", False), ("", False)],
)
def test_only_a_clip_that_is_a_relu_passes(limits: str, passes: bool) -> None:
    values = [text for text in limits.split(", ") if text]
    given = ", ".join(f"float l{i} = {{{value}}}" for i, value in enumerate(values))
    names = "".join(f", l{i}" for i in range(len(values)))
    found = behind(f"Clip(x{names})", IMAGE, AT_1, given)
    assert (found == AT_1) is passes


@pytest.mark.parametrize(
    ("pads", "passes"),
    [
        ("0, 0, 1, 1, 0, 0, 1, 1", True),
        ("0, 1, 0, 0, 0, 0, 0, 0", False),
        ("0, 1, 0, 0, 0, -1, 0, 0", False),
    ],
)
def test_pads_of_other_axes_pass(pads: str, passes: bool) -> None:
    found = behind("Pad(x, p)", IMAGE, AT_1, f"int64[8] p = {{{pads}}}")
    assert (found == AT_1) is passes
    ones = f"int64[8] p = {{{pads}}}, float v = {{1.0}}"
    assert behind("Pad(x, p, v)", IMAGE, AT_1, ones) is None


@pytest.mark.parametrize(
    ("mode", "scales", "passes"),
    [
        ("nearest", "1, 1, 2, 2", True),
        ("linear", "1, 1, 2, 2", False),
        ("nearest", "1, 2, 1, 1", False),
    ],
)
def test_nearest_pixels_pass(mode: str, scales: str, passes: bool) -> None:
    node = f'Resize<mode = "{mode}">(x, , s)'
    found = behind(node, IMAGE, AT_1, f"float[4] s = {{{scales}}}")
    assert (found == AT_1) is passes


@pytest.mark.parametrize(
    ("node", "shape", "channels", "want"),
    [
        ("Transpose<perm = [0, 2, 3, 1]>(x)", IMAGE, AT_1, Channels(3, 4)),
        ("Transpose<perm = [1, 2, 3, 0]>(x)", IMAGE, AT_1, Channels(0, 4)),
        ("Transpose(x)", "n,4,6", AT_1, Channels(1, 4)),
        ("Flatten(x)", IMAGE, AT_1, Channels(1, 4, 36)),
        ("Flatten(x)", "n,4,1,1", AT_1, AT_1),
        ("Flatten<axis = 2>(x)", IMAGE, AT_1, None),
        ("Flatten(x)", "n,4,a,6", AT_1, None),
        ("Flatten(x)", "n,6,6,4", Channels(3, 4), None),
        ("Squeeze(x)", "2,4,1,1", AT_1, AT_1),
    ],
)
def test_movers(node: str, shape: str, channels: Channels, want: Channels | None) -> None:
    assert behind(node, shape, channels) == want


@pytest.mark.parametrize(
    ("source", "sizes", "channels", "want"),
    [
        ("n,4,6,6", "-1, 4, 36", AT_1, AT_1),
        ("n,4,6,6", "-1, 24, 6", AT_1, Channels(1, 4, 6)),
        ("n,4,6,6", "-1, 2, 72", AT_1, None),
        ("n,6,8", "-1, 6, 2, 4", Channels(2, 8), None),
        ("n,6,8", "-1, 8", Channels(2, 8), Channels(1, 8)),
        ("n,24,6", "-1, 4, 6, 6", Channels(1, 4, 6), AT_1),
    ],
)
def test_reshapes(source: str, sizes: str, channels: Channels, want: Channels | None) -> None:
    count = sizes.count(",") + 1
    given = f"int64[{count}] s = {{{sizes}}}"
    assert behind("Reshape(x, s)", source, channels, given) == want


def test_a_pool_whose_indices_are_read_passes_nothing() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,4,6,6] x) => (float[n,4,5,5] y, int64[n,4,5,5] i)
    { y, i = MaxPool<kernel_shape = [2, 2]>(x) }"""
    model = load_model(parser.parse_model(text))
    assert channels_behind(model.graph.node(0), AT_1) is None
