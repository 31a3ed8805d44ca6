"""Which widths are narrowed for integer kernels."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.learn.integer_widths import for_one_integer_tensor

ALL = (2, 4, 8, 16, 32)


def _spec(role: Role, ladder=ALL, channels: int = 1) -> QuantizerSpec:
    granularity = Granularity.TENSOR if channels == 1 else Granularity.CHANNEL
    return QuantizerSpec(
        "t", role, GridForm.SYMMETRIC, granularity, Ladder(ladder), (channels, 2), axis=0
    )


@pytest.mark.parametrize(
    ("role", "ladder", "widths", "always", "expected"),
    [
        (Role.WEIGHT, ALL, [32], True, [8]),
        (Role.WEIGHT, ALL, [16], False, [16]),
        (Role.WEIGHT, ALL, [4], True, [4]),
        (Role.WEIGHT, ALL, [2, 32], False, [2, 8]),
        (Role.WEIGHT, ALL, [32, 32], False, [32, 32]),
        (Role.WEIGHT, (4, 16, 32), [16], True, [16]),
        (Role.ACTIVATION, ALL, [32], True, [8]),
        (Role.ACTIVATION, ALL, [4, 32], False, [4, 32]),
        (Role.BIAS, ALL, [32], True, [32]),
    ],
)
def test_widths_for_integer_kernels(role, ladder, widths, always, expected) -> None:
    given = np.array(widths, dtype=np.int64)
    narrowed = for_one_integer_tensor(_spec(role, ladder, len(widths)), given, always)
    np.testing.assert_array_equal(narrowed, expected)
    assert narrowed.dtype == np.int64
    np.testing.assert_array_equal(given, widths)
