"""The rank correlation of the benchmark of sensitivity."""

from __future__ import annotations

import pytest

from tools.bench.sensitivity import spearman


@pytest.mark.parametrize(
    ("one", "other", "correlation"),
    [
        ([1, 2, 3, 4], [10, 200, 3000, 40000], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3], [1, 3, 2], 0.5),
        ([1, 2, 2, 3], [1, 5, 5, 9], 1.0),  # equal numbers share a rank
        ([1, 2, 3, 4], [1, 1, 2, 2], 2 / 5**0.5),
    ],
)
def test_rank_correlations(one, other, correlation) -> None:
    assert spearman(one, other) == pytest.approx(correlation)
