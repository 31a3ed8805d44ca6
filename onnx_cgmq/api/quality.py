"""The figure by which written models are compared: accuracy, classes, or signal over noise."""

from __future__ import annotations

from enum import Enum

from onnx_cgmq.api.float_agreement import FloatAgreement


class Quality(str, Enum):
    """What says how good a written model is; more is better.

    ACCURACY: Share of samples that it classifies right.
    CLASSES: Share of classes that are the same as in the float model.
    SNR: Signal-to-noise ratio against the float model in dB, of the output where it is lowest.
    """

    ACCURACY = "accuracy"
    CLASSES = "same class"
    SNR = "signal-to-noise ratio"

    @classmethod
    def best_known(cls, agreement: FloatAgreement) -> Quality | None:
        """The first of accuracy, signal-to-noise ratio and classes that can be told."""
        order = (cls.ACCURACY, cls.SNR, cls.CLASSES)
        return next((q for q in order if q.of(agreement) is not None), None)

    def of(self, agreement: FloatAgreement) -> float | None:
        """The figure; ``None`` if it can't be told."""
        if self is Quality.ACCURACY:
            return agreement.accuracy
        if self is Quality.CLASSES:
            return agreement.same_class
        ratios = [o.snr_db for o in agreement.outputs.values() if o.snr_db is not None]
        return min(ratios, default=None)

    def text(self, value: float) -> str:
        """Writes a figure with its unit."""
        return f"{value:.1f} dB" if self is Quality.SNR else f"{value:.2%}"
