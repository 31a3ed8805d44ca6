"""Ranges of activations follow what is made of them, and only get better."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.learn.range_search import search_ranges
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

SPEC = QuantizerSpec(
    "x", Role.ACTIVATION, GridForm.AFFINE, Granularity.TENSOR, Ladder((4, 8)), (1, 64)
)


def _fitted(values: torch.Tensor, spec: QuantizerSpec = SPEC) -> GatedQuantizer:
    ones, gate = torch.ones(spec.range_shape), torch.tensor(spec.ladder.gate_max)
    quantizer = GatedQuantizer(spec, -ones, ones, gate)
    quantizer.fit(values)
    return quantizer


def test_what_hard_swish_cuts_off_gets_no_codes() -> None:
    values = torch.linspace(-12, 4, 300_000)

    def distance() -> float:
        with torch.no_grad():
            return float(F.mse_loss(F.hardswish(quantizer(values)[0]), F.hardswish(values)))

    quantizer = _fitted(values)
    before, low = distance(), float(quantizer.low.detach()[-1])
    search_ranges([quantizer], distance)
    assert low == pytest.approx(-12, abs=0.1)
    assert -4 < float(quantizer.low.detach()[-1]) < -2.8
    assert distance() < before / 2
    assert not torch.equal(quantizer.low[0], quantizer.low[-1])  # the 4-bit range stays apart


@given(seed=st.integers(0, 100))
def test_it_never_gets_worse(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2000, generator=generator) * 3
    weight = torch.rand(2000, generator=generator) ** 8

    def distance() -> float:
        with torch.no_grad():
            return float(((quantizer(values)[0] - values).square() * weight).mean())

    quantizer = _fitted(values)
    before = distance()
    search_ranges([quantizer], distance)
    assert distance() <= before


@pytest.mark.parametrize(
    "spec",
    [replace(SPEC, role=Role.WEIGHT), replace(SPEC, ladder=Ladder((8, 16)))],
    ids=["weight", "16 bits"],
)
def test_other_quantizers_stay(spec: QuantizerSpec) -> None:
    quantizer = _fitted(torch.linspace(-3, 5, 64).reshape(1, 64), spec)
    before = quantizer.base_high.clone()

    def distance() -> float:
        raise AssertionError("nothing is to be measured")

    search_ranges([quantizer], distance)
    assert torch.equal(quantizer.base_high, before)
