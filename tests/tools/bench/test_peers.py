"""Other tools run in an environment of their own; a worker made here stands for theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.bench import peers as tool
from tools.bench.peers import Method, Peer, PeerError

PEER = Peer("numpy", ("numpy",), "fake_worker")  # a package whose version is known here
PLAIN = Method(PEER)

READS_ALL = """
import json, sys
from pathlib import Path
import numpy as np
job = json.loads(Path(sys.argv[1]).read_text())
total = float(np.load(job["data"])["input:0"].sum())
Path(job["output"]).write_bytes(Path(job["model"]).read_bytes())
Path("left_over").write_text("")
print("noise")
found = {"processor_seconds": total, "peak_bytes": job["threads"]}
print(json.dumps({**found, "got": job["settings"]}))
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a method with a worker of the given text."""
    python = PEER.python(tmp_path)
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a file")

    def quantize(text: str, method: Method = PLAIN, case: str = "m"):
        (tmp_path / "fake_worker.py").write_text(text)
        samples = {"input:0": np.ones((3, 2), np.float32)}
        output = tmp_path / "output.onnx"
        return tool.quantize(method, case, model, samples, output, environments=tmp_path, threads=2)

    return quantize


def test_a_worker_gets_model_samples_and_settings(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = run(READS_ALL, Method(PEER, {"weight_bits": 4}))
    assert record == {
        "processor_seconds": 6.0,
        "peak_bytes": 2,
        "got": {"weight_bits": 4},
        "tool": f"numpy {np.__version__}",
        "note": "",
    }
    assert Path("output.onnx").read_bytes() == b"a file"
    assert not Path("left_over").exists()


def test_the_row_says_how_often_adaround_iterates(run) -> None:
    slow = run(READS_ALL, Method(PEER, iterates=True), "resnet20")
    count = slow["got"]["iterations"]
    assert 0 < count < 10_000
    assert slow["note"] == f"{count:,} iterations a layer"
    assert run(READS_ALL, Method(PEER, iterates=True))["note"] == "10,000 iterations a layer"


def test_failures_say_the_last_line(run) -> None:
    with pytest.raises(PeerError, match=r"^ValueError: no such operator$"):
        run("raise ValueError('no such operator')")
    with pytest.raises(PeerError, match=r"^exit status 3$"):
        run("raise SystemExit(3)")


def test_a_run_has_a_limit(run, monkeypatch) -> None:
    monkeypatch.setattr(tool, "LIMIT", 0)
    with pytest.raises(PeerError, match=r"^ran out of 0 minutes$"):
        run("import signal; signal.pause()")


def test_environments_are_made_once_and_whole(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(tool, "PEERS", (PEER,))
    monkeypatch.setattr(sys, "argv", ["peers", "install", "--environments", str(tmp_path)])
    monkeypatch.setattr(tool.venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))
    commands = []

    def pip(command: list[str], *, check: bool) -> None:
        commands.append(command)
        if len(commands) == 1:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(tool.subprocess, "run", pip)
    with pytest.raises(subprocess.CalledProcessError):
        tool.main()
    assert not (tmp_path / "numpy").exists()
    tool.main()
    tool.main()
    assert (tmp_path / "numpy").is_dir()
    assert len(commands) == 2
    assert commands[1][-3:] == ["-c", str(tool.ROOT / "constraints.txt"), "numpy"]
