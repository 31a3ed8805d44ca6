"""Reads the data that users have, and checks it against a model."""

from __future__ import annotations

from onnx_cgmq.data.samples import Batch, Samples
from onnx_cgmq.data.source import open_data

__all__ = ["Batch", "Samples", "open_data"]
