"""Data in files, with what the files themselves don't say."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from onnx_cgmq.errors import ConfigError, DataError
from onnx_cgmq.settings.image_options import ImageOptions

FOLDERS: Final = "folders"
"""Says that the names of folders are the labels."""

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class DataFiles:
    """A file or folder of data, with what it does not say itself.

    Attributes:
        path: An image or a folder of images, a folder of sounds, lines of text, or any path that
            :func:`~onnx_cgmq.api.pipeline.quantize` takes as data.
        images: How images become the input of the model.
        labels: For images and sounds: a CSV file with a name and a class index in each row; or
            ``"folders"``, if each class has a folder.
        tokenizer: For lines of text: the file ``tokenizer.json``.
        length: For lines of text: the most tokens of a line, where the model leaves it open.
        rate: For sounds: the sampling rate that each file must have, in Hz.

    Raises:
        ConfigError: A number is not positive.
    """

    path: PathLike
    images: ImageOptions | None = None
    labels: PathLike | None = None
    tokenizer: PathLike | None = None
    length: int | None = None
    rate: int | None = None

    def __post_init__(self) -> None:
        for name in ("length", "rate"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: it must be at least 1")

    @property
    def labels_file(self) -> Path | None:
        """The file with labels, if there is one."""
        return None if self.labels is None or self.labels == FOLDERS else Path(self.labels)

    def refuse_unused(self, kind: str, *used: str) -> None:
        """Refuses settings that mean nothing for a kind of data.

        Args:
            kind: What the data is, for the message.
            *used: Names of the settings that mean something.

        Raises:
            DataError: Another one is given; it was hardly meant to be without effect.
        """
        unused = [
            field.name
            for field in fields(self)
            if field.name not in ("path", *used) and getattr(self, field.name) is not None
        ]
        if unused:
            raise DataError(
                f"{self.path}: the settings of {', '.join(unused)} have no effect on {kind}; leave "
                "them out, or give other data"
            )
