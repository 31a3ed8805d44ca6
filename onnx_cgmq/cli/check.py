"""The commands ``inspect`` and ``verify``: look at files that exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onnx_cgmq.cli.data_options import DataOptions, with_data_options
from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.options import (
    DataOption,
    DebugOption,
    JsonOption,
    ModelArgument,
    ReportOption,
    ShapeOption,
    TargetOption,
    output_console,
    parse_shapes,
    working,
)
from onnx_cgmq.cli.report import check_report, write_report
from onnx_cgmq.cli.say import say
from onnx_cgmq.errors import ConfigError


def inspect_command(
    model: ModelArgument,
    shape: ShapeOption = None,
    run: Annotated[
        bool,
        typer.Option(
            "--run/--no-run",
            help="Load the model in onnxruntime to show which nodes it runs in integers (default), "
            "or don't.",
        ),
    ] = True,
    why: Annotated[
        list[str] | None,
        typer.Option(
            "--why",
            metavar="NAME",
            help="Say why a tensor or node is what it is, instead: a name or a pattern such as "
            "'head/*'; of a float model, what would be made of it. May be repeated.",
        ),
    ] = None,
    report_file: ReportOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show widths and cost of a quantized model, and which nodes run in integers."""
    with reported(as_json=as_json, debug=debug):
        if why:
            if report_file is not None:
                raise ConfigError("--why makes no report; leave out --why or --report")
            _explain(model, why, as_json)
            return
        with working(f"inspect {model.name}"):
            from onnx_cgmq.inspection import inspect

            check_report(report_file, model)
            report = inspect(model, parse_shapes(shape), kernels=run)
            if report_file is not None:
                write_report(report_file, report, model)
        if as_json:
            typer.echo(report.to_json())
        else:
            output_console().print(report.table())
        if report_file is not None:
            typer.echo(f"report  {report_file}", err=as_json)


def _explain(model: Path, names: list[str], as_json: bool) -> None:
    with working(f"explain {model.name}"):
        from onnx_cgmq.api.explain import explain

        found = explain(model, names)
    if not found:
        raise ConfigError(
            f"nothing was decided of {', '.join(map(repr, names))}; give the name of a tensor or "
            "node, or a pattern: '*' shows all"
        )
    if as_json:
        fields = [{"name": d.name, "verdict": d.verdict.name, "reason": d.reason} for d in found]
        typer.echo(json.dumps(fields, indent=2))
    else:
        say("\n".join(map(str, found)))


@with_data_options
def verify_command(
    reference: Annotated[Path, typer.Argument(metavar="FLOAT", help="The float ONNX file.")],
    deployed: Annotated[Path, typer.Argument(metavar="OUT", help="The quantized ONNX file.")],
    data: DataOption,
    bound: Annotated[
        list[str] | None,
        typer.Option(
            "--bound", metavar="BOUND", help="Fail if OUT costs more than this; may be repeated."
        ),
    ] = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
    *,
    data_options: DataOptions,
) -> None:
    """Compare a quantized model with its float model in onnxruntime, and count its cost again."""
    with reported(as_json=as_json, debug=debug):
        with working(f"verify {deployed.name}"):
            from onnx_cgmq.api.verification import verify
            from onnx_cgmq.cli.summary import check_table
            from onnx_cgmq.settings import DEFAULT_TARGET

            files = data_options.of(data)
            bounds, used = bound or None, target or DEFAULT_TARGET
            check = verify(reference, deployed, files, bound=bounds, target=used)
        if as_json:
            typer.echo(check.to_json())
        else:
            output_console().print(check_table(check))
