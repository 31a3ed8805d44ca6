"""Fitted ranges: least squared error of every width, by form and granularity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.mirror.quantizers import observed
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.quantizers.ranges import fit_ranges
from tests.support.plans import FIXED_FORMS

WIDTHS = (2, 4, 8, 16)


def _spec(
    form: GridForm,
    granularity: Granularity = Granularity.TENSOR,
    shape: tuple[int, ...] = (5, 40),
    widths: tuple[int, ...] = (*WIDTHS, 32),
    role: Role = Role.WEIGHT,
) -> QuantizerSpec:
    axis = 0 if role is Role.WEIGHT else 1
    channel = granularity is Granularity.CHANNEL
    return QuantizerSpec(
        "t", role, form, granularity, Ladder(widths), shape, axis if channel else None
    )


def _values(form: GridForm, shape: tuple[int, ...] = (5, 40)) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values.abs() if form is GridForm.UNSIGNED else values + 0.3


def _error(spec: QuantizerSpec, low, high, values: torch.Tensor, width: int) -> torch.Tensor:
    """Squared error of every value, as the quantizer of the mirror makes it."""
    quantizer = GatedQuantizer(spec, low, high, torch.full(spec.gate_shape, 1.0))
    quantizer.set_gate(quantizer.gate_for(np.full(spec.gate_shape, width)))
    quantizer.calibrated.fill_(True)
    return (quantizer(values)[0].detach() - values).square()


@pytest.mark.parametrize("form", FIXED_FORMS)
def test_exact_steps_cover_the_range_and_cost_less_than_a_bit(form) -> None:
    """A power of two may be twice the free step: four times the squared error, rarely more."""
    values = _values(form, (5, 4000))
    free = fit_ranges(_spec(form, role=Role.ACTIVATION), values)
    exact = fit_ranges(replace(_spec(form, role=Role.ACTIVATION), exact=True), values)
    index = WIDTHS.index(8)
    assert (exact.error[index] <= 4.5 * free.error[index]).all()
    assert (exact.high[index] >= 0.8 * values.max()).all()


@pytest.mark.parametrize("form", FIXED_FORMS)
@pytest.mark.parametrize("granularity", list(Granularity))
def test_the_stated_error_is_the_quantizers_and_beats_the_full_range(form, granularity) -> None:
    spec, values = _spec(form, granularity), _values(form)
    fitted = fit_ranges(spec, values)
    assert fitted.high.shape == fitted.low.shape == spec.range_shape
    assert fitted.error.shape == (len(WIDTHS), *spec.range_item_shape)
    axes = (1,) if granularity is Granularity.CHANNEL else (0, 1)
    keep = granularity is Granularity.CHANNEL
    full = torch.full(spec.range_shape, float(values.abs().max()))
    for index, width in enumerate(WIDTHS):
        error = _error(spec, fitted.low, fitted.high, values, width).mean(axes, keep)
        torch.testing.assert_close(error, fitted.error[index], rtol=1e-3, atol=1e-10)
        if granularity is Granularity.ELEMENT and width != WIDTHS[0]:
            continue  # the shared range is that of the narrowest width
        widest = _error(spec, -full if form is GridForm.AFFINE else None, full, values, width)
        assert (error <= widest.mean(axes, keep) + 1e-10).all()


@pytest.mark.parametrize("form", FIXED_FORMS)
def test_ranges_hold_zero_and_are_positive(form) -> None:
    for values in (torch.zeros(5, 40), _values(GridForm.UNSIGNED) + 1, -_values(form) - 1):
        fitted = fit_ranges(_spec(form), values)
        assert (fitted.high > 0).all()
        assert (fitted.low <= 0).all()
        assert torch.isfinite(fitted.error).all()
        if form.is_symmetric:
            assert torch.equal(fitted.low, -fitted.high)
        if form is GridForm.UNSIGNED:
            assert not fitted.low.any()


def test_an_outlier_is_clipped_at_two_bits_and_kept_at_sixteen() -> None:
    values = _values(GridForm.SYMMETRIC, (1, 4000))
    values[0, 0] = 12.0
    high = fit_ranges(_spec(GridForm.SYMMETRIC, shape=(1, 4000)), values).high
    assert float(high[0]) < 3
    assert float(high[-1]) == pytest.approx(12.0)


def test_every_channel_has_its_own() -> None:
    spec = _spec(GridForm.SYMMETRIC, Granularity.CHANNEL)
    scales = torch.tensor([0.0, 1e-3, 0.1, 1.0, 50.0]).reshape(5, 1)
    values = _values(GridForm.SYMMETRIC) * scales
    fitted = fit_ranges(spec, values)
    for channel in range(5):
        alone = fit_ranges(
            _spec(GridForm.SYMMETRIC, shape=(40,)), values[channel : channel + 1].reshape(-1)
        )
        torch.testing.assert_close(fitted.high[:, channel, 0], alone.high)
        torch.testing.assert_close(fitted.error[:, channel, 0], alone.error)


def test_channels_of_activations_take_any_number_of_samples() -> None:
    spec = _spec(GridForm.UNSIGNED, Granularity.CHANNEL, (1, 3, 2, 2), role=Role.ACTIVATION)
    values = _values(GridForm.UNSIGNED, (7, 3, 2, 2))
    fitted = fit_ranges(spec, values)
    rows = values.movedim(1, 0).reshape(3, -1)
    for channel in range(3):
        alone = fit_ranges(_spec(GridForm.UNSIGNED, shape=(28,)), rows[channel])
        torch.testing.assert_close(fitted.high[:, 0].reshape(4, 3)[:, channel], alone.high)


def test_elements_share_the_range_of_the_narrowest_width() -> None:
    values = _values(GridForm.SYMMETRIC)
    shared = fit_ranges(_spec(GridForm.SYMMETRIC, Granularity.ELEMENT), values)
    each = fit_ranges(_spec(GridForm.SYMMETRIC), values)
    torch.testing.assert_close(shared.high, each.high[:1])
    torch.testing.assert_close(shared.error[0], each.error[0])
    assert (shared.error[1:] >= each.error[1:]).all()


@pytest.mark.parametrize("granularity", list(Granularity))
def test_a_gate_that_is_always_float_has_some_range(granularity) -> None:
    spec = _spec(GridForm.SYMMETRIC, granularity, widths=(32,))
    fitted = fit_ranges(spec, _values(GridForm.SYMMETRIC))
    assert fitted.high.shape == spec.range_shape
    assert (fitted.high > 0).all()


def test_large_tensors_are_thinned_to_nearly_the_same_range(monkeypatch) -> None:
    values = _values(GridForm.SYMMETRIC, (5, 4000))
    spec = _spec(GridForm.SYMMETRIC, shape=(5, 4000))
    whole = fit_ranges(spec, values)
    monkeypatch.setattr(observed, "_MOST_VALUES", 4000)
    thinned = fit_ranges(spec, values)
    torch.testing.assert_close(thinned.high[:3], whole.high[:3], rtol=0.2, atol=0)
    torch.testing.assert_close(thinned.error, whole.error, rtol=0.2, atol=0)


def test_fitting_learns_nothing() -> None:
    values = _values(GridForm.SYMMETRIC).requires_grad_()
    fitted = fit_ranges(_spec(GridForm.SYMMETRIC), values)
    assert not fitted.high.requires_grad
    assert not fitted.error.requires_grad
