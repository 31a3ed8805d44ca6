"""Reads the data that users have, and checks it against a model."""

from __future__ import annotations

from onnx_cgmq.data.data_files import DataFiles
from onnx_cgmq.data.image_options import ImageOptions
from onnx_cgmq.data.samples import Batch, Samples
from onnx_cgmq.data.source import open_data

__all__ = ["Batch", "DataFiles", "ImageOptions", "Samples", "open_data"]
