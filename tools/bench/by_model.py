"""The commands of a benchmark that measures model after model: ``run``, and ``table`` of all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

import onnx_cgmq as cgmq
from tools.bench.accuracy import Case

Measure = Callable[[Case, argparse.Namespace], dict[str, Any]]
"""The figures of one model; gets the options of ``run``."""


def measure_missing(
    cases: Iterable[Case],
    results: Path,
    measure: Measure,
    arguments: argparse.Namespace,
    *,
    suffix: str = "",
) -> None:
    """Measures the models that have no result yet.

    Args:
        cases: The models.
        results: The folder of the results, a JSON file for each model.
        measure: Measures one.
        arguments: The options of ``run``.
        suffix: What the name of a result has behind that of its model.
    """
    torch.set_num_threads(arguments.threads)
    for folder in (results, arguments.files):
        folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        target = results / f"{case.name}{suffix}.json"
        if case.name.startswith(arguments.only) and not target.exists():
            record = measure(case, arguments)
            target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def parser_of(
    description: str,
    run: Callable[[argparse.Namespace], None],
    table: Callable[[argparse.Namespace], None],
    files: Path,
    *,
    effort: cgmq.Effort | None = None,
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Makes the parser of the command line, and that of ``run``, which may get further options.

    Args:
        description: What the benchmark says of itself, of which the first line is shown.
        run: Measures.
        table: Writes the page.
        files: Where written models go by default.
        effort: The effort by default; ``None`` if it can't be chosen.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    commands.add_parser("table").set_defaults(action=table)
    command = commands.add_parser("run")
    command.set_defaults(action=run)
    command.add_argument("--only", default="", help="models whose name starts so")
    if effort is not None:
        efforts = [e.value for e in cgmq.Effort]
        command.add_argument("--effort", default=effort.value, choices=efforts)
    command.add_argument("--shared", type=Path, required=True)
    command.add_argument("--cache", type=Path, default=Path(".cache/models"))
    command.add_argument("--files", type=Path, default=files)
    command.add_argument("--threads", type=int, default=1)
    return parser, command
