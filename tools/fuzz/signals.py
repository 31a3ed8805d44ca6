"""Stops runs by signals at random moments: each time a file or a checkpoint must be there.

Every case starts the command line on a tiny model and sends SIGINT, SIGTERM, SIGHUP or SIGKILL at a
random moment: while it starts, or some time after a random epoch; sometimes one more soon after.
The log tells the epoch, so that a busy machine moves no moment to the end of the run. Then one of
these must hold: there is a file that keeps the bound; there is a checkpoint, and ``--resume`` makes
such a file of it; or no epoch had ended. No traceback may be shown, the exit code must be the one
of the signal, and no unfinished file may be left, unless the run was killed or stopped twice.

    python -m tools.fuzz.signals --cases 50
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import onnx_cgmq as cgmq
from onnx_cgmq.contract.replace import PART_PREFIX
from onnx_cgmq.errors import CgmqError

_BOUND = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
_TWICE = 0.3  # share of the cases with two signals
_STARTING = 0.2  # share of the cases in which the signal comes while the program starts
_LATER = 0.1  # the most seconds after the end of an epoch; about what an epoch takes
_EPOCHS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_sources(folder)
        start = _seconds_of_a_start(folder)
        for case in range(options.cases):
            draw = random.Random(f"{options.seed} {case}")
            found = stop_a_run(folder, draw, start)
            results[found] += 1
            print(f"{case:4} {found}", flush=True)
            if found.startswith("WRONG"):
                wrong.append(case)
    for found, count in results.most_common():
        print(f"{count:4} x {found}")
    sys.exit(bool(wrong))


def stop_a_run(folder: Path, draw: random.Random, start: float) -> str:
    """Starts a run, stops it, and returns what is left, or ``WRONG`` and what should not be."""
    for path in (*folder.glob("out.*"), *folder.glob(f"{PART_PREFIX}*")):
        path.unlink()
    sent = [draw.choice(_SIGNALS)]
    starting = draw.random() < _STARTING
    epoch = 0 if starting else draw.randint(1, _EPOCHS)
    waits = [draw.uniform(0, start if starting else _LATER)]
    if draw.random() < _TWICE:
        sent.append(draw.choice(_SIGNALS))
        waits.append(draw.uniform(0, 0.3))
    with subprocess.Popen(
        _command(), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        while _epochs(folder) < epoch and run.poll() is None:
            time.sleep(0.01)
        for number, wait in zip(sent, waits, strict=True):
            time.sleep(wait)
            run.send_signal(number)
        _, errors = run.communicate()
    names = "+".join(number.name for number in sent)
    left = _left(folder)
    problem = _problem(folder, left, run.returncode, sent, errors)
    if problem is None:
        return f"{names}: {left}"
    moment = f"epoch {epoch} and {waits}"
    return f"WRONG {names} after {moment}: {problem}, exit code {run.returncode}, {errors[-500:]}"


def _problem(
    folder: Path, left: str, code: int, sent: list[signal.Signals], errors: str
) -> str | None:
    # A negative code: the signal came before Python ran our code, or after.
    allowed = {0, *(128 + n for n in sent), *(-n for n in sent)}
    if code not in allowed:
        return "another exit code"
    if "Traceback" in errors and "onnx_cgmq" in errors:
        return "a traceback"
    parts = list(folder.glob(f"{PART_PREFIX}*"))
    if parts and len(sent) == 1 and code != -signal.SIGKILL:
        return f"{parts[0].name} is left"
    if left == "a file":
        return _problem_of_the_file(folder)
    if left == "a checkpoint":
        resumed = subprocess.run(
            [*_command(), "--resume"], cwd=folder, capture_output=True, text=True, check=False
        )
        if resumed.returncode:
            return f"--resume fails: {resumed.stderr[-500:]}"
        return _problem_of_the_file(folder)
    # An event is logged just before the checkpoint of its epoch is written.
    return "more than an epoch is lost" if _epochs(folder) > 1 else None


def _left(folder: Path) -> str:
    if (folder / "out.onnx").exists():
        return "a file"
    return "a checkpoint" if (folder / "out.checkpoint").exists() else "nothing"


def _problem_of_the_file(folder: Path) -> str | None:
    try:
        report = cgmq.inspect(folder / "out.onnx")
    except CgmqError as error:
        return f"a broken file: {error}"
    return None if report.rbop <= _BOUND else f"the file breaks the bound: {report.rbop}"


def _epochs(folder: Path) -> int:
    log = folder / "out.jsonl"
    if not log.exists():
        return 0
    lines = log.read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["event"] == "epoch" for line in lines if line.endswith("}"))


def _command() -> list[str]:
    arguments = f"quantize model.onnx --data data.npz --bound {_BOUND:%} --epochs {_EPOCHS}"
    outputs = "-o out.onnx --log out.jsonl --batch-size 32"
    return [sys.executable, "-m", "onnx_cgmq", *arguments.split(), *outputs.split()]


def _seconds_of_a_start(folder: Path) -> float:
    """Seconds until the first epoch has ended."""
    began = time.monotonic()
    with subprocess.Popen(
        _command(), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while not _epochs(folder) and run.poll() is None:
            time.sleep(0.01)
        seconds = time.monotonic() - began
        run.kill()
    return seconds


def _write_sources(folder: Path) -> None:
    """A network of two layers, and random samples."""
    generator = np.random.default_rng(0)
    shapes = {"v": (16, 64), "w": (64, 4)}
    float_type = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "v"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w"], ["y"]),
        ],
        "two_layers",
        [helper.make_tensor_value_info("x", float_type, ["n", 16])],
        [helper.make_tensor_value_info("y", float_type, ["n", 4])],
        [
            numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "model.onnx")
    np.savez(folder / "data.npz", x=generator.normal(size=(512, 16)).astype(np.float32))


if __name__ == "__main__":
    main()
