"""Installs the wheel into clean environments, and runs there what a new user would run.

For each interpreter: a new virtual environment, ``pip install`` of the wheel with whatever versions
pip takes (no constraints, no configuration of pip), ``onnx-cgmq --help`` and the Python snippets of
the README in an empty folder. Environments are removed again; one with the default build of PyTorch
for Linux takes about 6 GB.

    python -m tools.measure.wheel python3.10 python3.12 python3.13 --output docs/benchmarks/wheel.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tools import ROOT

_SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = ("torch", "onnx", "onnxruntime", "numpy")
_HELP_RUNS = 5


@dataclass(frozen=True)
class Outcome:
    """What happened in one environment.

    Attributes:
        python: Version of the interpreter.
        versions: What pip installed, by the name of the package.
        help_seconds: Median time of ``onnx-cgmq --help``.
        snippet_seconds: Time of the snippets, one after the other in one process.
        printed: The lines that they printed.
    """

    python: str
    versions: dict[str, str]
    help_seconds: float
    snippet_seconds: float
    printed: list[str]

    def row(self) -> str:
        """A line of the table."""
        cells = (
            self.python,
            *(self.versions[name] for name in _SHOWN),
            f"{self.help_seconds:.2f}",
            f"{self.snippet_seconds:.0f}",
            self._said("RBOP"),
            self._said("accuracy"),
        )
        return f"| {' | '.join(cells)} |"

    def _said(self, what: str) -> str:
        (line,) = (line for line in self.printed if line.startswith(what))
        return line.removeprefix(what).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Try the wheel in clean environments.")
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters")
    parser.add_argument("--output", type=Path, help="a Markdown file to write")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        wheel = _build(Path(folder))
        outcomes = [_try(wheel, python) for python in options.pythons]
        report = _report(wheel, outcomes)
    print(report, end="")
    if options.output is not None:
        options.output.write_text(report, encoding="utf-8")


def _build(folder: Path) -> Path:
    """Builds the wheel from a copy: what earlier builds left in the repository stays out of it."""
    source = folder / "source"
    shutil.copytree(ROOT / "onnx_cgmq", source / "onnx_cgmq")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _try(wheel: Path, python: str) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        environment, empty = Path(folder, "environment"), Path(folder, "empty")
        empty.mkdir()
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
        own = str(environment / "bin" / "python")
        print(f"{python}: pip install {wheel.name}", file=sys.stderr, flush=True)
        pip = [own, "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", str(wheel)], env=_plain(), check=True)
        installed = json.loads(_output([*pip, "list", "--format=json"], empty))
        command = [str(environment / "bin" / "onnx-cgmq"), "--help"]
        helps = [_seconds(command, empty)[0] for _ in range(_HELP_RUNS)]
        snippets = "\n".join(_SNIPPET.findall((ROOT / "README.md").read_text(encoding="utf-8")))
        seconds, text = _seconds([own, "-c", snippets], empty)
        return Outcome(
            python=_output([own, "-c", "import platform; print(platform.python_version())"], empty),
            versions={item["name"]: item["version"] for item in installed},
            help_seconds=statistics.median(helps),
            snippet_seconds=seconds,
            printed=text.splitlines(),
        )


def _plain() -> dict[str, str]:
    """The environment of a user who has not configured pip, nor put packages on the path."""
    own = ("PIP_CONSTRAINT", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


def _seconds(command: list[str], folder: Path) -> tuple[float, str]:
    start = time.perf_counter()
    text = _output(command, folder)
    return time.perf_counter() - start, text


def _output(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_plain(), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def _report(wheel: Path, outcomes: list[Outcome]) -> str:
    lines = (
        "# The wheel in clean environments",
        "",
        f"`{wheel.name}`, {wheel.stat().st_size:,} bytes, installed by `pip install` without",
        f"constraints; then `onnx-cgmq --help` (median of {_HELP_RUNS} runs) and the Python",
        "snippets of the README, in an empty folder. "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores,",
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')}; load of the machine at the end "
        f"{os.getloadavg()[0]:.1f}: other work makes times longer.",
        "",
        f"| Python | {' | '.join(_SHOWN)} | `--help`, s | snippets, s | RBOP | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
        *(outcome.row() for outcome in outcomes),
        "",
        "Made by `python -m tools.measure.wheel PYTHON... --output FILE`.",
    )
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
