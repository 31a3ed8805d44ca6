"""The gated quantizer: widths by gate, ranges, kernel steps, plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.mirror.quantizers.quantizer import GatedQuantizer
from onnx_cgmq.mirror.quantizers.tensor_plans import narrow_to_codes, tensor_plan
from tests.support.plans import FIXED_FORMS


def _quantizer(
    granularity: Granularity = Granularity.TENSOR,
    *,
    form: GridForm = GridForm.SYMMETRIC,
    role: Role = Role.WEIGHT,
    shape: tuple[int, ...] = (4, 6),
    widths: tuple[int, ...] = (2, 4, 8, 16, 32),
    exact: bool = False,
) -> GatedQuantizer:
    axis = 0 if granularity is Granularity.CHANNEL else None
    spec = QuantizerSpec("w", role, form, granularity, Ladder(widths), shape, axis, exact=exact)
    high = torch.ones(spec.range_shape)
    low = -torch.ones(spec.range_shape) if form is GridForm.AFFINE else None
    return GatedQuantizer(spec, low, high, torch.full(spec.gate_shape, spec.ladder.gate_max))


@pytest.mark.parametrize("granularity", list(Granularity))
def test_is_the_identity_at_first(granularity: Granularity) -> None:
    x = torch.randn(4, 6)
    y, step = _quantizer(granularity)(x)
    assert torch.equal(x, y)
    assert not step.any()


@pytest.mark.parametrize("form", FIXED_FORMS)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_codes_are_integers_in_range(form: GridForm, bits: int) -> None:
    torch.manual_seed(1)
    quantizer = _quantizer(form=form)
    x = torch.randn(4, 6) if form is not GridForm.UNSIGNED else torch.rand(4, 6)
    quantizer.fit(x)
    quantizer.set_gate(quantizer.gate_for(np.array(bits)))
    y, step = quantizer(x)
    grid, low, high = quantizer.selected()
    codes = y / grid.step
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=2e-3)
    assert codes.max() <= grid.code_max + 1e-3
    assert codes.min() >= grid.code_min - 1e-3
    assert bool(step == (grid.step if bits <= 8 else 0))
    assert low <= 0 <= high


def test_elements_have_widths_of_their_own_on_nested_grids() -> None:
    quantizer = _quantizer(Granularity.ELEMENT, widths=(0, 2, 4, 8))
    widths = np.array([[0, 2, 4, 8, 2, 4]] * 4)
    quantizer.set_gate(quantizer.gate_for(widths))
    x = torch.linspace(-1, 1, 24).reshape(4, 6)
    y, step = quantizer(x)
    fine = 2.0 / 255
    codes = y / fine
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
    torch.testing.assert_close(step, torch.tensor(fine))
    assert (y[:, 0] == 0).all()
    assert set((y[:, 1] / fine).round().abs().tolist()) <= {0.0, 85.0}


def test_channels_have_ranges_of_their_own_and_one_float_channel_stops_integer_kernels() -> None:
    quantizer = _quantizer(Granularity.CHANNEL)
    x = torch.randn(4, 6) * torch.tensor([[0.01], [0.1], [1.0], [10.0]])
    quantizer.fit(x)
    quantizer.set_gate(quantizer.gate_for(np.array([[2], [4], [8], [8]])))
    y, step = quantizer(x)
    assert step.shape == (4, 1)
    assert (step > 0).all()
    assert ((y - x).abs() <= x.abs().amax(dim=1, keepdim=True)).all()
    quantizer.set_gate(quantizer.gate_for(np.array([[2], [4], [8], [32]])))
    y, step = quantizer(x)
    assert not step.any()
    assert torch.equal(y[3], x[3])


def test_fitted_range_is_narrower_at_fewer_bits() -> None:
    torch.manual_seed(0)
    quantizer = _quantizer(shape=(100, 100))
    quantizer.fit(torch.randn(100, 100))
    high = quantizer.high.tolist()
    assert high == sorted(high)
    assert high[0] < 2.2 < high[2]
    assert quantizer.noise.tolist() == sorted(quantizer.noise.tolist(), reverse=True)


def test_an_uncalibrated_activation_is_fitted_when_its_gate_first_falls() -> None:
    quantizer = _quantizer(role=Role.ACTIVATION, form=GridForm.UNSIGNED, shape=(1, 6))
    quantizer(torch.rand(32, 6) * 40)
    quantizer.set_gate(torch.tensor(2.5))
    quantizer(torch.rand(32, 6) * 40)
    assert bool(quantizer.calibrated)
    assert 35 < float(quantizer.high[2].detach()) < 41


def test_a_plan_needs_no_forward_pass_after_the_gate_fell() -> None:
    quantizer = _quantizer(role=Role.ACTIVATION, form=GridForm.UNSIGNED)
    x = 5 * torch.rand(8, 6)
    quantizer(x)
    quantizer.set_gate(quantizer.gate_for(np.array(4)))
    plan = tensor_plan(quantizer, None)
    y, _ = quantizer(x)
    assert 4 < plan.high < 6
    torch.testing.assert_close(y.max(), torch.tensor(15 * plan.step))


def test_a_loaded_state_has_the_loaded_widths() -> None:
    source, target = _quantizer(), _quantizer()
    source.set_gate(torch.tensor(1.5))
    target.load_state_dict(source.state_dict())
    x = torch.randn(4, 6)
    assert torch.equal(source(x)[0], target(x)[0])
    assert int(target.widths) == 4


def test_ranges_learn() -> None:
    torch.manual_seed(0)
    quantizer = _quantizer()
    x = torch.randn(4, 6) * 3
    quantizer.set_gate(torch.tensor(1.5))
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (quantizer(x)[0] - x).square().mean()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.3 * errors[0]
    assert (quantizer.high > 0).all()


@pytest.mark.parametrize("granularity", list(Granularity))
def test_no_step_is_smaller_than_set(granularity) -> None:
    quantizer = _quantizer(granularity)
    before = quantizer.high.detach().clone()
    quantizer.set_smallest_step(torch.tensor([1.0, 1e-9, 1e-9, 1e-9]))
    counts = [255] if granularity is Granularity.ELEMENT else [3, 15, 255, 65535]
    for width, (high, count) in enumerate(zip(quantizer.high.detach(), counts, strict=True)):
        steps = 2 * high.reshape(-1) / count
        if count <= 255:
            torch.testing.assert_close(steps[0], torch.tensor(1.0))
        torch.testing.assert_close(steps[1:], 2 * before[width].reshape(-1)[1:] / count)


@pytest.mark.parametrize("granularity", list(Granularity))
def test_a_smallest_step_for_all_channels(granularity) -> None:
    quantizer = _quantizer(granularity)
    quantizer.set_smallest_step(torch.tensor([0.5, 1.0]))  # not as many as there are channels
    steps = 2 * quantizer.high.detach()[0].reshape(-1) / (255 if len(quantizer.high) == 1 else 3)
    torch.testing.assert_close(steps, torch.ones_like(steps))


@pytest.mark.parametrize("exact", [False, True])
def test_the_step_that_pairs_need_and_that_of_biases_both_hold(exact) -> None:
    quantizer = _quantizer(Granularity.CHANNEL, exact=exact)
    shape = quantizer.spec.range_item_shape
    quantizer.set_smallest_step(torch.tensor([1.1, 0.1, 1e-9, 1e-9]))
    quantizer.set_smallest_pair_step(torch.tensor([0.5, 0.51, 0.3, 0.0]).reshape(shape))
    before = _quantizer(Granularity.CHANNEL, exact=exact)
    index = quantizer.spec.range_index(8)
    steps = (2 * quantizer.high.detach()[index] / 255).reshape(-1)
    expected = torch.tensor([1.25, 0.625, 0.3125] if exact else [1.1, 0.51, 0.3])
    torch.testing.assert_close(steps[:3], expected)
    assert quantizer.high[index].reshape(-1)[3] == before.high[index].reshape(-1)[3]
    narrow = 2 * quantizer.high.detach()[0].reshape(-1) / 3
    torch.testing.assert_close(narrow[0], torch.tensor(1.25 if exact else 1.1))
    torch.testing.assert_close(narrow[2:], 2 * before.high.detach()[0].reshape(-1)[2:] / 3)
    quantizer.set_smallest_pair_step(torch.zeros(shape))  # as when activations get narrow
    steps = (2 * quantizer.high.detach()[index] / 255).reshape(-1)
    torch.testing.assert_close(steps[0], torch.tensor(1.25 if exact else 1.1))
    assert steps[2] < 0.3


def test_plan_narrows_elements_to_the_grid_that_holds_them() -> None:
    quantizer = _quantizer(Granularity.ELEMENT, shape=(1, 4), widths=(2, 4, 8, 32))
    quantizer.set_gate(quantizer.gate_for(np.array([[8, 8, 8, 2]])))
    fine = 2.0 / 255
    values = torch.tensor([[85 * fine, 17 * fine, 3 * fine, 0.0]])
    before, _ = quantizer(values)
    narrow_to_codes(quantizer, values)
    torch.testing.assert_close(quantizer(values)[0], before)
    plan = tensor_plan(quantizer, values)
    assert plan.widths.tolist() == [[2, 4, 8, 2]]
    np.testing.assert_allclose(plan.step, [[85 * fine, 17 * fine, fine, 85 * fine]], rtol=1e-6)
    assert plan.grid_width == 8


def test_plan_prunes_zero_codes_only_where_pruning_is_allowed() -> None:
    for widths, expected in (((0, 2, 4), [[0, 2]]), ((2, 4), [[2, 2]])):
        quantizer = _quantizer(Granularity.ELEMENT, shape=(1, 2), widths=widths)
        quantizer.set_gate(quantizer.gate_for(np.array([[4, 2]])))
        narrow_to_codes(quantizer, torch.tensor([[0.001, 0.7]]))
        assert quantizer.widths.tolist() == expected


def test_narrowing_channels_keeps_their_values() -> None:
    quantizer = _quantizer(Granularity.CHANNEL, widths=(0, 2, 4, 8))
    values = torch.randn(4, 6) * torch.tensor([[0.0], [0.02], [0.3], [1.0]])
    quantizer.set_gate(quantizer.gate_for(np.array([[4], [8], [8], [8]])))
    before, _ = quantizer(values)
    narrow_to_codes(quantizer, values)
    after, step = quantizer(values)
    torch.testing.assert_close(after, before)
    assert quantizer.widths.reshape(-1).tolist() == [0, 4, 8, 8]
    assert (step > 0).all()


def test_plan_of_an_affine_activation_has_its_zero_point() -> None:
    quantizer = _quantizer(role=Role.ACTIVATION, form=GridForm.AFFINE, shape=(1, 6))
    quantizer.fit(torch.linspace(-1, 3, 1000))
    quantizer.set_gate(torch.tensor(2.5))
    plan = tensor_plan(quantizer, None)
    assert int(plan.widths) == 8
    assert 55 <= int(plan.zero_point) <= 75
    assert plan.values is None


@pytest.mark.parametrize("fused", [False, True])
def test_ranges_are_no_longer_fitted_once_an_optimizer_has_moved_the_values(fused) -> None:
    """Fused Adam leaves torch's version of a tensor as it is."""
    quantizer, values = _quantizer(), torch.nn.Parameter(torch.randn(4, 6))
    assert not quantizer.is_fitted_to(values)
    quantizer.fit(values)
    assert quantizer.is_fitted_to(values)
    values.grad = torch.ones_like(values)
    torch.optim.Adam([values], lr=0.1, fused=fused).step()
    assert not quantizer.is_fitted_to(values)


def test_loaded_ranges_are_not_known_to_be_fitted() -> None:
    quantizer, values = _quantizer(), torch.randn(4, 6)
    state = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.fit(values)
    quantizer.load_state_dict(state)
    assert not quantizer.is_fitted_to(values)
