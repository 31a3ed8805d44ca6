"""The command ``quantize``: learns widths and writes the quantized model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from onnx_cgmq.cli.data_options import DataOptions, with_data_options
from onnx_cgmq.cli.failures import DROP_NOT_KEPT, reported
from onnx_cgmq.cli.options import (
    BoundOption,
    DataOption,
    DebugOption,
    FormOption,
    JsonOption,
    MaxDropOption,
    ModelArgument,
    ReportOption,
    RuntimeOption,
    ShapeOption,
    TargetOption,
    output_console,
    parse_shapes,
    parse_widths,
)
from onnx_cgmq.cli.report import check_report, write_report
from onnx_cgmq.cli.settings import (
    ConfigOption,
    FixOption,
    KeepFloatOption,
    WidthsForOption,
    merge,
    parse_fixed,
    parse_widths_for,
    read_config,
)
from onnx_cgmq.cli.signals import EXIT_CODES
from onnx_cgmq.contract.bits import Granularity
from onnx_cgmq.contract.events import Started
from onnx_cgmq.contract.run_paths import checkpoint_path, plan_path
from onnx_cgmq.settings.config import Config, Direction, Effort
from onnx_cgmq.settings.data_files import DataFiles


def _help(text: str, setting: str) -> str:
    """Adds the default to a help text; only :class:`Config` knows it."""
    default = Config.model_fields[setting].default
    if isinstance(default, Enum):
        default = default.value
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text.removesuffix('.')} (default {shown})."


@with_data_options
def quantize_command(
    model: ModelArgument,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT", help="The ONNX file to write; its plan goes beside it."
        ),
    ],
    bound: BoundOption = None,
    max_drop: MaxDropOption = None,
    target: TargetOption = None,
    form: FormOption = None,
    runtime: RuntimeOption = None,
    granularity: Annotated[
        Granularity | None,
        typer.Option(
            "--granularity", help=_help("One width per tensor, channel or element.", "granularity")
        ),
    ] = None,
    activation_granularity: Annotated[
        Granularity | None,
        typer.Option(
            "--activation-granularity",
            help="The granularity of activations (default: as --granularity).",
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option("--widths", metavar="2,4,8", help=_help("Widths to choose from.", "widths")),
    ] = None,
    activation_widths: Annotated[
        str | None,
        typer.Option(
            "--activation-widths",
            metavar="4,8",
            help="Widths for activations (default: as --widths, where the target allows them).",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Allow weights of 0 bits (needs granularity channel or element)."
        ),
    ] = False,
    input_width: Annotated[
        int | None, typer.Option("--input-width", help="Fixed width of the model's inputs.")
    ] = None,
    keep_float: KeepFloatOption = None,
    fix: FixOption = None,
    widths_for: WidthsForOption = None,
    shape: ShapeOption = None,
    config_file: ConfigOption = None,
    direction: Annotated[
        Direction | None,
        typer.Option(
            "--direction", help=_help("How the importance of gates is measured.", "direction")
        ),
    ] = None,
    integer_kernels: Annotated[
        bool | None,
        typer.Option(
            "--integer-kernels/--no-integer-kernels",
            help="Make the model run in integer kernels: put quantizers between them, and narrow "
            "tensors at 16 or 32 bits to 8 (default: as the target says).",
        ),
    ] = None,
    equalize: Annotated[
        bool | None,
        typer.Option(
            "--equalize/--no-equalize",
            help=_help("Move factors of channels between operators first.", "equalize"),
        ),
    ] = None,
    effort: Annotated[
        Effort | None,
        typer.Option(
            "--effort",
            help=_help("Time to learn: fast (a minute or two), normal, best.", "effort"),
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            help="Train for so many passes over the data, and move gates meanwhile (default: by "
            "effort and data).",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", help=_help("Samples in a training step.", "batch_size")),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", help="Peak learning rate of weights (default: by the model's depth)."
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            metavar="DATA",
            help="Held-out data, on which the best state is chosen (default: a part of --data).",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss", help=_help("labels, teacher, auto, or package.module:function.", "loss")
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help=_help("Seed of every random choice.", "seed"))
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="SECONDS",
            help="Stop after this time, and write the best model so far.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was killed or interrupted.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="Write progress as JSON lines."),
    ] = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    debug: DebugOption = False,
    *,
    data_options: DataOptions,
) -> None:
    """Learn bit-widths under a bound and write the quantized model."""
    given: dict[str, Any] = {
        "target": target,
        "form": form,
        "runtime": runtime,
        "granularity": granularity,
        "activation_granularity": activation_granularity,
        "widths": parse_widths(widths),
        "activation_widths": parse_widths(activation_widths, "--activation-widths"),
        "prune": prune or None,
        "input_width": input_width,
        "direction": direction,
        "integer_kernels": integer_kernels,
        "equalize": equalize,
        "effort": effort,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "loss": loss,
        "seed": seed,
        "time_limit": time_limit,
    }
    named: dict[str, dict[str, Any] | list[str]] = {
        "keep_float": keep_float or [],
        "fix": parse_fixed(fix),
        "widths_for": parse_widths_for(widths_for),
        "shapes": parse_shapes(shape),
    }
    with reported(as_json=as_json, debug=debug, checkpoint=checkpoint_path(output)):
        _check_files(model, (data, validation), output, log, report, config_file, target)
        # Options that are not given are left out, so that only Config defines defaults.
        config = Config.create(**merge(read_config(config_file), given, named))
        files, held_out = data_options.of(data), data_options.of_optional(validation)
        _run(
            model,
            files,
            ", ".join(bound) if bound else None,
            max_drop,
            output,
            held_out,
            config,
            resume,
            log,
            report,
            as_json,
            quiet,
        )


_ADVICE: Final = {
    "diverged": "a smaller --learning-rate may help",
    "loss not finite": "its loss on held-out data is NaN or infinite, so don't use it unseen: look "
    "for values in the model that overflow",
}
"""What to do about a run that ended early, by its reason."""


def _after(done: float, started: Started | None) -> str:
    epochs = 0 if started is None else started.epochs
    return f" after {done} of {epochs} epochs" if epochs else ""


def _check_files(
    model: Path,
    data: Iterable[str | None],
    output: Path,
    log: Path | None,
    report: Path | None,
    config_file: Path | None,
    target: str | None,
) -> None:
    """Refuses to overwrite the files of settings, and a report that can't be written.

    Only this command knows of these.
    """
    from onnx_cgmq.api.output import OutputFiles, data_files

    given = [Path(file) for file in (config_file, target) if file is not None]
    settings = {"the file of settings": [file for file in given if os.path.isfile(file)]}
    files = OutputFiles.of_run(output, log, report)
    files.check_apart(settings)
    check_report(files, model, {"the data": [file for item in data for file in data_files(item)]})


def _run(
    model: Path,
    data: str | DataFiles,
    bound: str | None,
    max_drop: str | None,
    output: Path,
    validation: str | DataFiles | None,
    config: Config,
    resume: bool,
    log: Path | None,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from onnx_cgmq.api import pipeline
    from onnx_cgmq.cli.progress import ProgressConsole, ProgressDisplay
    from onnx_cgmq.cli.summary import result_json, result_table

    display = ProgressDisplay(ProgressConsole(stderr=True, quiet=quiet))
    with display:
        result = pipeline.quantize(
            model,
            data,
            bound,
            max_drop=max_drop,
            output=output,
            validation=validation,
            config=config,
            resume=resume,
            progress=display,
            log=log,
        )
    files = {"model": output, "plan": plan_path(output)}
    if log is not None:
        files["log"] = log
    if report is not None:
        write_report(report, result, output, model)
        files["report"] = report
    if not quiet:
        console = output_console(stderr=as_json)
        console.print(result.report.table())
        console.print(result_table(result, display.started, files, model))
        for kind, path in files.items():  # not in a table, which would break long paths
            typer.echo(f"{kind:5}  {path}", err=as_json)
    if as_json:
        typer.echo(result_json(result, display.started, files, model))
    if not result.complete:
        advice = _ADVICE.get(result.outcome.reason, "the same command with --resume goes on")
        typer.echo(
            f"{result.outcome.reason}{_after(result.outcome.epochs, display.started)}: "
            f"{output} is the best model so far that keeps the bound; {advice}",
            err=True,
        )
    if result.outcome.reason in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[result.outcome.reason])
    if result.drop is not None and not result.drop.kept:
        typer.echo(
            f"the drop {result.drop.asked} is not kept: {result.drop.text}; {output} is the best "
            "model within the bounds. Allow a larger drop or bound, or more --effort",
            err=True,
        )
        raise typer.Exit(DROP_NOT_KEPT)
