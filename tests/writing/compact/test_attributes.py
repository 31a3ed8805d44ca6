from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.writing.compact.attributes import drop_default_attributes


def attributes(node: str, sizes: str = "1, 2, 9, 9", result: str = "y") -> set[str]:
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[{sizes}] x, float[4, 2, 3, 3] w) => (float[] {result}) {{ {node} }}"""
    proto = onnx.parser.parse_model(text)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = ir.from_proto(proto)
    before = onnx.shape_inference.infer_shapes(ir.to_proto(model)).graph.output
    drop_default_attributes(model)
    after = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True).graph.output
    assert list(before) == list(after)
    return set(next(iter(model.graph)).attributes)


@pytest.mark.parametrize(
    ("node", "left"),
    [
        ("y = Conv<strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], group=1>(x, w)", set()),
        ('y = Conv<kernel_shape=[3, 3], auto_pad="NOTSET">(x, w)', set()),
        ("y = Conv<strides=[1, 2], pads=[0, 0, 1, 0]>(x, w)", {"strides", "pads"}),
        ("y = Transpose<perm=[0, 1, 2, 3]>(x)", {"perm"}),
        ("y = Softmax<axis=-1>(x)", set()),
        ("y = Softmax<axis=1>(x)", {"axis"}),
        ("y = Cast<to=1>(x)", {"to"}),
    ],
)
def test_only_attributes_with_default_values_are_removed(node, left) -> None:
    assert attributes(node) == left
