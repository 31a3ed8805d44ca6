from __future__ import annotations

import numpy as np
import pytest

from tests.support.referee import assert_like_onnxruntime, parse, run_mirror


@pytest.mark.parametrize("kind", ["uint8", "uint32", "uint64"])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_bit_shift(kind: str, direction: str) -> None:
    largest, width = np.iinfo(kind).max, np.iinfo(kind).bits
    feeds = {"x": np.array([[largest], [1], [largest // 2 + 2]], kind)}
    feeds["s"] = np.array([0, 1, 3, width - 1], kind)
    body = f'y = BitShift<direction="{direction}">(x, s)'
    assert_like_onnxruntime(parse(f"{kind}[3,1] x, {kind}[4] s", f"{kind}[3,4] y", body), feeds)


@pytest.mark.parametrize(
    ("kind", "direction", "x", "by", "expected"),
    [
        ("int8", "RIGHT", [-128, -1, 127, -5], [7, 9, -1, -1], [-1, -1, 0, -1]),
        ("int8", "LEFT", [1, 3, -1, 5], [7, 8, 1, -1], [-128, 0, -2, 0]),
        ("uint16", "RIGHT", [65535, 65535], [15, 16], [1, 0]),
        ("uint64", "RIGHT", [2**64 - 1, 2**63], [64, 2**63], [0, 0]),
        ("int64", "LEFT", [-1, 1], [63, 64], [-(2**63), 0]),
    ],
)
def test_shifts_beyond_the_type_and_of_signed_types(kind, direction, x, by, expected) -> None:
    body = f'y = BitShift<direction="{direction}">(x, s)'
    model = parse(f"{kind}[n] x, {kind}[n] s", f"{kind}[n] y", body, 28)
    (y,) = run_mirror(model, {"x": np.array(x, kind), "s": np.array(by, kind)})
    np.testing.assert_array_equal(y.numpy(), np.array(expected, kind))


@pytest.mark.parametrize("name", ["Less", "GreaterOrEqual"])
def test_large_unsigned_integers_are_ordered(name: str) -> None:
    feeds = {"a": np.array([2**63, 5], np.uint64), "b": np.array([5, 2**64 - 1], np.uint64)}
    assert_like_onnxruntime(
        parse("uint64[2] a, uint64[2] b", "bool[2] y", f"y = {name}(a, b)"), feeds
    )
