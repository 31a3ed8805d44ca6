from __future__ import annotations

import numpy as np
import pytest

from onnx_cgmq.ort.channel_statistics import ChannelStatistics
from onnx_cgmq.preparation.equalization_factors import Reader, best_factors

RNG = np.random.default_rng(0)


def seen(values: np.ndarray) -> ChannelStatistics:
    return ChannelStatistics(values.min(0), values.max(0), np.square(values).mean(0))


def quantized(values: np.ndarray, low: float, high: float, codes: int) -> np.ndarray:
    step = (high - low) / codes
    return np.round(values / step) * step


@pytest.mark.parametrize("width", [4, 8])
def test_the_predicted_error_is_that_of_rounding(width: int) -> None:
    values = RNG.uniform(0, 1, (4000, 12)) * np.exp2(RNG.integers(-3, 4, 12))
    kernels = RNG.normal(size=(1, 20, 12, 1))
    reader = Reader.of([seen(values)], kernels, 12)
    for factors in (np.ones(12), np.exp2(RNG.integers(-2, 3, 12))):
        x, w = values / factors, kernels[0, :, :, 0] * factors
        rounded = quantized(x, 0, x.max(), 255)
        rows = np.abs(w).max(axis=1, keepdims=True)
        with_weights = quantized(w, -rows, rows, 2**width - 2)
        error = np.square(rounded @ with_weights.T - x @ w.T).mean(axis=0).sum()
        signal = (np.square(x).mean(axis=0) * np.square(w).sum(axis=0)).sum()
        assert reader.error(factors, width) == pytest.approx(error / signal, rel=0.35)


def test_factors_even_out_the_channels_that_a_depthwise_reader_scales() -> None:
    reach = np.array([1.0, 2.0, 4.0, 16.0, 0.5])
    values = RNG.uniform(0, 1, (1000, 5)) * reach
    factors, left = best_factors([Reader.of([seen(values)], np.ones((5, 1, 1, 9)), 5)])
    np.testing.assert_array_equal(factors / factors[0], reach)
    assert left < 0.5


def test_factors_are_powers_of_two_and_channels_without_values_have_none() -> None:
    values = RNG.normal(size=(100, 8)) * [1, 3, 0, 50, 1e-6, 0.1, 0, 7]
    kernels = RNG.normal(size=(1, 4, 8, 9)) / np.array([1, 3, 1, 50, 1, 0.1, 1, 7])[:, None]
    factors, _ = best_factors([Reader.of([seen(values)], kernels, 8)])
    np.testing.assert_array_equal(np.log2(factors) % 1, 0)
    np.testing.assert_array_equal(factors[[2, 6]], 1)
    assert factors.max() / factors.min() <= 2.0**10


def test_nothing_moves_at_the_cost_of_narrow_weights() -> None:
    """Evened out, the activation would win at 8 bits; weights of 4 bits would lose more."""
    values = RNG.uniform(0, 1, (1000, 16)) * np.where(np.arange(16) < 2, 8.0, 1.0)
    reader = Reader.of([seen(values)], np.sign(RNG.normal(size=(1, 8, 16, 1))), 16)
    factors, left = best_factors([reader])
    np.testing.assert_array_equal(factors, 1)
    assert left == 1
    even = np.where(np.arange(16) < 2, 4.0, 1.0)
    assert reader.error(even, 8) < 0.9 * reader.error(np.ones(16), 8)
    assert reader.error(even, 4) > reader.error(np.ones(16), 4)
