"""The options that say how images, sounds and lines of text are read; for several commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_cgmq.cli.groups import DATA
from onnx_cgmq.cli.option_groups import with_group
from onnx_cgmq.errors import ConfigError
from onnx_cgmq.settings.data_files import FOLDERS, DataFiles
from onnx_cgmq.settings.image_options import LAYOUTS, PRESETS, ImageOptions

_HELP = {
    "preset": f"How images are scaled: {', '.join(PRESETS)}.",
    "resize": "Length of the shorter side of images, or HEIGHTxWIDTH (default: by preset and "
    "model).",
    "crop": "Side of the square, or HEIGHTxWIDTH, cut out of the centre (default: as the model "
    "takes).",
    "mean": "Is subtracted from scaled pixels: one number, or 0.5,0.5,0.5 (default: by preset).",
    "std": "What remains is divided by this; as --mean (default: by preset).",
    "scale": "The factor of pixels, such as 1/255 (default: by preset).",
    "bgr": "Whether blue comes first (default: by preset).",
    "layout": f"{' or '.join(LAYOUTS)}, if the model does not tell.",
    "channels": "3, or 1 for gray, if the model does not tell.",
    "labels": f"'{FOLDERS}', if each class of images or sounds has a folder, or a CSV file: "
    "name,label (default: no labels).",
    "tokenizer": "The tokenizer.json for lines of text.",
    "length": "The most tokens of a line of text (default: by model and tokenizer).",
    "rate": "The sampling rate that sounds must have, in Hz.",
}


def _option(name: str, metavar: str | None = None) -> Any:
    flags = f"--{name}/--rgb" if name == "bgr" else f"--{name}"
    return typer.Option(flags, metavar=metavar, help=_HELP[name], rich_help_panel=DATA)


@dataclass(frozen=True)
class DataOptions:
    """What was given of these options, as text where it may have several forms."""

    preset: Annotated[str | None, _option("preset", "NAME")] = None
    resize: Annotated[str | None, _option("resize", "SIZE")] = None
    crop: Annotated[str | None, _option("crop", "SIZE")] = None
    mean: Annotated[str | None, _option("mean", "NUMBERS")] = None
    std: Annotated[str | None, _option("std", "NUMBERS")] = None
    scale: Annotated[str | None, _option("scale", "NUMBER")] = None
    bgr: Annotated[bool | None, _option("bgr")] = None
    layout: Annotated[str | None, _option("layout", "NAME")] = None
    channels: Annotated[int | None, _option("channels", "NUMBER")] = None
    labels: Annotated[str | None, _option("labels", "FILE")] = None
    tokenizer: Annotated[Path | None, _option("tokenizer", "FILE")] = None
    length: Annotated[int | None, _option("length", "TOKENS")] = None
    rate: Annotated[int | None, _option("rate", "HZ")] = None

    def of_optional(self, data: str | None) -> str | DataFiles | None:
        """Does the same as :meth:`of` where there may be no data."""
        return None if data is None else self.of(data)

    def of(self, data: str) -> str | DataFiles:
        """Puts the options and the data together; data alone if no option was given.

        Raises:
            ConfigError: An option can't be read, or data is not in files.
        """
        if self == DataOptions():
            return data
        from onnx_cgmq.data.objects import is_object_path  # loads numpy

        if is_object_path(data) and not os.path.exists(data):
            raise ConfigError(
                f"--data {data} gives arrays, so the options of images, sounds and lines of text "
                "have no effect on it; leave them out"
            )
        images = ImageOptions(
            preset=self.preset,
            resize=_size(self.resize, "--resize"),
            crop=_size(self.crop, "--crop"),
            mean=_numbers(self.mean, "--mean"),
            std=_numbers(self.std, "--std"),
            scale=None if self.scale is None else _number(self.scale, "--scale"),
            bgr=self.bgr,
            layout=self.layout,
            channels=self.channels,
        )
        return DataFiles(
            data,
            images=None if images == ImageOptions() else images,
            labels=self.labels,
            tokenizer=self.tokenizer,
            length=self.length,
            rate=self.rate,
        )


with_data_options = with_group("data_options", DataOptions)
"""Gives a command the options of :class:`DataOptions`, which it takes as ``data_options``."""


def _size(text: str | None, option: str) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sizes = text.split("x")
    if not all(size.isdecimal() for size in sizes) or len(sizes) > 2:
        raise ConfigError(f"{option} {text}: this is no size, such as 224 or 224x224")
    return int(sizes[0]) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    return None if text is None else tuple(_number(part, option) for part in text.split(","))


def _number(text: str, option: str) -> float:
    """Reads a number or a fraction, such as ``1/255``."""
    above, line, below = text.partition("/")
    try:
        return float(above) / float(below) if line else float(above)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{option} {text}: this is no number, such as 0.5 or 1/255") from error
