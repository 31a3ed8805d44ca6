from __future__ import annotations

import math

import pytest
import torch

from onnx_cgmq.mirror.core.registry import Context
from onnx_cgmq.mirror.ops.softmax import softmax


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_gradient_is_that_of_torch(axis: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, dtype=torch.double, requires_grad=True)
    weights = torch.randn(3, 4, 5, dtype=torch.double)
    ours = softmax(Context("n", "Softmax", 13, {"axis": axis}), x)
    theirs = torch.softmax(x, axis)
    assert torch.equal(ours, theirs)
    expected = torch.autograd.grad((theirs * weights).sum(), x)
    torch.testing.assert_close(torch.autograd.grad((ours * weights).sum(), x), expected)


def test_rows_that_a_mask_hides_have_no_gradient() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    hidden = torch.tensor([[True, True, True], [False, False, True]])
    y = softmax(Context("n", "Softmax", 13), x.masked_fill(hidden, -math.inf))
    assert y[0].isnan().all()
    (torch.where(y.isnan(), 0.0, y) * torch.arange(3.0)).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 0.0, 0.0], [-0.25, 0.25, 0.0]]))


@pytest.mark.parametrize("axis", [0, 1])
def test_no_elements(axis: int) -> None:
    x = torch.zeros(2, 0, requires_grad=True)
    y = softmax(Context("n", "Softmax", 13, {"axis": axis}), x)
    (gradient,) = torch.autograd.grad(y, x, torch.ones(2, 0))
    assert y.shape == gradient.shape == (2, 0)
