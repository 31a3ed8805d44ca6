"""Sounds as the input of a model: mono, at the rate that they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from onnx_cgmq.data.damage import DamagedFileError
from onnx_cgmq.data.extras import extra_package
from onnx_cgmq.data.reading import reading
from onnx_cgmq.data.specs import InputSpec
from onnx_cgmq.errors import DataError

SUFFIXES: Final = frozenset({".flac", ".ogg", ".wav"})
"""How names of sound files end, in lower case."""


@dataclass
class SoundReader:
    """Reads sounds as one input of a model: ``[batch, samples]`` or ``[batch, 1, samples]``.

    Attributes:
        spec: The input.
        rate: The sampling rate that each file must have; ``None`` for that of the first.
    """

    spec: InputSpec
    rate: int | None
    _first: str = field(default="--rate", init=False)

    @classmethod
    def of(cls, specs: Sequence[InputSpec], rate: int | None, where: str) -> SoundReader:
        """Checks that a model takes sounds.

        Raises:
            DataError: It has several inputs, or one of another shape or type.
        """
        axes = specs[0].sample_axes
        fits = axes is not None and (len(axes) == 2 or (len(axes) == 3 and axes[1] == 1))
        if len(specs) != 1 or not fits or specs[0].dtype.kind != "f":
            raise DataError(
                f"{where}: sounds are for a model with one input of floats, [batch, samples] or "
                f"[batch, 1, samples], but this one has {', '.join(map(str, specs))}; compute what "
                "it takes yourself, and give it as .npz files or by package.module:factory"
            )
        return cls(specs[0], rate)

    @property
    def note(self) -> str:
        """A sentence on what becomes of a sound."""
        length = self.spec.fixed_length
        if length is None:
            return "sounds are as long as they are, with values from -1 to 1"
        return (
            f"sounds have values from -1 to 1; the first {length} are taken, and zeros are "
            "added to a shorter sound"
        )

    def read(self, path: Path) -> npt.NDArray[Any]:
        """Reads a file as an array with one sample.

        Raises:
            DamagedFileError: It is not a readable sound.
            DataError: It has several channels, another rate than those before, or no values.
        """
        soundfile = extra_package("soundfile", "audio", str(path))
        with reading(path, "sound", kind=DamagedFileError):
            values, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if values.shape[1] != 1:
            raise DataError(
                f"{path}: {values.shape[1]} channels; models here take one, so mix them to mono"
            )
        if not len(values):
            raise DataError(f"{path}: a sound without values; remove it")
        if self.rate is None:
            self.rate, self._first = rate, str(path)
        if rate != self.rate:
            raise DataError(
                f"{path}: a rate of {rate} Hz, but {self._first} says {self.rate}; resample it"
            )
        length = self.spec.fixed_length
        sound: npt.NDArray[Any] = values[:length, 0]
        if length is not None:
            sound = np.pad(sound, (0, length - len(sound)))
        axes = self.spec.sample_axes or ()
        return sound.reshape((1,) * (len(axes) - 1) + (-1,))
