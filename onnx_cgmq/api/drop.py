"""The most that a model may lose against its float model: how that is given and judged."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from onnx_cgmq.api.float_agreement import FloatAgreement
from onnx_cgmq.api.quality import Quality
from onnx_cgmq.errors import ConfigError, DataError

_SHARE: Final = re.compile(r"(?P<number>\d+\.?\d*|\.\d+)%(?P<classes>:class)?")
_DECIBELS: Final = re.compile(r"(?:snr:)(?P<number>\d+\.?\d*|\.\d+)(?:db)?", re.IGNORECASE)
_FEWEST_FOR_RATIO: Final = 32
"""With fewer samples, one that is worse than others may halve a ratio. Our choice: 6 samples of a
classifier promised 41 dB where 96 others gave 17."""

_HELP: Final = (
    "give '1%' for the accuracy with labels, '2%:class' for the classes that the float model "
    "gives, or 'snr:30dB' for the signal-to-noise ratio against it"
)


@dataclass(frozen=True)
class MaxDrop:
    """The most that may be lost.

    Attributes:
        text: As the user gave it.
        quality: What is measured.
        amount: The largest drop, as a share; the smallest ratio in dB for ``Quality.SNR``.
    """

    text: str
    quality: Quality
    amount: float

    @classmethod
    def parse(cls, text: str | float) -> MaxDrop:
        """Reads ``"1%"`` or 0.01 (accuracy), ``"2%:class"`` or ``"snr:30dB"``.

        Raises:
            ConfigError: It is none of these, or no share below 100 %.
        """
        if isinstance(text, (int, float)):
            text = f"{100 * text:g}%"
        plain = text.replace(" ", "")
        if match := _DECIBELS.fullmatch(plain):
            return cls(text, Quality.SNR, float(match["number"]))
        match = _SHARE.fullmatch(plain)
        if match is None or not float(match["number"]) < 100:
            raise ConfigError(f"the largest drop {text!r} can't be read; {_HELP}")
        quality = Quality.CLASSES if match["classes"] else Quality.ACCURACY
        return cls(text, quality, float(match["number"]) / 100)

    def judged(self, agreement: FloatAgreement | None) -> Drop:
        """Says what was lost, and whether that is within the drop.

        Raises:
            DataError: It can't be told: without labels, for example.
        """
        value = None if agreement is None else self.quality.of(agreement)
        if agreement is None or value is None:
            needed = {
                Quality.ACCURACY: "data with labels and an output with class scores",
                Quality.CLASSES: "an output with class scores",
                Quality.SNR: "a float output, and a float model that onnxruntime runs",
            }[self.quality]
            raise DataError(f"the drop {self.text!r} can't be told: it needs {needed}; {_HELP}")
        if self.quality is Quality.SNR:
            kept = value >= self.amount
            return Drop(self.text, self.quality.text(value), value, None, kept, agreement.samples)
        reference = 1.0 if self.quality is Quality.CLASSES else agreement.float_accuracy
        assert reference is not None  # there are labels
        lost = reference - value
        error = _standard_error(agreement, lost)
        what = "of accuracy lost" if self.quality is Quality.ACCURACY else "of the classes differ"
        text = f"{lost:.2%} ± {error:.2%} {what}"
        # What floats round off must not decide: 1 of 100 samples is a drop of 1 %.
        kept = lost <= self.amount + 1e-9
        return Drop(self.text, text, lost, error, kept, agreement.samples)

    def coarse_note(self, samples: int) -> str:
        """A note if fewer samples are held out than it takes to tell such a drop; else empty."""
        if self.quality is Quality.SNR:
            return _few_note(samples)
        if samples * self.amount >= 1:
            return ""
        return (
            f"one of {samples:,} held-out samples is {1 / samples:.2%}, more than the drop of "
            f"{self.text} that is allowed, so none of them may change; give more with 'validation' "
            "(--validation)"
        )


def _few_note(samples: int) -> str:
    if samples >= _FEWEST_FOR_RATIO:
        return ""
    return (
        f"the signal-to-noise ratio is that of {samples:,} held-out samples, and may be much lower "
        "on others; give more with 'validation' (--validation)"
    )


@dataclass(frozen=True)
class Drop:
    """What a written model lost against its float model, on held-out samples in onnxruntime.

    Attributes:
        asked: The most that may be lost, as the user gave it.
        text: What was lost, with its standard error; or the signal-to-noise ratio.
        amount: The share that was lost; the ratio in dB if that was asked for.
        error: The standard error of the share: what it would differ by on other samples.
        kept: Whether that is within what was asked.
        samples: Number of samples.
    """

    asked: str
    text: str
    amount: float
    error: float | None
    kept: bool
    samples: int


def _standard_error(agreement: FloatAgreement, lost: float) -> float:
    """The standard error of a lost share: that of one changed sample at least."""
    count = max(1, agreement.classes_compared)
    changed = max(abs(lost), 1 - (agreement.same_class or 0.0))
    return max(1 / count, math.sqrt(max(0.0, changed - lost**2) / count))
