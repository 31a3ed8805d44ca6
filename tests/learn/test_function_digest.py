"""Functions that compute the same have one digest, others have another."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onnx_cgmq.learn.function_digest import function_digest


def weighted(share: float, names: Any = ()) -> Callable[..., Any]:
    def loss(outputs, labels, teacher):
        return share * outputs[names[0]].sum()

    return loss


def with_default(share: float) -> Callable[..., Any]:
    def loss(outputs, labels, teacher, share=share):
        return share * outputs["y"].sum()

    return loss


class Loss:
    def __init__(self, share: Any) -> None:
        self.share = share
        self.itself = self

    def __call__(self, outputs, labels, teacher):
        return self.share * outputs["y"].sum()

    def method(self, outputs, labels, teacher):
        return self.share * outputs["y"].mean()


@dataclass
class Options:
    share: float


class Module(nn.Module):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), share))

    def forward(self, outputs, labels, teacher):
        return (self.weight * outputs["y"]).sum()


def total(share, outputs, labels, teacher):
    return share * outputs["y"].sum()


MAKERS = [
    weighted,
    with_default,
    Loss,
    Module,
    lambda share: Loss(share).method,
    lambda share: Loss(np.full(3, share)),
    lambda share: Loss({"weights": [share, None]}),
    lambda share: functools.partial(total, share),
    lambda share: weighted(0.0, Options(share)),
    lambda share: lambda outputs, labels, teacher: share * outputs["y"].sum(),
]


@pytest.mark.parametrize("make", MAKERS)
def test_it_changes_with_what_a_function_carries(make) -> None:
    assert function_digest(make(0.5)) == function_digest(make(0.5))
    assert function_digest(make(0.5)) != function_digest(make(0.25))


def test_it_differs_between_kinds_of_functions() -> None:
    digests = [function_digest(make(0.5)) for make in MAKERS]
    digests += map(function_digest, (torch.dot, nn.functional.mse_loss, Loss, nn.MSELoss()))
    assert len(set(digests)) == len(digests)


def test_it_changes_with_the_code_and_not_with_its_lines() -> None:
    def compiled(text: str) -> Callable[..., Any]:
        space: dict[str, Any] = {"__name__": "losses"}
        exec(text, space)
        return space["loss"]

    text = "def loss(outputs, labels, teacher):\n    return [v in {'a', 'b'} for v in outputs]\n"
    moved = compiled("\n\n" + text.replace("    return", "    # why\n    return"))
    assert function_digest(compiled(text)) == function_digest(moved)
    for old, new in (("'b'", "'c'"), ("in outputs", "in teacher"), ("[v in", "[v not in")):
        assert function_digest(compiled(text)) != function_digest(compiled(text.replace(old, new)))
