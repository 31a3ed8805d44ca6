"""What the command ``quantize`` does with its options: it runs, and shows what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from onnx_cgmq.cli.failures import DROP_NOT_KEPT
from onnx_cgmq.cli.options import output_console, working
from onnx_cgmq.cli.report import write_report
from onnx_cgmq.cli.say import say
from onnx_cgmq.cli.signals import EXIT_CODES
from onnx_cgmq.contract.launch import Launch
from onnx_cgmq.contract.run_paths import plan_path
from onnx_cgmq.settings.config import Config
from onnx_cgmq.settings.data_files import DataFiles

if TYPE_CHECKING:
    from rich.console import Console

    from onnx_cgmq.api.result import Result
    from onnx_cgmq.contract.events import Started

_ADVICE: Final = {
    "diverged": "a smaller --learning-rate may help",
    "loss not finite": "its loss on held-out data is NaN or infinite, so don't use it unseen: look "
    "for values in the model that overflow",
}
"""What to do about a run that ended early, by its reason."""


@dataclass(frozen=True)
class Run:
    """What the options ask for; the fields have the names of the options."""

    model: Path
    data: str | DataFiles
    bound: str | None
    max_drop: str | None
    output: Path
    validation: str | DataFiles | None
    config: Config
    resume: bool
    log: Path | None
    report: Path | None
    as_json: bool
    quiet: bool
    details: bool


def keep_settings(run: Run, *files: str | Path | None) -> None:
    """Refuses to overwrite the files of settings, of which only the command knows.

    Raises:
        OutputError: A file that the run writes is one of them.
    """
    from onnx_cgmq.api.output import OutputFiles

    given = [Path(file) for file in files if file is not None]
    settings = {"the file of settings": [file for file in given if os.path.isfile(file)]}
    OutputFiles.of_run(run.output, run.log, run.report).check_apart(settings)


def carry_out(run: Run) -> None:
    """Learns, writes the files, and shows the result.

    Raises:
        typer.Exit: A signal ended the run early, or the most that may be lost is not kept.
    """
    from onnx_cgmq.cli.progress import stderr_display

    leads = Launch.of_environment().leads
    if not leads:
        run = replace(run, quiet=True, as_json=False, report=None)
    with stderr_display(quiet=run.quiet) as display:
        from onnx_cgmq.api import pipeline
        from onnx_cgmq.reporting import check_report_packages

        if run.report is not None:
            check_report_packages()
        result = pipeline.quantize(
            run.model,
            run.data,
            run.bound,
            max_drop=run.max_drop,
            output=run.output,
            validation=run.validation,
            config=run.config,
            resume=run.resume,
            progress=display,
            log=run.log,
            report=run.report,
        )
    if run.report is not None:
        with working("write the report"):
            write_report(run.report, result, run.output)
    if not run.quiet:
        _show(output_console(stderr=run.as_json), run, result, display.started)
    if run.as_json:
        from onnx_cgmq.cli.summary import result_json

        typer.echo(result_json(result, display.started, _files(run)))
    if leads and not result.complete:
        advice = _ADVICE.get(result.outcome.reason, "the same command with --resume goes on")
        say(
            f"{result.outcome.reason}{_after(result.outcome.epochs, display.started)}: "
            f"{run.output} is the best model so far that keeps the bound; {advice}",
            err=True,
        )
    if result.outcome.reason in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[result.outcome.reason])
    if result.drop is not None and not result.drop.kept:
        say(
            f"the drop {result.drop.asked} is not kept: {result.drop.text}; {run.output} is the "
            "best model within the bounds. Allow a larger drop or bound, or more --effort",
            err=True,
        )
        raise typer.Exit(DROP_NOT_KEPT)


def _files(run: Run) -> dict[str, Path]:
    """Returns the files that a run wrote, by their kind."""
    kinds = {
        "model": run.output,
        "plan": plan_path(run.output),
        "log": run.log,
        "report": run.report,
    }
    return {kind: path for kind, path in kinds.items() if path is not None}


def _show(console: Console, run: Run, result: Result, started: Started | None) -> None:
    """Shows the result; with details first and last, since tables are long."""
    from onnx_cgmq.cli.summary import mirror_text, summary_table

    def summarize() -> None:
        console.print(summary_table(result, started, run.output))
        for kind, path in _files(run).items():  # not in a table, which would break long paths
            console.print(f"{kind:9} {path}", soft_wrap=True)

    summarize()
    if run.details:
        console.print()
        console.print(result.report.table())
        console.print(mirror_text(result.check))
        console.print()
        summarize()


def _after(done: float, started: Started | None) -> str:
    epochs = 0 if started is None else started.epochs
    return f" after {done} of {epochs} epochs" if epochs else ""
