"""Runs scripts of faults that people met, and says of each whether its right result came out.

The scripts lie in a folder of their own, outside of the repository. Those in `reliability/` exit
with 1 where the fault is there, but for the one in `OUTPUTS`. Those in `wild/` print what happens.
The right results stand in the scripts, and the verdicts on what they print are here. Every kind of
fault has tests too.

    python -m tools.compare.cases FOLDER                 # all of them
    python -m tools.compare.cases FOLDER --only 49 --only 01b --output table.md
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools import ROOT

_SECONDS = 900
_WORKER = ROOT / "tools" / "workers" / "run_case.py"
_RUN = re.compile(r"^\s+(?P<what>.*?)\s+rc=(?P<code>\d+)(?P<rest>.*)$")
_RANGES = "weight_ranges"  # the setting that helps where one channel is out of all proportion
_BUGS = (70, 99)  # an unexpected exception, in the command line and in the scripts
_BLOCK = re.compile(r"^=== (?P<name>\w+):")


@dataclass(frozen=True)
class Run:
    """One call of the command line that a script made.

    Attributes:
        block: The model of the script that it was made for.
        what: Target and bound, or the name of the data.
        code: Exit code.
        text: What the script says of it: figures, or the message.
    """

    block: str
    what: str
    code: int
    text: str

    @property
    def has_float_nodes(self) -> bool:
        """Whether a node that multiplies and accumulates runs in floats."""
        return "FLOAT:" in self.text

    @property
    def says_bug(self) -> bool:
        """Whether the tool calls what happened a bug of its own."""
        return self.code in _BUGS or "please report" in self.text

    @property
    def decibels(self) -> float:
        """How far the file is from the float model; infinitely far if the script can't say."""
        found = re.search(r"SQNR \{'\w+': (-?[\d.]+)", self.text)
        return float(found[1]) if found else float("-inf")


def runs_of(output: str) -> list[Run]:
    """Reads the calls off what a script printed; a message may take several lines."""
    found: list[Run] = []
    block = ""
    for line in output.splitlines():
        head, run = _BLOCK.match(line), _RUN.match(line)
        if head:
            block = head["name"]
        elif run:
            found.append(Run(block, run["what"].strip(), int(run["code"]), run["rest"]))
        elif found:
            last = found[-1]
            found[-1] = Run(last.block, last.what, last.code, f"{last.text}\n{line}")
    return found


Rule = Callable[[list[Run]], str]
"""What is wrong with the runs of a script; empty if its right result came out."""


def _all(wrong: Callable[[Run], bool]) -> Rule:
    """Names the first run that is wrong."""

    def rule(runs: list[Run]) -> str:
        if not runs:
            return "the script made no run"
        bad = [run for run in runs if wrong(run)]
        return "" if not bad else f"{bad[0].block} {bad[0].what}: exit {bad[0].code}{bad[0].text}"

    return rule


def _refuses(expected: dict[str, tuple[int, str]]) -> Rule:
    """By block or data: the exit code, and a pattern that the message must match.

    ``(?!...)`` in a pattern is what the message must not have. No run may end in what the tool
    calls a bug.
    """

    def wrong(run: Run) -> bool:
        code, pattern = expected.get(run.block or run.what, expected.get(run.what, (-1, "")))
        matches = re.search(pattern, run.text, re.DOTALL) is not None
        return run.says_bug or (code >= 0 and (run.code != code or not matches))

    return _all(wrong)


_FAILS = _all(lambda run: run.code != 0 or run.says_bug)


def _as_with_batch(runs: list[Run]) -> str:
    """What is wrong with a model without batch axis, beside the same network with one."""
    reference = {run.what: run.decibels for run in runs if run.block == "c48ref"}
    bad = [
        f"{run.block} {run.what}: {run.decibels} dB, with a batch axis {reference[run.what]} dB"
        for run in runs
        if run.block in ("c48b", "c48c") and run.decibels < reference.get(run.what, 0) - 3
    ]
    return _FAILS(runs) or next(iter(bad), "")


RULES: dict[str, Rule] = {
    "01": _all(lambda run: run.code != 0 or run.has_float_nodes),
    "06": _FAILS,
    "13": _all(lambda run: run.code != 0 or ("ort-cpu" in run.what and run.has_float_nodes)),
    "19": _refuses(
        {"c19a": (4, "NaN in sample 7"), "c19b": (3, "'w'.*NaN|NaN.*'w'"), "c19c": (3, "'b'.*inf")}
    ),
    "20": _all(
        lambda run: (
            run.code != 0
            or (run.what == "generic  6.25%" and run.decibels < 8 and _RANGES not in run.text)
        )
    ),
    # Two thirds of its multiply-accumulates are in subgraphs, which stay float.
    "22": _all(
        lambda run: (
            run.says_bug or (run.code != 0 and not (run.code == 5 and "subgraph" in run.text))
        )
    ),
    "23": _refuses({"c23": (0, ""), "c23f": (4, r"\A(?!.*astype\('uint8'\)).*255")}),
    "29": _refuses(
        {
            **dict.fromkeys(("c29a", "c29b", "c29c"), (0, "")),
            "c29d": (3, r"\A(?!.*contribute a PR).*'probabilities'.*zipmap"),
        }
    ),
    "31": _all(
        lambda run: run.code != 0 or (run.what.startswith("ort-cpu") and run.has_float_nodes)
    ),
    "32": _FAILS,
    "34": _refuses(
        {
            "ok": (0, ""),
            "extra": (4, r"\A(?!.*rename).*'filename'"),
            "floatlabel": (4, r"\A(?!.*argmax).*(astype\(int\)|astype\('int)"),
            "id_range": (4, "'id'"),
            "strlabel": (4, r"\A(?!.*argmax)"),
        }
    ),
    "35": _FAILS,
    "42": _all(
        lambda run: (
            run.code != 0
            or run.says_bug
            or "learning-rate" in run.text
            or re.search(r"(loss|held out|SQNR.*):? nan\b", run.text) is not None
        )
    ),
    "43": _FAILS,
    "46": _FAILS,
    "48": _as_with_batch,
    "49": _FAILS,
}
"""By the number in the name of a script in `wild/`, what its runs must show."""


def _paths_kept(output: str) -> str:
    """What is wrong with the calls of a script that gives them clashing paths."""
    codes = re.findall(r"^ +exit (\d+)", output, re.MULTILINE)
    lost = re.findall(r".*(?:REPLACED|OVERWRITTEN).*", output)
    if len(codes) != 6:
        return f"{len(codes)} calls instead of 6"
    return " ".join(lost) if lost else "" if set(codes) == {"6"} else f"exit codes {codes}"


OUTPUTS: dict[str, Callable[[str], str]] = {"16": _paths_kept}
"""By the number of a script in `reliability/` whose exit code says nothing: the verdict on what it
prints."""


@dataclass(frozen=True)
class Verdict:
    """What came of a script.

    Attributes:
        script: Its folder and name.
        wrong: What is wrong; empty if its right result came out.
        seconds: How long it took.
    """

    script: str
    wrong: str
    seconds: float

    def row(self) -> str:
        """A row of the table."""
        said = " ".join(self.wrong.split())[:160].replace("|", "/")
        return f"| {self.script} | {'right' if not self.wrong else 'WRONG'} | {said} |"


def examine(script: Path) -> Verdict:
    """Runs one script in a folder of its own, and judges it."""
    began = time.monotonic()
    command = [sys.executable, str(_WORKER), str(script)]
    if script.suffix == ".sh":
        command = ["bash", str(script), sys.executable]
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": folder,
            "CGMQ_INPROC": "1",
            "CGMQ_SHOW": "1",  # notes are part of the verdicts
            "CGMQ_WORK": folder,
        }
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Verdict(_label(script), f"not done after {_SECONDS} s", _SECONDS)
    number = script.name.split("-")[0]
    if script.parent.name == "wild" and number in RULES:
        wrong = RULES[number](runs_of(done.stdout)) or _ended(done)
    elif script.parent.name == "reliability" and number in OUTPUTS:
        wrong = OUTPUTS[number](done.stdout)
    else:
        wrong = _ended(done)
    # Paths of the folder say nothing to anybody else.
    return Verdict(_label(script), wrong.replace(f"{folder}/", ""), time.monotonic() - began)


def _ended(done: subprocess.CompletedProcess[str]) -> str:
    """What a script said that ended with another exit code than 0."""
    if not done.returncode:
        return ""
    return done.stdout[-400:] + done.stderr[-200:] or f"exit code {done.returncode}"


def _label(script: Path) -> str:
    return f"{script.parent.name}/{script.stem}"


def write_table(verdicts: list[Verdict]) -> str:
    """The table of all verdicts."""
    right = sum(not verdict.wrong for verdict in verdicts)
    lines = [
        "# Faults that people met",
        "",
        "Made by `python -m tools.compare.cases FOLDER`; do not edit.",
        "",
        f"{right} of {len(verdicts)} scripts give their right result.",
        "",
        "| script | result | what is wrong |",
        "|---|---|---|",
        *(verdict.row() for verdict in verdicts),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run scripts of faults, and judge them.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", default=[], help="Number in a script's name.")
    parser.add_argument("--output", type=Path, help="Where to write the table, too.")
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()  # scripts run in folders of their own
    scripts = sorted(path for end in ("py", "sh") for path in arguments.folder.glob(f"*/*.{end}"))
    verdicts = []
    for script in scripts:
        if arguments.only and script.name.split("-")[0] not in arguments.only:
            continue
        verdicts.append(examine(script))
        print(f"{verdicts[-1].seconds:5.0f} s {verdicts[-1].row()}", flush=True)
        if arguments.output is not None:
            arguments.output.write_text(write_table(verdicts), encoding="utf-8")
    sys.exit(any(verdict.wrong for verdict in verdicts))


if __name__ == "__main__":
    main()
