from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

DOMAIN = "com.microsoft"
SIZE = 6


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("op_type", ["LayerNormalization", "SimplifiedLayerNormalization"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_before_they_were_in_the_standard(
    same_as_onnxruntime: Callable[..., None], op_type: str, axis: int
) -> None:
    shape = (2, 3, SIZE)
    arrays = {"x": _random(*shape), "scale": _random(*shape[axis:])}
    same_as_onnxruntime(op_type, arrays, opset=15, axis=axis, epsilon=1e-3)


@pytest.mark.parametrize(
    "skip", [(2, 3, SIZE), (1, 3, SIZE), (3, SIZE)], ids=["full", "one", "flat"]
)
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("simplified", [False, True])
def test_skip(
    same_as_onnxruntime: Callable[..., None],
    skip: tuple[int, ...],
    everything: bool,
    simplified: bool,
) -> None:
    arrays = {"x": _random(2, 3, SIZE), "skip": _random(*skip), "scale": _random(SIZE)}
    if everything and not simplified:
        arrays["shift"] = _random(SIZE) + 1
    if everything:
        arrays["bias"] = _random(SIZE) - 1
    outputs = ("y", "mean", "inverse", "sum") if everything else ("y",)
    name = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    same_as_onnxruntime(
        name, arrays, dict.fromkeys(outputs, np.float32), domain=DOMAIN, epsilon=1e-4
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("segmented", [False, True])
def test_embeddings(
    same_as_onnxruntime: Callable[..., None], masked: bool, segmented: bool
) -> None:
    words = np.array([[1, 3, 0], [4, 4, 2]], np.int32)
    arrays = {
        "words": words,
        "segments": words % 2 if segmented else None,
        "word_table": _random(5, SIZE),
        "position_table": _random(7, SIZE),
        "segment_table": _random(2, SIZE) if segmented else None,
        "scale": _random(SIZE),
        "shift": _random(SIZE),
        "mask": np.array([[1, 1, 0], [1, 1, 1]], np.int32) if masked else None,
        "positions": np.array([[0, 2, 6], [1, 1, 0]], np.int32) if masked else None,
    }
    outputs = {"y": np.float32, "counted": np.int32, "total": np.float32}
    same_as_onnxruntime("EmbedLayerNormalization", arrays, outputs, domain=DOMAIN)
