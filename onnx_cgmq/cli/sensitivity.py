"""The command ``sensitivity``: what each tensor costs in accuracy, operations and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_cgmq.cli.data_options import DataOptions, with_data_options
from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.groups import DATA, WIDTHS
from onnx_cgmq.cli.options import (
    DataOption,
    DebugOption,
    JsonOption,
    ModelArgument,
    ReportOption,
    output_console,
)
from onnx_cgmq.cli.report import check_report, write_report
from onnx_cgmq.cli.run_options import RunOptions, with_run_options
from onnx_cgmq.settings.data_files import DataFiles


@with_data_options
@with_run_options
def sensitivity_command(
    model: ModelArgument,
    data: DataOption,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="OUT.plan.json",
            rich_help_panel=WIDTHS,
            help="The plan that a run made with these settings: the table is then of its widths.",
        ),
    ] = None,
    width: Annotated[
        int,
        typer.Option(
            "--width",
            metavar="BITS",
            rich_help_panel=WIDTHS,
            help="The width of every tensor without a plan (default 4).",
        ),
    ] = 4,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            metavar="N",
            rich_help_panel=DATA,
            help="The most samples to measure on (default 64).",
        ),
    ] = 64,
    report: ReportOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
    *,
    data_options: DataOptions,
    run_options: RunOptions,
) -> None:
    """Measure what each tensor costs in accuracy at each width, and rank the tensors."""
    with reported(as_json=as_json, debug=debug):
        config = run_options.config()
        files = data_options.of(data)
        _check_report(model, files, plan, report, run_options)
        from onnx_cgmq.api.sensitivity import sensitivity
        from onnx_cgmq.cli.progress import stderr_display

        with stderr_display() as display:
            found = sensitivity(
                model, files, learned=plan, width=width, samples=samples, config=config,
                progress=display,
            )  # fmt: skip
        if report is not None:
            write_report(report, found, model)
        if as_json:
            typer.echo(found.to_json())
        else:
            output_console().print(found.table())
        if report is not None:
            typer.echo(f"report  {report}", err=as_json)


def _check_report(
    model: Path, data: str | DataFiles, plan: Path | None, report: Path | None, options: RunOptions
) -> None:
    """Refuses a report that can't be written, or that would overwrite what is read."""
    from onnx_cgmq.api.output import data_files

    read = {
        "the data": data_files(data),
        "the plan": [] if plan is None else [plan],
        "the file of settings": options.files,
    }
    check_report(report, model, read)
