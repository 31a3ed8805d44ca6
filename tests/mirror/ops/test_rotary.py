from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_cgmq.errors import UnsupportedOperatorError

DOMAIN = "com.microsoft"
BATCH, LENGTH, HEADS, SIZE = 2, 3, 2, 8


def _arrays(packed: bool, width: int, positions: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shape = (BATCH, LENGTH, HEADS * SIZE) if packed else (BATCH, HEADS, LENGTH, SIZE)
    angles = rng.uniform(-3, 3, (10, width // 2))
    return {
        "x": rng.standard_normal(shape).astype(np.float32),
        "positions": np.array(positions, np.int64),
        "cos": np.cos(angles).astype(np.float32),
        "sin": np.sin(angles).astype(np.float32),
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", [[4], [[0, 1, 2], [7, 3, 9]]], ids=["first", "every"])
def test_same_as_onnxruntime(
    same_as_onnxruntime: Callable[..., None], packed: bool, interleaved: int, positions: Any
) -> None:
    arrays = _arrays(packed, SIZE, positions)
    same_as_onnxruntime("RotaryEmbedding", arrays, domain=DOMAIN, interleaved=interleaved)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_only_a_part_turns(same_as_onnxruntime: Callable[..., None], interleaved: int) -> None:
    same_as_onnxruntime(
        "RotaryEmbedding",
        _arrays(True, 4, [0]),
        domain=DOMAIN,
        interleaved=interleaved,
        rotary_embedding_dim=4,
        num_heads=HEADS,
    )


def test_what_onnxruntime_ignores_is_refused(same_as_onnxruntime: Callable[..., None]) -> None:
    with pytest.raises(UnsupportedOperatorError, match="scale"):
        same_as_onnxruntime("RotaryEmbedding", _arrays(True, SIZE, [0]), domain=DOMAIN, scale=2.0)
