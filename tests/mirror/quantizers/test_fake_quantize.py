"""The fused fake quantization against plain autograd and against the residual form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.mirror.quantizers.fake_quantize import (
    FakeQuantize,
    Grid,
    Observe,
    round_straight_through,
)


def _grid(step: float, code_min: float, code_max: float) -> Grid:
    return Grid(torch.tensor(step), torch.tensor(code_min), torch.tensor(code_max))


def _symmetric(x: torch.Tensor, high: torch.Tensor, bits: int) -> torch.Tensor:
    """The same values by autograd: straight-through rounding, clipped codes."""
    step = 2 * high / (2**bits - 1)
    limit = 2 ** (bits - 1) - 1
    scaled = x / step
    clipped = torch.clamp(scaled, -limit, limit)
    inside = scaled.abs() < limit + 0.5
    codes = torch.where(inside, scaled + (torch.round(scaled) - scaled).detach(), clipped.detach())
    return codes * step


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(50,), (4, 5, 3, 3)])
def test_matches_autograd(bits: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float32, requires_grad=True)
    high = torch.tensor(1.3, requires_grad=True)
    limit = 2.0 ** (bits - 1) - 1
    g = torch.randn(shape)
    step = (2 * high / (2**bits - 1)).detach()
    y = FakeQuantize.apply(x, high, None, _grid(step.item(), -limit, limit), None)
    y.backward(g)
    fused = (y.detach().clone(), x.grad.clone(), high.grad.clone())
    x.grad = high.grad = None
    expected = _symmetric(x, high, bits)
    expected.backward(g)
    torch.testing.assert_close(fused[0], expected.detach())
    torch.testing.assert_close(fused[1], x.grad)
    torch.testing.assert_close(fused[2], high.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 8])
def test_broadcast_grid_equals_scalar_grid(bits: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4, requires_grad=True)
    limit = 2.0 ** (bits - 1) - 1
    step = 2 * 1.1 / (2**bits - 1)
    results = []
    for high in (torch.tensor(1.1), torch.full((6, 1), 1.1)):
        high.requires_grad_()
        expand = torch.ones_like(high.detach())
        grid = Grid(expand * step, expand * -limit, expand * limit)
        x.grad = None
        y = FakeQuantize.apply(x, high, None, grid, None)
        (y * torch.arange(24.0).reshape(6, 4)).sum().backward()
        results.append((y.detach(), x.grad.clone(), high.grad.sum()))
    for scalar, broadcast in zip(*results, strict=True):
        torch.testing.assert_close(scalar, broadcast)


def test_affine_clipped_values_pull_their_own_end() -> None:
    x = torch.tensor([-3.0, 0.2, 3.0], requires_grad=True)
    high = torch.tensor(1.0, requires_grad=True)
    low = torch.tensor(-0.5, requires_grad=True)
    step = 0.5
    y = FakeQuantize.apply(x, high, low, _grid(step, -1.0, 2.0), None)
    assert y.tolist() == [-0.5, 0.0, 1.0]
    y.backward(torch.tensor([1.0, 0.0, 10.0]))
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    assert (low.grad.item(), high.grad.item()) == (1.0, 10.0)


@given(
    bits=st.sampled_from([4, 8, 16]),
    values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20),
)
@settings(max_examples=50, deadline=None)
def test_one_rounding_is_within_half_a_step_of_the_residual_sum(
    bits: int, values: list[float]
) -> None:
    # Nested grids: 2-bit value plus residuals, each rounded on the next finer grid (Bayesian Bits).
    x = torch.tensor(values, dtype=torch.float64)
    high = 1.5
    limit = (2 ** (bits - 1) - 1) * 2 * high / (2**bits - 1)
    x = x.clamp(-limit, limit)
    total = torch.zeros_like(x)
    for width in (2, 4, 8, 16):
        if width > bits:
            break
        step = 2 * high / (2**width - 1)
        total = total + torch.round((x - total) / step) * step
    step = 2 * high / (2**bits - 1)
    direct = torch.round(x / step) * step
    assert torch.all((total - direct).abs() <= step * (1 + 1e-9))
    assert torch.all((total - x).abs() <= step / 2 * (1 + 1e-9))


class _Seen:
    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def observe(self, value: torch.Tensor, gradient: torch.Tensor) -> None:
        self.seen.append((value, gradient))


def test_observers_see_value_and_gradient() -> None:
    observer = _Seen()
    x = torch.randn(3, requires_grad=True)
    (Observe.apply(x, observer) * 2).sum().backward()
    y = FakeQuantize.apply(x, torch.tensor(1.0), None, _grid(0.1, -7.0, 7.0), observer)
    (y * 3).sum().backward()
    assert [gradient.tolist() for _, gradient in observer.seen] == [[2.0] * 3, [3.0] * 3]
    assert all(torch.equal(value, x) for value, _ in observer.seen)


def test_round_straight_through() -> None:
    x = torch.tensor([0.26, -9.0], requires_grad=True)
    y = round_straight_through(x, torch.tensor(0.5))
    assert y.tolist() == [0.5, -9.0]
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
