from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

DOMAIN = "com.microsoft"
BATCH, LENGTH, HEADS, SIZE, PAST = 2, 4, 2, 3, 3
WIDTH = HEADS * SIZE


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


MASKS = {
    "none": None,
    "keys": np.array([[1, 1, 0, 1], [1, 1, 1, 0]], np.int32),
    "queries": np.tril(np.ones((BATCH, LENGTH, LENGTH), np.int32)),
    "ends": np.array([3, 4], np.int32),
    "ends and starts": np.array([4, 3, 1, 0], np.int32),
    "nothing seen": np.array([[0, 0, 0, 0], [1, 1, 1, 0]], np.int32),
}


@pytest.mark.parametrize(
    ("mask", "added"),
    # Scores near -10000 keep three digits only, whoever adds them up.
    [
        (mask, added)
        for mask in MASKS
        for added in (False, True)
        if mask != "nothing seen" or not added
    ],
)
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(
    same_as_onnxruntime: Callable[..., None], mask: str, added: bool, causal: int
) -> None:
    arrays = {
        "x": _random(BATCH, LENGTH, 5),
        "w": _random(5, 3 * WIDTH),
        "b": _random(3 * WIDTH),
        "mask": MASKS[mask],
        "past": None,
        "added": _random(1, HEADS, LENGTH, LENGTH) if added else None,
    }
    same_as_onnxruntime("Attention", arrays, domain=DOMAIN, num_heads=HEADS, unidirectional=causal)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_a_past(
    same_as_onnxruntime: Callable[..., None], causal: int, masked: bool
) -> None:
    seen = np.ones((BATCH, PAST + LENGTH), np.int32)
    seen[:, -2:] = 0
    arrays = {
        "x": _random(BATCH, LENGTH, 5),
        "w": _random(5, 3 * WIDTH),
        "b": _random(3 * WIDTH),
        "mask": seen if masked else None,
        "past": _random(2, BATCH, HEADS, PAST, SIZE),
    }
    same_as_onnxruntime(
        "Attention", arrays, 2, domain=DOMAIN, num_heads=HEADS, unidirectional=causal
    )


def test_attention_with_values_of_another_size(same_as_onnxruntime: Callable[..., None]) -> None:
    arrays = {"x": _random(BATCH, LENGTH, 5), "w": _random(5, 2 * WIDTH + 8), "b": _random(20)}
    sizes = [WIDTH, WIDTH, 8]
    same_as_onnxruntime(
        "Attention", arrays, domain=DOMAIN, num_heads=HEADS, qkv_hidden_sizes=sizes, scale=0.4
    )


@pytest.mark.parametrize("mask", ["none", "keys", "ends", "queries"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_attention(
    same_as_onnxruntime: Callable[..., None], mask: str, biased: bool, causal: int
) -> None:
    arrays = {
        "q": _random(BATCH, LENGTH, WIDTH),
        "k": _random(BATCH, LENGTH, WIDTH),
        "v": _random(BATCH, LENGTH, 8),
        "b": _random(2 * WIDTH + 8) if biased else None,
        "mask": MASKS[mask],
        "added": _random(BATCH, 1, LENGTH, LENGTH) if biased else None,
    }
    same_as_onnxruntime(
        "MultiHeadAttention", arrays, domain=DOMAIN, num_heads=HEADS, unidirectional=causal
    )


def test_multi_head_attention_with_a_past(same_as_onnxruntime: Callable[..., None]) -> None:
    arrays = {
        "q": _random(BATCH, LENGTH, WIDTH),
        "k": _random(BATCH, LENGTH, WIDTH) * 2,
        "v": _random(BATCH, LENGTH, WIDTH) * 3,
        "b": None,
        "mask": None,
        "added": None,
        "past_key": _random(BATCH, HEADS, PAST, SIZE),
        "past_value": _random(BATCH, HEADS, PAST, SIZE) * 2,
    }
    same_as_onnxruntime("MultiHeadAttention", arrays, 3, domain=DOMAIN, num_heads=HEADS)


@pytest.mark.parametrize("biased", [False, True])
def test_multi_head_attention_to_an_encoder(
    same_as_onnxruntime: Callable[..., None], biased: bool
) -> None:
    arrays = {
        "q": _random(BATCH, LENGTH, WIDTH),
        "k": _random(BATCH, HEADS, 6, SIZE),
        "v": _random(BATCH, HEADS, 6, SIZE) * 2,
        "b": _random(3 * WIDTH) if biased else None,
    }
    same_as_onnxruntime(
        "MultiHeadAttention", arrays, domain=DOMAIN, num_heads=HEADS, reaches=not biased
    )
