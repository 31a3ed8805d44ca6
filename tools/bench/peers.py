"""Other tools that quantize ONNX files, each in an environment of its own, for accuracy.py.

    python -m tools.bench.peers install --environments FOLDER      # Python 3.11 or newer
    python -m tools.bench.accuracy run --environments FOLDER --methods aimet,nncf,onnxsim ...

A tool gets the same samples as ours, without labels. A run that takes longer than ``LIMIT`` fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tools import ROOT
from tools.fetch.deploy_models import Arrays

LIMIT: Final = 30 * 60
"""Seconds that a tool may take for a file."""

_ADAROUND_ITERATIONS: Final = 10_000  # aimet-onnx's default
_FEWER_ITERATIONS: Final = {"resnet20": 1_000}
"""Iterations of AdaRound that took half of ``LIMIT`` on a shared core; the default takes longer."""


class PeerError(Exception):
    """A tool made no file; the message says why."""


@dataclass(frozen=True)
class Peer:
    """A tool.

    Attributes:
        package: What its versions are of.
        requirements: What pip installs.
        worker: The module that runs it.
    """

    package: str
    requirements: tuple[str, ...]
    worker: str

    def python(self, environments: Path) -> Path:
        """The interpreter of its environment."""
        return environments.absolute() / self.package / "bin" / "python"


_AIMET = Peer(
    "aimet-onnx",
    ("aimet-onnx==2.42.*", "onnxruntime", "torch"),
    "tools.workers.quantize_with_aimet",
)
_NNCF = Peer("nncf", ("nncf==3.*", "onnx", "onnxruntime"), "tools.workers.quantize_with_nncf")
_ONNXSIM = Peer(
    "onnxsim", ("onnxsim==0.8.*", "onnx", "onnxruntime"), "tools.workers.quantize_with_onnxsim"
)
PEERS: Final = (_AIMET, _NNCF, _ONNXSIM)


@dataclass(frozen=True)
class Method:
    """A way to use a tool.

    Attributes:
        peer: The tool.
        settings: What its worker takes.
        iterates: Whether the worker also takes ``iterations``, which the model decides.
    """

    peer: Peer
    settings: Mapping[str, Any] = field(default_factory=dict)
    iterates: bool = False


METHODS: Final = {
    "nncf 8/8": Method(_NNCF, {"fast_bias_correction": True}),
    "nncf 8/8 slow bias correction": Method(_NNCF, {"fast_bias_correction": False}),
    "aimet 8/8": Method(_AIMET, {"weight_bits": 8, "iterations": 0}),
    "aimet AdaRound 4/8": Method(_AIMET, {"weight_bits": 4}, iterates=True),
    "onnxsim AdaRound 8/8": Method(_ONNXSIM, {"method": "AdaRound 8/8"}),
    "onnxsim AdaRound INT4 weights": Method(_ONNXSIM, {"method": "AdaRound INT4 weights"}),
    "onnxsim BRECQ INT4 weights": Method(_ONNXSIM, {"method": "BRECQ INT4 weights"}),
}


def quantize(
    method: Method,
    case: str,
    model: Path,
    arrays: Arrays,
    output: Path,
    *,
    environments: Path,
    threads: int,
) -> dict[str, Any]:
    """Writes a file with a tool.

    Args:
        method: How.
        case: Name of the model.
        model: The float file.
        arrays: Samples by input name.
        output: The file to write.
        environments: The folder that ``install`` made.
        threads: Number of cores that the tool may use.

    Returns:
        Its ``processor_seconds``, ``peak_bytes``, ``tool`` (with its version) and ``note`` (for the
        table).

    Raises:
        PeerError: The tool fails or runs out of time.
    """
    settings = dict(method.settings)
    note = ""
    if method.iterates:
        settings["iterations"] = _FEWER_ITERATIONS.get(case, _ADAROUND_ITERATIONS)
        note = f"{settings['iterations']:,} iterations a layer"
    python = method.peer.python(environments)
    with tempfile.TemporaryDirectory() as name:
        job, data = Path(name) / "job.json", Path(name) / "samples.npz"
        np.savez(data, **arrays)  # type: ignore[arg-type]  # names of inputs are any
        files = {"model": model, "data": data, "output": output}
        record = {key: str(path.resolve()) for key, path in files.items()}
        job.write_text(json.dumps({**record, "settings": settings, "threads": threads}))
        figures = json.loads(_output([str(python), "-m", method.peer.worker, str(job)], threads))
    return {
        **figures,
        "tool": f"{method.peer.package} {_version(method.peer, python)}",
        "note": note,
    }


def _output(command: list[str], threads: int) -> str:
    """The last line that a worker prints.

    Raises:
        PeerError: It fails or runs out of time.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:  # some tools leave files where they run
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                cwd=folder,
                env=environment,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"ran out of {LIMIT // 60} minutes") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise PeerError(lines[-1])
    return done.stdout.strip().splitlines()[-1]


def _version(peer: Peer, python: Path) -> str:
    program = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    command = [str(python), "-c", program, peer.package]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def install(arguments: argparse.Namespace) -> None:
    """Makes the environments that are not there yet, with our versions of what both need."""
    for peer in PEERS:
        folder = arguments.environments / peer.package
        if folder.exists():
            continue
        print(peer.package, flush=True)
        partial = arguments.environments / f"{peer.package}.partial"
        venv.create(partial, clear=True, with_pip=True)
        pip = [str(partial / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        constraints = ["-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *constraints, *peer.requirements], check=True)
        partial.rename(folder)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("install")
    command.set_defaults(action=install)
    command.add_argument("--environments", type=Path, required=True, help="folder to make them in")
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
