"""The command ``curve``: quality against cost, with a written model for each point."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnx_cgmq.cli.data_options import DataOptions, with_data_options
from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.groups import DATA, FILE, LEARNING
from onnx_cgmq.cli.options import (
    DataOption,
    DebugOption,
    JsonOption,
    LogOption,
    ModelArgument,
    QuietOption,
    ReportOption,
    output_console,
)
from onnx_cgmq.cli.report import check_report, write_report
from onnx_cgmq.cli.run_options import RunOptions, with_run_options
from onnx_cgmq.cli.signals import EXIT_CODES
from onnx_cgmq.settings.config import Effort

if TYPE_CHECKING:
    from onnx_cgmq.api.curve_points import Curve


@with_data_options
@with_run_options
def curve_command(
    model: ModelArgument,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            *("-o", "--output"),
            metavar="FOLDER",
            rich_help_panel=FILE,
            help="The folder for models, table and charts.",
        ),
    ],
    bounds: Annotated[
        list[str] | None,
        typer.Option(
            "--bounds",
            metavar="6.25%,4%,3%",
            rich_help_panel=FILE,
            help="The bounds, each that of a point (default: from 8 bits everywhere to the "
            "smallest cost that is possible).",
        ),
    ] = None,
    points: Annotated[
        int,
        typer.Option(
            "--points",
            metavar="N",
            rich_help_panel=FILE,
            help="How many points there are without --bounds (default 6).",
        ),
    ] = 6,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            rich_help_panel=FILE,
            help="Add onnxruntime's own quantize_static, and uniform widths, as further points.",
        ),
    ] = False,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            metavar="DATA",
            rich_help_panel=DATA,
            help="Held-out data, on which points are judged (default: a part of --data).",
        ),
    ] = None,
    effort: Annotated[
        Effort | None,
        typer.Option(
            "--effort",
            rich_help_panel=LEARNING,
            help="Time to learn, as for quantize; all points together learn for 1.5 times that "
            "(default normal).",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            rich_help_panel=LEARNING,
            help="Train end to end: all points together for 1.5 times so many passes.",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="SECONDS",
            rich_help_panel=LEARNING,
            help="Stop after this time, with what is done.",
        ),
    ] = None,
    log: LogOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
    *,
    data_options: DataOptions,
    run_options: RunOptions,
) -> None:
    """Learn under several bounds in one run: quality against cost, and a model for each point."""
    with reported(as_json=as_json, debug=debug):
        config = run_options.config(effort=effort, epochs=epochs, time_limit=time_limit)
        files, held_out = data_options.of(data), data_options.of_optional(validation)
        from onnx_cgmq.api.output import OutputFiles, data_files

        written = OutputFiles(log=log, report=report)
        written.check_apart({"the file of settings": run_options.files})
        read = [file for item in (files, held_out) for file in data_files(item)]
        check_report(report, model, {"the data": read})
        from onnx_cgmq.api.curve import curve
        from onnx_cgmq.cli.progress import stderr_display

        with stderr_display(quiet=quiet) as display:
            found = curve(
                model, files, ",".join(bounds) if bounds else None, points,
                output=output, compare=compare, validation=held_out, config=config,
                progress=display, log=log,
            )  # fmt: skip
        shown = [*_charts(found, output), output / "curve.json"]
        if report is not None:
            write_report(report, found, model)
            shown.append(report)
        if not quiet:
            output_console(stderr=as_json).print(found.table())
            for path in (*(p.file for p in found.points), *shown):
                typer.echo(path, err=as_json)
        if as_json:
            typer.echo(found.to_json())
        if not found.complete:
            typer.echo(f"{found.reason}: the curve has the points that were done", err=True)
        if found.reason in EXIT_CODES:
            raise typer.Exit(EXIT_CODES[found.reason])


def _charts(found: Curve, folder: Path) -> list[Path]:
    """Writes the charts, if there is a package that draws them."""
    if find_spec("matplotlib") is None:
        typer.echo(
            "note: no chart without matplotlib; install it with: pip install 'onnx-cgmq[report]'",
            err=True,
        )
        return []
    from onnx_cgmq.reporting.curve_page import save_charts

    return save_charts(found, folder)
