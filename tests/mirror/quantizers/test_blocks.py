"""A quantizer of blocks does what a quantizer of its own would do for each block."""

from __future__ import annotations

import pytest
import torch

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.mirror.quantizers.blocks import of_elements, quantizer_of
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer

BLOCK = 16


def spec(shape: tuple[int, ...], axis: int | None = None, block: int | None = None):
    return QuantizerSpec(
        tensor="w",
        role=Role.WEIGHT,
        form=GridForm.SYMMETRIC,
        granularity=Granularity.TENSOR,
        ladder=Ladder((2, 4, 8)),
        shape=shape,
        axis=axis,
        channel_ranges=axis is not None,
        block=block,
    )


def made(of: QuantizerSpec, width: int) -> GatedQuantizer:
    gate = torch.tensor(of.ladder.gate_of(width))
    return quantizer_of(of, None, torch.ones(of.range_shape), gate)


def blocks_of(matrix: torch.Tensor, axis: int) -> dict[tuple[int, int], torch.Tensor]:
    """The blocks by channel and place."""
    rows = matrix if axis == 0 else matrix.T
    return {
        (channel, place): row[place * BLOCK : (place + 1) * BLOCK]
        for channel, row in enumerate(rows)
        for place in range(len(row) // BLOCK)
    }


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_each_block_is_quantized_alone(width, axis):
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn((5, 3 * BLOCK) if axis == 0 else (3 * BLOCK, 5), generator=generator)
    whole = made(spec(tuple(weight.shape), axis, BLOCK), width)
    whole.fit(weight)
    weight.requires_grad_(True)
    result, step = whole(weight)
    downstream = torch.randn(weight.shape, generator=generator)
    result.backward(downstream)
    steps = blocks_of(of_elements(whole.spec, step), axis)
    found, gradient, incoming = (
        blocks_of(tensor.detach(), axis) for tensor in (result, weight.grad, downstream)
    )
    total = torch.zeros(())
    for key, values in blocks_of(weight.detach().clone(), axis).items():
        alone = made(spec((1, BLOCK), axis=0), width)
        alone.fit(values[None])
        own = values[None].clone().requires_grad_(True)
        expected, own_step = alone(own)
        expected.backward(incoming[key][None])
        torch.testing.assert_close(found[key][None], expected.detach(), rtol=0, atol=0)
        torch.testing.assert_close(gradient[key][None], own.grad, rtol=0, atol=0)
        assert bool((steps[key] == own_step).all())
        total = total + alone.log_high.grad.sum()
    torch.testing.assert_close(whole.log_high.grad.sum(), total, rtol=1e-4, atol=1e-4)


def test_without_blocks_nothing_is_reshaped():
    of = spec((4, 6), axis=0)
    assert type(made(of, 4)) is GatedQuantizer
    step = torch.ones(of.range_item_shape)
    assert of_elements(of, step) is step


@pytest.mark.parametrize("axis", [0, 1])
def test_a_spec_survives_its_text(axis):
    of = spec((32, 64), axis, BLOCK)
    assert QuantizerSpec.from_json(of.to_json()) == of
    assert of.range_item_shape == ((32, 4, 1) if axis == 0 else (2, 1, 64))
