"""The report has a row for each size, and data that takes too much memory is an error."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import onnx_cgmq as cgmq
from tools.bench import streams as tool


@pytest.mark.parametrize(("peak", "refused"), [(1.2e9, False), (1.4e9, True)])
def test_memory_that_grows_with_the_data_is_refused(monkeypatch, tmp_path, peak, refused) -> None:
    peaks = {400: 10**9, 4000: int(peak)}
    monkeypatch.setattr(
        tool, "_in_own_process", lambda size: tool.Run(size, 10**8, peaks[size], 7.0)
    )
    output = tmp_path / "streams.md"
    monkeypatch.setattr(sys, "argv", ["streams", "--output", str(output)])
    if refused:
        with pytest.raises(SystemExit, match="grows with the data"):
            tool.main()
    else:
        tool.main()
    rows = [line for line in output.read_text().splitlines() if " MB | " in line]
    assert [row.split("|")[4].strip() for row in rows] == ["1.00", f"{peak / 1e9:.2f}"]


def test_batches_are_as_large_as_they_say() -> None:
    batches = list(tool.blots(50))
    assert sum(batch.nbytes for batch in batches) == pytest.approx(50e6, rel=0.02)
    assert not np.array_equal(batches[0], batches[1])
    with pytest.raises(cgmq.DataError, match="wanted 512"):
        cgmq.quantize(tool.network(), batches[0][..., 1:], "3%")
