from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

DOMAIN = "com.microsoft"


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes"),
    [
        ("Trilu", {"x": _random(2, 3, 4)}, {"upper": 0}),
        ("Trilu", {"x": _random(2, 3, 4), "k": np.array(1, np.int64)}, {}),
        ("GatherND", {"x": _random(3, 4), "i": np.array([[0, 1], [2, 3]], np.int64)}, {}),
        ("GridSample", {"x": _random(1, 2, 4, 5), "g": _random(1, 3, 3, 2)}, {}),
        (
            "GridSample",
            {"x": _random(1, 2, 4, 5), "g": _random(1, 3, 3, 2) * 1.5},
            {"mode": "bicubic", "padding_mode": "border", "align_corners": 1},
        ),
        ("ExpandDims", {"x": _random(2, 3), "axis": np.array(-1, np.int32)}, {}),
        ("ExpandDims", {"x": _random(2, 3), "axis": np.array(1, np.int32)}, {}),
        ("Inverse", {"x": _random(2, 3, 3) + 2 * np.eye(3, dtype=np.float32)}, {}),
        ("CDist", {"a": _random(4, 3), "b": _random(5, 3)}, {}),
        ("CDist", {"a": _random(4, 3), "b": _random(5, 3)}, {"metric": "euclidean"}),
    ],
)
def test_same_as_onnxruntime(
    same_as_onnxruntime: Callable[..., None],
    op_type: str,
    arrays: dict[str, Any],
    attributes: dict[str, Any],
) -> None:
    same_as_onnxruntime(op_type, arrays, domain=DOMAIN, **attributes)
