"""Which convolutions of images are written with a channel of zeros more."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_cgmq.gating.image_channels import lacks_a_channel
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import quantizer_nodes


def _convolutions(
    body: str = "h = Conv(x, w) y = Conv(h, v)",
    weight: str = "16,3,3,3",
    inputs: str = "float[n,3,12,12] x",
) -> list[bool]:
    """What is said of each convolution, in graph order."""
    text = f"""<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => (float[a,b,c,d] y)
    {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, value in (("w", weight), ("k", weight), ("v", "5,16,1,1"), ("b", "16")):
        shape = [int(size) for size in value.split(",")]
        array = np.full(shape, ord(name), np.float32)  # equal ones would be merged
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    gated = insert_gates(proto, target="generic")
    found = [
        lacks_a_channel(use.node, spec.shape)
        for node, spec in quantizer_nodes(gated).values()
        for use in node.outputs[0].uses()
        if node.inputs[0].const_value is not None and len(spec.shape) > 1
    ]
    assert found
    return found


def test_the_first_convolution_of_an_image_lacks_one() -> None:
    assert _convolutions() == [True, False]


def test_a_bias_is_no_other_reader() -> None:
    assert _convolutions("h = Conv(x, w, b) y = Conv(h, v)") == [True, False]


@pytest.mark.parametrize(
    "weight",
    [
        "16,3,1,1",  # one place: nothing is copied
        "16,3,8,8",  # too many places
        "12,3,3,3",  # output channels not in eights
    ],
)
def test_other_kernels_lack_none(weight: str) -> None:
    outputs = int(weight.split(",")[0])
    body = "y = Conv(x, w)" if outputs == 12 else "h = Conv(x, w) y = Conv(h, v)"
    assert not any(_convolutions(body, weight))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_of_other_channels_lack_none(channels: int) -> None:
    image = f"float[n,{channels},12,12] x"
    assert not any(_convolutions(weight=f"16,{channels},3,3", inputs=image))


def test_an_image_that_others_read_lacks_none() -> None:
    body = "h = Conv(x, w) p = Conv(h, v) i = Conv(x, k) q = Conv(i, v) y = Concat<axis=0>(p, q)"
    assert not any(_convolutions(body))


def test_a_weight_that_others_read_lacks_none() -> None:
    body = "h = Conv(x, w) s = Sin(x) i = Conv(s, w) j = Add(h, i) y = Conv(j, v)"
    assert not any(_convolutions(body))


def test_a_computed_image_lacks_none() -> None:
    assert not any(_convolutions("s = Sin(x) h = Conv(s, w) y = Conv(h, v)"))


def test_groups_lack_none() -> None:
    body = "h = Conv<group=2>(x, w) y = Conv(h, v)"
    assert not any(_convolutions(body, inputs="float[n,6,12,12] x"))
