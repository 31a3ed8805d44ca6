from __future__ import annotations

import onnx
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror


@pytest.mark.parametrize("mode", ["reflekt", b"\xff\xfe"])
def test_text_that_means_nothing_is_refused(mode: str | bytes) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[4] x) => (float[6] y) <int64[2] pads = {1, 1}>
        { y = Pad <mode = "constant"> (x, pads) }"""
    )
    attribute = model.graph.node[0].attribute[0]
    attribute.s = mode if isinstance(mode, bytes) else mode.encode()
    with pytest.raises(UnsupportedOperatorError, match="its attribute mode = "):
        Mirror(model)
