"""The command ``quantize``: learns widths and writes the quantized model."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_cgmq.cli.data_options import DataOptions, with_data_options
from onnx_cgmq.cli.failures import reported
from onnx_cgmq.cli.groups import DATA, FILE, LEARNING, SHOWN, WIDTHS
from onnx_cgmq.cli.options import (
    DATA_HELP,
    DebugOption,
    DeviceOption,
    FormOption,
    JsonOption,
    LogOption,
    MaxDropOption,
    ModelArgument,
    QuietOption,
    ReportOption,
    RuntimeOption,
    SeedOption,
    ShapeOption,
    TargetOption,
    parse_shapes,
    parse_widths,
)
from onnx_cgmq.cli.quantize_run import Run, carry_out, keep_settings
from onnx_cgmq.cli.settings import (
    ConfigOption,
    FixOption,
    KeepFloatOption,
    PlanOption,
    PlanUseOption,
    WidthsForOption,
    merge,
    parse_fixed,
    parse_widths_for,
    read_config,
    take_text,
    take_texts,
)
from onnx_cgmq.contract.bits import Granularity
from onnx_cgmq.contract.run_paths import checkpoint_path
from onnx_cgmq.settings.config import Config, Direction, Effort


def _help(text: str, setting: str) -> str:
    """Adds the default to a help text; only :class:`Config` knows it."""
    default = Config.model_fields[setting].default
    if isinstance(default, Enum):
        default = default.value
    elif isinstance(default, bool):
        default = "yes" if default else "no"
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text.removesuffix('.')} (default {shown})."


@with_data_options
def quantize_command(
    model: ModelArgument,
    bound: Annotated[
        list[str] | None,
        typer.Option(
            "--bound",
            metavar="BOUND",
            rich_help_panel=FILE,
            help="The bound to keep: bit operations ('0.4%' of the float model's, '12.5MBOP'), "
            "size ('200KB', 'size:25%'), peak activations ('activations:64KB'), or cost by the "
            "target's table ('cost:25%'). May be repeated: all bounds are kept. Needed, here or in "
            "--config, as are -o and --data, but not with --max-drop.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            *("-o", "--output"),
            metavar="OUT",
            rich_help_panel=FILE,
            help="The ONNX file to write; its plan goes beside it.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", rich_help_panel=DATA, help=DATA_HELP),
    ] = None,
    max_drop: MaxDropOption = None,
    target: TargetOption = None,
    form: FormOption = None,
    runtime: RuntimeOption = None,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            rich_help_panel=FILE,
            help="Shorten all names in the file, for the smallest size (by default names of the "
            "float model stay, as far as they take 3 % of the file or 5 KB).",
        ),
    ] = False,
    granularity: Annotated[
        Granularity | None,
        typer.Option(
            "--granularity",
            rich_help_panel=WIDTHS,
            help=_help("One width per tensor, channel or element.", "granularity"),
        ),
    ] = None,
    activation_granularity: Annotated[
        Granularity | None,
        typer.Option(
            "--activation-granularity",
            rich_help_panel=WIDTHS,
            help="The granularity of activations (default: as --granularity).",
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths",
            rich_help_panel=WIDTHS,
            metavar="2,4,8",
            help=_help("Widths to choose from.", "widths"),
        ),
    ] = None,
    activation_widths: Annotated[
        str | None,
        typer.Option(
            "--activation-widths",
            rich_help_panel=WIDTHS,
            metavar="4,8",
            help="Widths for activations (default: as --widths, where the target allows them).",
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            rich_help_panel=WIDTHS,
            help="Allow weights of 0 bits (needs granularity channel or element).",
        ),
    ] = False,
    input_width: Annotated[
        int | None,
        typer.Option(
            "--input-width",
            metavar="BITS",
            rich_help_panel=WIDTHS,
            help="Fixed width of the model's inputs.",
        ),
    ] = None,
    keep_float: KeepFloatOption = None,
    fix: FixOption = None,
    widths_for: WidthsForOption = None,
    plan: PlanOption = None,
    plan_use: PlanUseOption = None,
    shape: ShapeOption = None,
    config_file: ConfigOption = None,
    direction: Annotated[
        Direction | None,
        typer.Option(
            "--direction",
            rich_help_panel=LEARNING,
            help=_help("How the importance of gates is measured.", "direction"),
        ),
    ] = None,
    integer_kernels: Annotated[
        bool | None,
        typer.Option(
            "--integer-kernels/--no-integer-kernels",
            rich_help_panel=FILE,
            help="Make the model run in integer kernels: put quantizers between them, and narrow "
            "tensors at 16 or 32 bits to 8 (default: as the target says).",
        ),
    ] = None,
    equalize: Annotated[
        bool | None,
        typer.Option(
            "--equalize/--no-equalize",
            rich_help_panel=LEARNING,
            help=_help("Move factors of channels between operators first.", "equalize"),
        ),
    ] = None,
    effort: Annotated[
        Effort | None,
        typer.Option(
            "--effort",
            rich_help_panel=LEARNING,
            help=_help("Time to learn: fast (a minute or two), normal, best.", "effort"),
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            rich_help_panel=LEARNING,
            help="Train end to end for so many passes over the data, after the stages of a run "
            "(default: by the data).",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N",
            rich_help_panel=LEARNING,
            help=_help("Samples in a training step.", "batch_size"),
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            metavar="RATE",
            rich_help_panel=LEARNING,
            help="Peak learning rate of weights (default: by the model's depth).",
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            rich_help_panel=DATA,
            metavar="DATA",
            help="Held-out data, on which the best state is chosen (default: a part of --data).",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="LOSS",
            rich_help_panel=LEARNING,
            help=_help("labels, teacher, auto, or package.module:function.", "loss"),
        ),
    ] = None,
    device: DeviceOption = None,
    seed: SeedOption = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            rich_help_panel=LEARNING,
            metavar="SECONDS",
            help="Stop after this time, and write the best model so far.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=LEARNING,
            help="Go on with a run that was killed or interrupted.",
        ),
    ] = False,
    log: LogOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
    details: Annotated[
        bool,
        typer.Option(
            "--details", rich_help_panel=SHOWN, help="Show the tables of tensors and nodes too."
        ),
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
    *,
    data_options: DataOptions,
) -> None:
    """Learn bit-widths under a bound and write the quantized model."""
    given: dict[str, Any] = {
        "target": target,
        "form": form,
        "runtime": runtime,
        "compact": compact or None,
        "granularity": granularity,
        "activation_granularity": activation_granularity,
        "widths": parse_widths(widths),
        "activation_widths": parse_widths(activation_widths, "--activation-widths"),
        "prune": prune or None,
        "input_width": input_width,
        "plan": plan,
        "plan_use": plan_use,
        "direction": direction,
        "integer_kernels": integer_kernels,
        "equalize": equalize,
        "effort": effort,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "loss": loss,
        "device": device,
        "seed": seed,
        "time_limit": time_limit,
    }
    named: dict[str, dict[str, Any] | list[str]] = {
        "keep_float": keep_float or [],
        "fix": parse_fixed(fix),
        "widths_for": parse_widths_for(widths_for),
        "shapes": parse_shapes(shape),
    }
    with reported(as_json=as_json, debug=debug):
        settings = read_config(config_file)
        option, needed = "--bound (or --max-drop)", max_drop is None
        bounds = take_texts(settings, "bound", option, bound or [], needed=needed)
        source = take_text(settings, "data", "--data", data)
        written = take_text(settings, "output", "-o", None if output is None else str(output))
        # Options that are not given are left out, so that only Config defines defaults.
        run = Run(
            model=model,
            data=data_options.of(source),
            bound=", ".join(bounds) or None,
            max_drop=max_drop,
            output=Path(written),
            validation=data_options.of_optional(validation),
            config=Config.create(**merge(settings, given, named)),
            resume=resume,
            log=log,
            report=report,
            as_json=as_json,
            quiet=quiet,
            details=details,
        )
        keep_settings(run, config_file, target, plan)
        with reported(as_json=as_json, debug=debug, checkpoint=checkpoint_path(run.output)):
            carry_out(run)
