"""The options of ``curve`` and ``sensitivity`` for settings of a run; a file has all others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_cgmq.cli.groups import LEARNING, WIDTHS
from onnx_cgmq.cli.option_groups import with_group
from onnx_cgmq.cli.options import (
    DeviceOption,
    FormOption,
    RuntimeOption,
    SeedOption,
    ShapeOption,
    TargetOption,
    parse_shapes,
    parse_widths,
)
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
from onnx_cgmq.settings.config import Config


@dataclass(frozen=True)
class RunOptions:
    """What was given of the settings that decide widths and cost."""

    target: TargetOption = None
    form: FormOption = None
    runtime: RuntimeOption = None
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths", metavar="2,4,8", rich_help_panel=WIDTHS, help="Widths to choose from."
        ),
    ] = None
    activation_widths: Annotated[
        str | None,
        typer.Option(
            "--activation-widths",
            metavar="4,8",
            rich_help_panel=WIDTHS,
            help="Widths for activations.",
        ),
    ] = None
    keep_float: KeepFloatOption = None
    fix: FixOption = None
    widths_for: WidthsForOption = None
    shape: ShapeOption = None
    config_file: ConfigOption = None
    device: DeviceOption = None
    seed: SeedOption = None
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="LOSS",
            rich_help_panel=LEARNING,
            help="labels, teacher, auto, or package.module:function.",
        ),
    ] = None

    def config(self, **further: Any) -> Config:
        """Makes the settings of the file and the options.

        Args:
            **further: Settings that other options of a command give; ``None`` if one was not given.

        Raises:
            ConfigError: The file can't be read, or a setting is invalid.
        """
        given = {
            "target": self.target,
            "form": self.form,
            "runtime": self.runtime,
            "widths": parse_widths(self.widths),
            "activation_widths": parse_widths(self.activation_widths, "--activation-widths"),
            "device": self.device,
            "seed": self.seed,
            "loss": self.loss,
            **further,
        }
        named: dict[str, dict[str, Any] | list[str]] = {
            "keep_float": self.keep_float or [],
            "fix": parse_fixed(self.fix),
            "widths_for": parse_widths_for(self.widths_for),
            "shapes": parse_shapes(self.shape),
        }
        return Config.create(**merge(read_config(self.config_file), given, named))

    @property
    def files(self) -> list[Path]:
        """The files that settings are read from."""
        target = None if self.target is None else Path(self.target)
        return [file for file in (self.config_file, target) if file is not None and file.is_file()]


with_run_options = with_group("run_options", RunOptions)
"""Gives a command the options of :class:`RunOptions`, which it takes as ``run_options``."""
