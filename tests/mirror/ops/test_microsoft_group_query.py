from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError

DOMAIN = "com.microsoft"
BATCH, HEADS, GROUPS, SIZE, PAST = 2, 4, 2, 16, 6
HEAD_COUNTS = {"num_heads": HEADS, "kv_num_heads": GROUPS}


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def _arrays(length: int, ends: list[int], total: int, rotary: bool = False) -> dict[str, Any]:
    batch = len(ends)
    angles = np.random.default_rng(0).uniform(-3, 3, (20, SIZE // 2))
    return {
        "q": _random(batch, length, HEADS * SIZE),
        "k": _random(batch, length, GROUPS * SIZE),
        "v": _random(batch, length, GROUPS * SIZE) * 2,
        "past_key": _random(batch, GROUPS, PAST, SIZE),
        "past_value": _random(batch, GROUPS, PAST, SIZE) * 2,
        "last": np.array(ends, np.int32),
        "total": np.array([total], np.int32),
        "cos": np.cos(angles).astype(np.float32) if rotary else None,
        "sin": np.sin(angles).astype(np.float32) if rotary else None,
    }


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"softcap": 0.7, "scale": 0.3},
        {"local_window_size": 3},
        {"do_rotary": 1},
        {"do_rotary": 1, "rotary_interleaved": 1},
    ],
)
@pytest.mark.parametrize(
    ("length", "ends", "total"),
    [(1, [6, 6], 7), (1, [5, 3], 6), (4, [3, 3], 4), (2, [7], 8), (4, [3, 1], 4)],
    ids=["next", "next of different lengths", "prompt", "more", "padded"],
)
def test_same_as_onnxruntime(
    same_as_onnxruntime: Callable[..., None],
    attributes: dict[str, Any],
    length: int,
    ends: list[int],
    total: int,
) -> None:
    arrays = _arrays(length, ends, total, "do_rotary" in attributes)
    if length == total:
        arrays |= {"past_key": None, "past_value": None}
    same_as_onnxruntime(
        "GroupQueryAttention",
        arrays,
        3,
        domain=DOMAIN,
        reaches=False,
        **HEAD_COUNTS,
        **attributes,
    )


def test_packed(same_as_onnxruntime: Callable[..., None]) -> None:
    arrays = _arrays(4, [3, 3], 4)
    arrays |= {"q": _random(BATCH, 4, (HEADS + 2 * GROUPS) * SIZE), "k": None, "v": None}
    arrays |= {"past_key": None, "past_value": None}
    same_as_onnxruntime("GroupQueryAttention", arrays, 3, domain=DOMAIN, **HEAD_COUNTS)


def test_added_scores(same_as_onnxruntime: Callable[..., None]) -> None:
    arrays = {**_arrays(1, [6, 6], 7), "positions": None, "added": _random(1, HEADS, 1, 7)}
    same_as_onnxruntime("GroupQueryAttention", arrays, 3, domain=DOMAIN, **HEAD_COUNTS)


def test_what_is_not_supported_is_refused(same_as_onnxruntime: Callable[..., None]) -> None:
    arrays = _arrays(1, [6, 6], 7)
    with pytest.raises(UnsupportedOperatorError, match="smooth_softmax"):
        same_as_onnxruntime(
            "GroupQueryAttention", arrays, 3, domain=DOMAIN, smooth_softmax=1, **HEAD_COUNTS
        )
