"""Models as exporters wrote them: their stored graphs, with random weights.

``tools/fetch/model_structures.py`` stores them; ``packaged_graphs/README.md`` says where they come
from.
"""

from __future__ import annotations

import lzma
import math
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tools.fetch.model_structures import constants

FOLDER = Path(__file__).parent / "packaged_graphs"
NAMES = sorted(path.name.removesuffix(".onnx.xz") for path in FOLDER.glob("*.onnx.xz"))


def packaged_model(name: str) -> onnx.ModelProto:
    """A model with random numbers where the weights were left out."""
    model = read(FOLDER / f"{name}.onnx.xz")
    generator = np.random.default_rng(0)
    for tensor in constants(model.graph):
        if _lacks_values(tensor):
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.raw_data = _weights(generator, tuple(tensor.dims)).astype(dtype).tobytes()
    return model


def read(path: Path) -> onnx.ModelProto:
    """A stored graph as it is."""
    return onnx.load_model_from_string(lzma.decompress(path.read_bytes()))


def _lacks_values(tensor: onnx.TensorProto) -> bool:
    is_float = helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f"
    fields = (tensor.float_data, tensor.int32_data, tensor.double_data)
    return is_float and not tensor.raw_data and not any(fields)


def _weights(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values that neither vanish nor explode; vectors are positive, as variances must be."""
    if len(shape) < 2:
        return generator.uniform(0.5, 1.5, shape)
    summed = shape[0] if len(shape) == 2 else math.prod(shape[1:])
    return generator.normal(size=shape) / math.sqrt(summed)
