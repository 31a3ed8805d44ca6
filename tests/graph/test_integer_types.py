from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_cgmq.graph.integer_types import pack


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5)])
@pytest.mark.parametrize(
    ("data_type", "width"), [("INT2", 2), ("INT4", 4), ("INT8", 8), ("INT16", 16)]
)
def test_packed_codes_are_unpacked_by_onnx(data_type, width, shape) -> None:
    largest = 2 ** (width - 1) - 1
    codes = np.random.default_rng(0).integers(-largest, largest + 1, shape)
    proto = ir.to_proto(pack(np.asarray(codes), ir.DataType[data_type], "w"))
    assert len(proto.raw_data) == -(-codes.size * width // 8) if np.ndim(codes) else True
    unpacked = onnx.numpy_helper.to_array(proto).astype(np.int64)
    np.testing.assert_array_equal(unpacked, codes)
