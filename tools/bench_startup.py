"""Times how long ``import onnx_cgmq`` and ``onnx-cgmq --help`` take, beside an earlier state.

Both states run in the same environment, as processes of their own, in interleaved rounds, so that
other work on the machine hits both alike.

    git worktree add ../before COMMIT
    python tools/bench_startup.py --before ../before --output docs/benchmarks/startup.md
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_NOW = Path(__file__).parent.parent
_COMMANDS = {
    "`import onnx_cgmq`": ("-c", "import onnx_cgmq"),
    "`onnx-cgmq --help`": ("-m", "onnx_cgmq", "--help"),
}


class Run(NamedTuple):
    """Seconds that one process took: by the clock, and of the processor."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the start of two states of onnx-cgmq.")
    parser.add_argument("--before", type=Path, required=True, help="folder with the earlier state")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    options = parser.parse_args()

    folders = (options.before.resolve(), _NOW.resolve())
    rows = [
        _row(name, *_runs(arguments, folders, options.rounds))
        for name, arguments in _COMMANDS.items()
    ]
    report = _report(rows, [_commit(folder) for folder in folders], options.rounds)
    print(report, end="")
    if options.output is not None:
        options.output.write_text(report, encoding="utf-8")


def _runs(
    arguments: Sequence[str], folders: tuple[Path, Path], rounds: int
) -> tuple[list[Run], list[Run]]:
    """Runs of the state before and of that of now, round by round."""
    for folder in folders:
        _run(arguments, folder)  # compiles the modules and fills the cache of the disk
    pairs = [tuple(_run(arguments, folder) for folder in folders) for _ in range(rounds)]
    return [before for before, _ in pairs], [now for _, now in pairs]


def _run(arguments: Sequence[str], folder: Path) -> Run:
    """Runs Python in an empty folder, with the package of another one first on the path."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with tempfile.TemporaryDirectory() as empty:
        spent, start = _processor_seconds(), time.perf_counter()
        command = [sys.executable, *arguments]
        subprocess.run(command, cwd=empty, env=environment, check=True, stdout=subprocess.DEVNULL)
        return Run(time.perf_counter() - start, _processor_seconds() - spent)


def _processor_seconds() -> float:
    """Of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _row(name: str, before: Sequence[Run], now: Sequence[Run]) -> str:
    cells = [
        f"{statistics.median(getattr(run, kind) for run in runs):.3f}"
        for kind in ("wall", "cpu")
        for runs in (before, now)
    ]
    ratio = statistics.median(b.cpu / a.cpu for a, b in zip(before, now, strict=True))
    return f"| {name} | {' | '.join(cells)} | {ratio:.2f} |"


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _report(rows: Sequence[str], commits: Sequence[str], rounds: int) -> str:
    before, now = commits
    lines = (
        "# Time to start",
        "",
        f"Seconds of a process, medians of {rounds} interleaved rounds: commit {before} (before)",
        f"and {now} (now). Python {platform.python_version()}, {os.cpu_count()} cores; load of the",
        f"machine at the end {os.getloadavg()[0]:.1f}: other work makes times by the clock longer.",
        "The ratio is the median over rounds of now by before, in seconds of the processor.",
        "",
        "| | clock, before | clock, now | processor, before | processor, now | ratio |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "Made by `python tools/bench_startup.py --before FOLDER --output FILE`.",
    )
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
