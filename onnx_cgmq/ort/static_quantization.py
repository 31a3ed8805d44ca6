"""Quantizes a model with onnxruntime's own quantizer, to compare with."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_cgmq.data.samples import Samples
from onnx_cgmq.errors import ModelError, one_line
from onnx_cgmq.graph.files.load import load_model, save_model

_SAMPLES: Final = 256
_AT_ONCE: Final = 16
"""Samples that ranges are calibrated on, and samples at once. Our choice, for time."""


def quantize_static(model: ir.Model, data: Samples) -> ir.Model:
    """Quantizes a float model to 8 bits: QDQ, weights by channel, activations in UINT8.

    Args:
        model: The prepared float model.
        data: The samples to calibrate on, of which at most 256 are used that are evenly spread.

    Raises:
        ModelError: onnxruntime can't do it.
    """
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "static.onnx"
        save_model(model, source)
        try:
            quantization.quantize_static(
                source,
                target,
                _Reader(data),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise ModelError(
                f"onnxruntime's quantize_static can't quantize the model: {one_line(error)}"
            ) from error
        written = load_model(target)
        ir.external_data.load_to_model(written)  # before the folder goes
        return written


class _Reader:
    """Hands samples to onnxruntime, a few at once."""

    def __init__(self, data: Samples) -> None:
        order = np.linspace(0, len(data) - 1, min(_SAMPLES, len(data))).astype(np.int64)
        self._batches = data.batches(min(_AT_ONCE, len(order)), order=order)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else batch.inputs

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.get_next, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back onnxruntime's advice to pre-process a model, which is prepared already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
