"""The fused kernel against the computation in steps; masks against their definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onnx_cgmq.mirror.ops.attention_core import (
    Window,
    attention_in_steps,
    combined_mask,
    fused_attention,
    join_heads,
    repeat_heads,
    split_heads,
)

BATCH, HEADS, QUERIES, KEYS, SIZE = 2, 4, 3, 5, 6


def _inputs(heads: int = HEADS) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(BATCH, HEADS, QUERIES, SIZE), (BATCH, heads, KEYS, SIZE), (BATCH, heads, KEYS, 7)]
    return [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]


def _masks() -> list[Tensor | None]:
    truth = torch.rand(BATCH, 1, QUERIES, KEYS) > 0.4
    truth[0, 0, 1] = False
    added = torch.randn(QUERIES, KEYS, dtype=torch.double)
    return [None, truth, added, torch.where(truth, added, torch.full_like(added, -math.inf))]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("heads", [4, 2, 1])
def test_fused_equals_steps_and_so_do_the_gradients(index: int, heads: int) -> None:
    inputs = _inputs(heads)
    mask = _masks()[index]
    fused = fused_attention(*inputs, mask, 0.3)
    steps = attention_in_steps(*inputs, mask, 0.3).result
    torch.testing.assert_close(fused, steps)
    weights = torch.linspace(-1, 1, fused.numel(), dtype=torch.double).reshape(fused.shape)
    expected = torch.autograd.grad((steps * weights).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((fused * weights).sum(), inputs), expected)
    assert all(gradient.isfinite().all() for gradient in expected)


def test_a_query_that_sees_nothing_gives_zero() -> None:
    steps = attention_in_steps(*_inputs(), _masks()[1], 0.3)
    assert (steps.weights[0, :, 1] == 0).all()
    assert (steps.result[0, :, 1] == 0).all()


@pytest.mark.parametrize("offset", [0, 2, -1])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("left", "right"), [(-1, -1), (1, -1), (-1, 1), (2, 0)])
def test_window_is_its_definition(offset: int, causal: bool, left: int, right: int) -> None:
    window = Window(offset, causal, left, right)
    expected = torch.tensor(
        [
            [
                (not causal or j <= i + offset)
                and (left < 0 or j >= i + offset - left)
                and (right < 0 or j <= i + offset + right)
                for j in range(KEYS)
            ]
            for i in range(QUERIES)
        ]
    )
    visible = window.visible(_inputs()[0], KEYS)
    got = torch.ones_like(expected) if visible is None else visible
    assert torch.equal(got, expected)
    per_sample = Window(torch.full((BATCH, 1, 1, 1), offset), causal, left, right)
    seen = per_sample.visible(_inputs()[0], KEYS)
    assert seen is None or torch.equal(seen[1, 0], expected)


def test_masks_combine() -> None:
    condition = torch.tensor([True, False, True])
    assert combined_mask(None, None) is None
    assert combined_mask(None, condition) is condition
    both = combined_mask(torch.tensor([True, True, False]), None, condition)
    assert both is not None
    assert both.tolist() == [True, False, False]
    added = combined_mask(torch.tensor([1.0, 2.0, 3.0]), condition)
    assert added is not None
    assert added.tolist() == [1.0, -math.inf, 3.0]


def test_heads() -> None:
    x = torch.arange(24.0).reshape(1, 2, 12)
    heads = split_heads(x, 3)
    assert heads.shape == (1, 3, 2, 4)
    assert torch.equal(heads[0, 1, 0], x[0, 0, 4:8])
    assert torch.equal(join_heads(heads), x)
    assert torch.equal(repeat_heads(heads, 6)[0, 3], heads[0, 1])
    with pytest.raises(ValueError, match="evenly"):
        repeat_heads(heads, 4)
