from __future__ import annotations

from tools.measure.process import measured

LARGE = 100_000_000


def test_the_peak_is_that_of_the_work_alone() -> None:
    _, before = measured(lambda: None)
    _, during = measured(lambda: bytearray(b"1") * LARGE)
    seconds, after = measured(lambda: None)
    assert during > before + 0.9 * LARGE
    assert after < before + 0.5 * LARGE
    assert seconds >= 0
