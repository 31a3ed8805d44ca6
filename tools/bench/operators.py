"""The standard's node cases against the mirror and other converters of ONNX to torch.

Each converter runs in a process of its own; the others are installed into a cache, without their
dependencies, so that this environment stays as it is. Rules and tolerances are those of the tests
(``tools/fetch/backend_cases.py``).

    python -m tools.bench.operators run               # all converters, a minute each
    python -m tools.bench.operators run onnx-cgmq     # only the mirror
    python -m tools.bench.operators table             # writes docs/operators.md
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from onnx_cgmq.mirror.core.registry import registered_operators
from tools import ROOT
from tools.fetch import backend_cases
from tools.fetch.backend_cases import Case
from tools.workers.convert_cases import PASS, TORCHVISION, has_gradient

CACHE = ROOT / ".cache" / "converters"
RESULTS = ROOT / "docs" / "benchmarks" / "operators"
TABLE = ROOT / "docs" / "operators.md"
OURS = "onnx-cgmq"
PEERS = {"onnx2pytorch": "0.6.0", "onnx2torch": "1.5.15"}
ALL_GOOD = {"plain": PASS, "frozen": True, "gradient": True}


@dataclass(frozen=True)
class Results:
    """What a converter did.

    Attributes:
        name: Its name on PyPI.
        versions: Its version, and those of onnx and torch.
        exceptions: By ``kind/case``, all cases that are not as in :data:`ALL_GOOD`.
    """

    name: str
    versions: Mapping[str, str]
    exceptions: Mapping[str, Mapping[str, Any]]

    def of(self, case: Case) -> Mapping[str, Any]:
        """The record of a case."""
        return self.exceptions.get(f"{case.kind}/{case.name}", ALL_GOOD)

    def passing(self, cases: Iterable[Case]) -> list[Case]:
        """The cases that pass; one that stops at torchvision counts as passing."""
        return [case for case in cases if self.of(case)["plain"] in (PASS, TORCHVISION)]

    def passing_or_frozen(self, cases: Iterable[Case]) -> list[Case]:
        """The cases that pass as they are or with their weights as initializers."""
        passing = {case.name for case in self.passing(cases)}
        return [c for c in cases if c.name in passing or self.of(c)["frozen"]]

    def starting(self, cases: Iterable[Case], start: str) -> list[Case]:
        """The cases whose outcome starts so."""
        return [case for case in cases if self.of(case)["plain"].startswith(start)]

    def gradients(self, cases: Iterable[Case]) -> str:
        """In how many cases a gradient reaches a float input, of those that have one."""
        tried = [c for c in cases if self.of(c)["plain"] == PASS and has_gradient(c)]
        reached = sum(self.of(case)["gradient"] is True for case in tried)
        return f"{reached:,} of {len(tried):,}"


def run(name: str) -> None:
    """Runs a converter on all cases, again after each case that takes it down."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "cases.jsonl"
        path = [str(ROOT)] + ([str(install(name))] if name in PEERS else [])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        command = [sys.executable, "-m", "tools.workers.convert_cases", name, str(lines)]
        before = 0
        while subprocess.run(command, env=environment).returncode:
            if not lines.exists() or lines.stat().st_size == before:
                raise SystemExit(f"{name} does not start; try: {' '.join(command)}")
            before = lines.stat().st_size
        records = {r.pop("case"): r for r in map(json.loads, lines.read_text().splitlines())}
    versions = {name: records.pop("")["version"], "onnx": onnx.__version__}
    versions["torch"] = torch.__version__.partition("+")[0]
    exceptions = {
        key: record
        for key, record in records.items()
        if record["gradient"] is False or record["plain"] != PASS
    }
    rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in exceptions.items())
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = f'{{"versions": {json.dumps(versions)}, "exceptions": {{\n{rows}\n}}}}\n'
    (RESULTS / f"{name}.json").write_text(text)


def install(name: str) -> Path:
    """The folder with a converter, from PyPI."""
    folder = CACHE / f"{name}-{PEERS[name]}"
    if not folder.exists():
        requirement = f"{name}=={PEERS[name]}"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), requirement], check=True)
    return folder


def load(name: str) -> Results:
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    return Results(name, stored["versions"], stored["exceptions"])


# -- the page ---------------------------------------------------------------------------------


def page(results: list[Results], cases: Mapping[str, list[Case]]) -> str:
    nodes = [case for case in cases["node"] if backend_cases.set_aside(case) is None]
    ours = results[0]
    return PAGE.format(
        onnx=ours.versions["onnx"],
        torch=ours.versions["torch"],
        runnable=len(nodes),
        all=len(cases["node"]),
        aside=len(cases["node"]) - len(nodes),
        summary=summary(results, nodes),
        stopped=stopped(results, nodes),
        kinds=kinds(results, cases),
        set_aside=set_aside(ours, cases["node"]),
        failures=failures(ours, nodes),
        by_operator=by_operator(results, nodes),
        others=other_operators(nodes),
    )


PAGE = """\
# Operators

Which operators the mirror runs, by the standard's own test suite, `onnx.backend.test` (onnx {onnx},
torch {torch}). Made by `python -m tools.bench.operators run` and `table`. For every converter,
[benchmarks/operators](benchmarks/operators) lists the cases that do not pass, and why.

## Node cases: {runnable:,}

{summary}

* Outputs must have the right type and shape; integers and booleans are exact, floats within rtol
  1e-3 and atol 1e-5 (float16 5e-3 and 1e-3, bfloat16 2e-2).
* *or frozen*: the case passes as it is, or with all inputs after the first as initializers, as
  weights are in most models.
* *wrong*: no error, but another value, shape or type. Those of the mirror are explained below.
* *gradient*: of the passing cases whose operator has a gradient, those in which it reaches a float
  input.
* torchvision can't be imported beside CPU-only torch. Cases in which a converter calls it were not
  run, and count as passing: {stopped}.

The other kinds:

{kinds}

## Set aside

There are {all:,} node cases, not counting the `_expanded` ones, which repeat a case with the
operator's definition. {aside:,} of them do not matter for a float model in torch. Some of these
pass all the same.

{set_aside}

## Cases that the mirror does not pass

{failures}

## By operator

*since*: the opset versions for which the mirror has a handler. An operator without a handler runs
by the definition that the standard has for it, if any. *cases*: all cases; the last columns count
those that pass. A case counts for every operator of its graph.

{by_operator}

## Operators without such a case

{others}
"""


def summary(results: list[Results], cases: list[Case]) -> str:
    rows = [
        (
            f"{r.name} {r.versions[r.name]}",
            f"{len(r.passing(cases)):,} ({len(r.passing(cases)) / len(cases):.1%})",
            f"{len(r.passing_or_frozen(cases)):,}",
            str(len(r.starting(cases, "wrong"))),
            r.gradients(cases),
        )
        for r in results
    ]
    return table(("converter", "pass", "or frozen", "wrong", "gradient"), rows)


def stopped(results: list[Results], cases: list[Case]) -> str:
    counts = {r.name: len(r.starting(cases, TORCHVISION)) for r in results}
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"


def kinds(results: list[Results], cases: Mapping[str, list[Case]]) -> str:
    rows = []
    for kind, found in cases.items():
        if kind == "node":
            continue
        kept = [case for case in found if backend_cases.set_aside(case) is None]
        counts = [f"{len(r.passing(kept)):,}" for r in results]
        rows.append((kind, f"{len(kept):,}", *counts))
    return table(("kind", "cases", *(r.name for r in results)), rows)


def set_aside(ours: Results, cases: list[Case]) -> str:
    found = defaultdict(list)
    for case in cases:
        reason = backend_cases.set_aside(case)
        if reason is not None:
            found[reason].append(case)
    rows = [
        (reason, str(len(group)), str(len(ours.passing(group))))
        for reason, group in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    return table(("why", "cases", "pass all the same"), rows)


def failures(ours: Results, cases: list[Case]) -> str:
    passing = {case.name for case in ours.passing(cases)}
    rows = [
        (f"`{case.name}`", backend_cases.EXPLAINED.get(case.name) or reason(ours.of(case)["plain"]))
        for case in cases
        if case.name not in passing
    ]
    return table(("case", "why"), rows) if rows else "None."


def reason(outcome: str) -> str:
    """An outcome as a table can hold it, without what all refusals begin and end with."""
    common = r"UnsupportedOperatorError: .*? differentiably: | Replace them in the model.*"
    return re.sub(common, "", outcome).replace("|", "\\|")


def by_operator(results: list[Results], cases: list[Case]) -> str:
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        for operator in case.operators:
            groups[operator].append(case)
    since: dict[str, list[int]] = defaultdict(list)
    for registered in registered_operators():
        if registered.domain == "":
            since[registered.op_type].append(registered.since)
    rows = [
        (
            name,
            ", ".join(map(str, since[name])),
            str(len(group)),
            *(str(len(r.passing(group))) for r in results),
        )
        for name, group in sorted(groups.items())
    ]
    return table(("operator", "since", "cases", *(r.name for r in results)), rows)


def other_operators(cases: list[Case]) -> str:
    tested = {operator for case in cases for operator in case.operators}
    found: dict[str, set[str]] = defaultdict(set)
    for operator in registered_operators():
        if operator.domain or operator.op_type not in tested:
            found[operator.domain or "ai.onnx"].add(operator.op_type)
    return "\n".join(f"* `{domain}`: {', '.join(sorted(found[domain]))}." for domain in found)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("converter", nargs="?", choices=(OURS, *PEERS), help="default: all")
    arguments = parser.parse_args()
    if arguments.command == "run":
        for name in [arguments.converter] if arguments.converter else (OURS, *PEERS):
            run(name)
        return
    cases = {
        kind: [case for case in backend_cases.load(kind) if not case.is_expanded]
        for kind in backend_cases.KINDS
    }
    TABLE.write_text(page([load(name) for name in (OURS, *PEERS)], cases))


if __name__ == "__main__":
    main()
