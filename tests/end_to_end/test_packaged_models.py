"""Models as exporters wrote them, where ``python -m tools.fetch.models`` has fetched them.

``tools/bench/models.py`` measures the same on real input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from tools import ROOT
from tools.fetch.models import DEFAULT_CACHE, MODELS, is_whole

CACHE = ROOT / DEFAULT_CACHE
FILES = [CACHE / model.file_name for model in MODELS if is_whole(CACHE, model)]
SIZES = {
    "magika": (2048,),
    "ocr-detection": (3, 64, 64),
    "ocr-recognition": (3, 48, 32),
    "ocr-orientation": (3, 48, 192),
    "open-nsfw": (224, 224, 3),
}


def feeds(path: Path, rate: int) -> dict[str, np.ndarray]:
    """Random input for one sample."""
    generator = np.random.default_rng(0)
    found = {}
    for value in onnx.load(path, load_external_data=False).graph.input:
        shape = {"state": (2, 1, 128), "h": (1, 1, 128), "c": (1, 1, 128)}.get(value.name)
        shape = shape or (1, *SIZES.get(path.stem, (576 * rate // 16_000,)))
        array = generator.normal(size=shape).astype(np.float32)
        if value.name == "bytes":
            array = generator.integers(0, 257, shape).astype(np.int32)
        found[value.name] = np.array(rate) if value.name == "sr" else array
    return found


@pytest.mark.skipif(not FILES, reason="no models; python -m tools.fetch.models fetches them")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_mirror_and_preparation(path: Path) -> None:
    mirror, original, prepared = Mirror(path), open_session(path), open_session(prepare(path))
    names = [value.name for value in original.get_outputs()]
    two_rates = path.stem in ("silero-vad", "silero-vad-op18-ifless")
    for rate in (16_000, 8_000) if two_rates else (16_000,):
        arrays = feeds(path, rate)
        expected = original.run(names, arrays)
        found = mirror({name: torch.from_numpy(array) for name, array in arrays.items()})
        for name, a, b in zip(names, expected, prepared.run(names, arrays), strict=True):
            tolerance = 1e-6 + 1e-4 * float(np.abs(a).max())  # noise is no text: almost zero
            np.testing.assert_allclose(b, a, rtol=0, atol=tolerance)
            np.testing.assert_allclose(found[name].detach().numpy(), a, rtol=0, atol=tolerance)
        torch.autograd.backward([value.square().sum() for value in found.values()])
    assert all(weight.grad is not None for weight in mirror.value_parameters.values())
