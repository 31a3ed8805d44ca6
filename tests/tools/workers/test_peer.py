"""What the workers of other tools share."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from tools.workers import peer


def test_batches_have_one_size() -> None:
    arrays = {"a": np.arange(7), "b": np.arange(7) * 2}
    found = peer.batches(arrays, 3)
    assert [batch["a"].tolist() for batch in found] == [[0, 1, 2], [3, 4, 5]]
    assert [batch["b"].tolist() for batch in found] == [[0, 2, 4], [6, 8, 10]]


def test_a_job_is_read_done_and_measured(monkeypatch, tmp_path, capsys) -> None:
    cores = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, chosen: cores.extend(chosen))
    np.savez(tmp_path / "data.npz", x=np.ones(2))
    paths = {name: str(tmp_path / name) for name in ("model", "output")}
    job = {**paths, "data": str(tmp_path / "data.npz"), "settings": {"bits": 4}, "threads": 2}
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / "job.json")])

    def quantize(model: Path, arrays: peer.Arrays, output: Path, *, bits: int) -> None:
        output.write_text(f"{model.name} {arrays['x'].sum()} {bits}")

    peer.main(quantize)
    assert (tmp_path / "output").read_text() == "model 2.0 4"
    assert json.loads(capsys.readouterr().out).keys() == {"processor_seconds", "peak_bytes"}
    assert cores == [2, 3]
