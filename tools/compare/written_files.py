"""Shows that a change of the code leaves written files the same, byte for byte.

LeNet-5 of ``examples/mnist`` and the four models of the deployment benchmark are quantized twice,
from the same data and with the same settings: with the code of an earlier commit, and with the
present one. Runs are short, on a part of the training data: what is compared is the code, not how
good the files are.

    python -m tools.compare.written_files --shared SHARED --before COMMIT

SHARED holds what ``tools/bench/deploy.py`` needs. Writes docs/benchmarks/written_files.md; the exit
code is 1 if any file differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from tools import ROOT
from tools.fetch.deploy_models import SUBJECTS, Subject
from tools.fetch.models import DEFAULT_CACHE

TABLE = Path("docs/benchmarks/written_files.md")
EXAMPLE = Path("examples/mnist")
WORKER = ROOT / "tools" / "workers" / "quantize_files.py"
SIZES = {
    "resnet20": (192, 32),
    "efficientnet-lite0": (24, 8),
    "ocr-orientation": (96, 16),
    "encoder": (512, 32),
}
"""Samples, and how many of them a training step takes, so that each run lasts some seconds."""
_SHOWN = 12  # digits of a hash


@dataclass(frozen=True)
class Case:
    """One file to write.

    Attributes:
        name: Its name in the table.
        model: The float model, a file in the folder of the cases.
        data: The training data, likewise.
        bound: The bound.
        settings: Further arguments of ``onnx_cgmq.quantize``.
    """

    name: str
    model: str
    data: str
    bound: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    """A file that was written."""

    bytes: int
    sha256: str

    def to_cells(self) -> str:
        """Cells of the table."""
        return f"{self.bytes:,} | `{self.sha256[:_SHOWN]}`"


def make_cases(folder: Path, shared: Path, cache: Path) -> None:
    """Puts models, data and ``cases.json`` into a folder."""
    train = dict(np.load(EXAMPLE / "train.npz"))
    cases = [_lenet5(folder, (EXAMPLE / "lenet5.onnx").read_bytes(), train)]
    for subject in SUBJECTS:
        cases += _deployed(folder, subject, shared, cache)
    write_cases(folder, cases)


def write_cases(folder: Path, cases: Sequence[Case]) -> None:
    """Writes ``cases.json``, for the worker."""
    text = json.dumps([asdict(case) for case in cases], indent=1)
    (folder / "cases.json").write_text(text, encoding="utf-8")


def _lenet5(folder: Path, model: bytes, arrays: dict[str, Any]) -> Case:
    case = Case("lenet5", "lenet5.onnx", "lenet5.npz", "0.9%", {"target": "generic", "epochs": 2})
    (folder / case.model).write_bytes(model)
    np.savez(folder / case.data, **arrays)
    return case


def _deployed(folder: Path, subject: Subject, shared: Path, cache: Path) -> list[Case]:
    """A plan with 8 bits and one with mixed widths, as in the deployment benchmark."""
    model, data = f"{subject.name}.onnx", f"{subject.name}.npz"
    samples, batch_size = SIZES[subject.name]
    (folder / model).write_bytes(subject.model(cache, shared).read_bytes())
    arrays: dict[str, Any] = subject.data(shared)[0]
    chosen = np.random.default_rng(0).permutation(len(next(iter(arrays.values()))))[:samples]
    np.savez(folder / data, **{name: array[chosen] for name, array in arrays.items()})
    common = {"target": "ort-cpu", "batch_size": batch_size}
    eight = {"widths": (8,), "epochs": 1, **common}
    mixed = {"widths": (2, 4, 8), "epochs": 2, **common}
    return [
        Case(f"{subject.name}.8-bit", model, data, "100%", eight),
        Case(f"{subject.name}.mixed", model, data, "size:14%", mixed),
    ]


def quantize_cases(code: Path, cases: Path, target: Path) -> dict[str, File]:
    """Writes all files with the package of a checkout.

    Args:
        code: The checkout; it holds the package ``onnx_cgmq``.
        cases: A folder with ``cases.json``.
        target: The folder to write the files to.

    Returns:
        What was written, by the name of the case.

    Raises:
        RuntimeError: Another package than that of the checkout was run.
    """
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(WORKER), str(cases), str(target)]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
    )
    first, *rest = map(json.loads, done.stdout.splitlines())
    if not Path(first["package"]).is_relative_to(code.resolve()):
        raise RuntimeError(f"ran {first['package']}, not the package in {code}")
    return {record["name"]: File(record["bytes"], record["sha256"]) for record in rest}


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A temporary folder with the files of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkout"
        _git("worktree", "add", "--detach", str(place), revision)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def present() -> str:
    """The present commit, and whether the package differs from it."""
    changed = _git("status", "--porcelain", "onnx_cgmq")
    return _git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")


def differing(before: Mapping[str, File], after: Mapping[str, File]) -> list[str]:
    """Names of the cases whose files differ, or that only one of the two has written."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def page(
    before: Mapping[str, File], after: Mapping[str, File], revision: str, revision_after: str
) -> str:
    """The page with the table."""
    differ = differing(before, after)
    rows = [
        f"| {name} | {before[name].to_cells()} | {after[name].to_cells()} "
        f"| {'**no**' if name in differ else 'yes'} |"
        for name in before
    ]
    lines = [
        "# Written files before and after a change of the code",
        "",
        "Made by `python -m tools.compare.written_files --shared SHARED --before "
        f"{revision}`, with `--after` for a commit that is not the present one; do not edit.",
        "",
        f"Before: commit {revision}. After: commit {revision_after}. onnxruntime "
        f"{ort.__version__}, torch {torch.__version__.partition('+')[0]}. The same models, data, "
        "settings and seed, in short runs on a part of the data. A file is the same if all its "
        "bytes are. On another processor the hashes may be others.",
        "",
        "| file | bytes before | SHA-256 before | bytes after | SHA-256 after | same |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--before", required=True, help="commit to compare with")
    parser.add_argument("--after", help="commit that is compared; by default the present code")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--work", type=Path, default=Path("runs/written_files"))
    parser.add_argument("--output", type=Path, default=TABLE)
    arguments = parser.parse_args()
    revision = _git("rev-parse", "--short", arguments.before)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    make_cases(work, arguments.shared, arguments.cache)
    with checkout(revision) as code:
        before = quantize_cases(code, work, work / "before")
    if arguments.after is None:
        now, after = present(), quantize_cases(ROOT, work, work / "after")
    else:
        now = _git("rev-parse", "--short", arguments.after)
        with checkout(now) as code:
            after = quantize_cases(code, work, work / "after")
    text = page(before, after, revision, now)
    arguments.output.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(1 if differing(before, after) else 0)


if __name__ == "__main__":
    main()
