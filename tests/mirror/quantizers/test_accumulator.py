"""A bias becomes whole units of the accumulator, unless no integer kernel adds it."""

from __future__ import annotations

import torch

from onnx_cgmq.mirror.quantizers.accumulator import accumulator_qdq


def test_accumulator() -> None:
    bias = torch.tensor([0.26, -0.74], requires_grad=True)
    y = accumulator_qdq(bias, torch.tensor(0.5), torch.tensor([[1.0], [0.5]]))
    assert y.tolist() == [0.5, -0.75]
    y.sum().backward()
    assert bias.grad.tolist() == [1.0, 1.0]
    for steps in ((0.0, [1.0]), (1e-5, [1.0, 1e-5])):
        bias.grad = None
        y = accumulator_qdq(bias, *map(torch.tensor, steps))
        assert torch.equal(y, bias)
        y.sum().backward()
        assert bias.grad.tolist() == [1.0, 1.0]
