"""A run in one of several processes, as ``torchrun`` starts it, for tests of what they share.

``python -m torch.distributed.run --nproc-per-node 2 -m tests.support.joined_run FOLDER SETTINGS``
writes the plan and the loss of each process to the folder. The process ``dies``, if it is given,
after its evaluation of that number.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from onnx_cgmq.api.pipeline import quantize
from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.contract.plan import BitPlan
from onnx_cgmq.learn import schedule
from onnx_cgmq.learn.evaluation import Evaluator
from tests.support.toys import convnet, toy_data

SETTINGS = {"bound": "3%", "widths": (2, 4, 8), "batch_size": 33, "epochs": 2}
STEPS = dict.fromkeys(schedule.STEPS, (8, 8))
PROCESSES = 2


def run(**settings: Any) -> tuple[BitPlan, float, str]:
    """The plan of a small run, its loss, and why it ended."""
    model = convnet()
    result = quantize(model, toy_data(model, 150), **{**SETTINGS, **settings})
    return result.plan, result.outcome.validation_loss, result.outcome.reason


def run_joined(
    folder: Path, *, dies: tuple[int, int] | None = None, **settings: Any
) -> tuple[list[tuple[BitPlan, float, str]], int]:
    """What each of two processes gives that lives to its end, and the exit code of ``torchrun``."""
    options = ["--standalone", "--nproc-per-node", str(PROCESSES)]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", __name__]
    given = json.dumps({"dies": dies, **settings})
    done = subprocess.run([*command, str(folder), given], check=False, timeout=300)
    files = sorted(folder.glob("*.pickle"))
    return [pickle.loads(file.read_bytes()) for file in files], done.returncode


def _main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    schedule.STEPS = STEPS
    rank, dies = Launch.of_environment().rank, settings.pop("dies")
    if dies is not None and rank == dies[0]:
        _die_after(dies[1])
    found = run(**settings)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))


def _die_after(evaluations: int) -> None:
    evaluate, left = Evaluator.evaluate, [evaluations]

    def counted(self: Evaluator, *arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(self, *arguments)

    Evaluator.evaluate = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    _main()
