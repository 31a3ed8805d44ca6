"""That the benchmark of images compares equal convolutions, and writes a line for each."""

from __future__ import annotations

from tools.measure.image_channels import Case, measure, table


def test_both_compute_the_same(tmp_path) -> None:
    case = Case(outputs=8, kernel=3, stride=2, size=16)
    plain, padded = measure(case, tmp_path, rounds=1)
    assert plain.ratio == 1
    assert padded.max_difference == 0
    assert padded.file_bytes > plain.file_bytes
    assert "| 3 x 3 | 2 | 16 x 16 | 8 |" in table([(case, (plain, padded))])
