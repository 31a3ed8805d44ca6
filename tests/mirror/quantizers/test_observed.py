"""What a quantizer has seen: the ends of everything, whatever the sample hits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_cgmq.contract.bits import Granularity, GridForm, Ladder, Role
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.mirror.quantizers import observed
from onnx_cgmq.mirror.quantizers.observed import Observer, observe_all
from onnx_cgmq.mirror.quantizers.ranges import fit_ranges

ROWS, COLUMNS = 4, 80_000  # larger than every sample
LADDER = Ladder((2, 4, 8, 16))


def _weight(granularity: Granularity) -> QuantizerSpec:
    axis = 0 if granularity is Granularity.CHANNEL else None
    form = GridForm.SYMMETRIC
    return QuantizerSpec("w", Role.WEIGHT, form, granularity, LADDER, (ROWS, COLUMNS), axis)


def _activation(granularity: Granularity) -> QuantizerSpec:
    axis = 1 if granularity is Granularity.CHANNEL else None
    shape = (1, ROWS, COLUMNS)
    form = GridForm.AFFINE
    return QuantizerSpec("x", Role.ACTIVATION, form, granularity, LADDER, shape, axis)


@given(
    row=st.integers(0, ROWS - 1), column=st.integers(0, COLUMNS - 1), sign=st.sampled_from((-1, 1))
)
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("granularity", [Granularity.TENSOR, Granularity.CHANNEL])
def test_one_extreme_value_anywhere_is_within_the_range(granularity, row, column, sign) -> None:
    """With 16 bits there is no reason to clip it; with 8 there is, if it is one of very many."""
    values = torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) - 0.5
    values[row, column] = 25.0 * sign
    high = fit_ranges(_weight(granularity), values).high.reshape(4, -1)
    own = row if granularity is Granularity.CHANNEL else 0
    assert float(high[3, own]) == pytest.approx(25, rel=0.05)
    if granularity is Granularity.CHANNEL:
        assert float(high[2, own]) > 15
        assert float(high[3, (row + 1) % ROWS]) < 1


@pytest.mark.parametrize("granularity", [Granularity.TENSOR, Granularity.CHANNEL])
def test_the_ends_of_all_batches_are_kept(granularity) -> None:
    spec = _activation(granularity)
    observer = Observer(spec, batches=3)
    for batch in range(3):
        values = torch.rand(2, ROWS, COLUMNS, generator=torch.Generator().manual_seed(batch))
        values[1, batch, 77_777] = 40.0 + batch
        values[0, batch, 5] = -30.0 - batch
        observer.add(values)
    seen = observer.observed()
    assert seen.rows.numel() < 3 * 2 * ROWS * COLUMNS
    assert float(seen.shares.sum()) == pytest.approx(1, abs=1e-4)
    if granularity is Granularity.TENSOR:
        assert (float(seen.rows.min()), float(seen.rows.max())) == (-32.0, 42.0)
    else:
        assert seen.rows.amax(dim=1)[:3].tolist() == [40.0, 41.0, 42.0]
        assert seen.rows.amin(dim=1)[:3].tolist() == [-30.0, -31.0, -32.0]


def test_a_sample_sees_every_channel_of_the_last_axis() -> None:
    """Positions that fall in step with an axis would leave out most of its channels."""
    values = torch.zeros(4096, 256)
    values[:, ::2] = 1.0
    seen = observe_all(_weight(Granularity.TENSOR), values)
    assert seen.rows.numel() < values.numel()
    assert float(seen.rows.mean()) == pytest.approx(0.5, abs=0.02)


def test_small_tensors_are_kept_as_they_are() -> None:
    values = torch.arange(12.0).reshape(ROWS, 3)
    spec = QuantizerSpec(
        "w", Role.WEIGHT, GridForm.SYMMETRIC, Granularity.CHANNEL, LADDER, (ROWS, 3), 0
    )
    seen = observe_all(spec, values)
    assert torch.equal(seen.rows, values)
    assert float(seen.shares.sum()) == pytest.approx(1)


def test_values_that_are_not_finite_count_as_zero() -> None:
    values = torch.tensor([1.0, torch.nan, torch.inf, -2.0])
    spec = QuantizerSpec("w", Role.WEIGHT, GridForm.SYMMETRIC, Granularity.TENSOR, LADDER, (4,))
    assert observe_all(spec, values).rows.tolist() == [[1.0, 0.0, 0.0, -2.0]]


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(ValueError, match="'w' has no values"):
        Observer(_weight(Granularity.TENSOR)).observed()


def test_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(observed, "_MOST_VALUES", 1000)
    observer = Observer(_activation(Granularity.TENSOR), batches=10)
    for _ in range(10):
        observer.add(torch.rand(5000))
    assert observer.observed().rows.numel() <= 1024 + 10 + 2
