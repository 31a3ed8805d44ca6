"""Models as exporters wrote them: all that comes before learning.

Each runs with random weights, and with its own where ``python -m tools.fetch.models`` has fetched
it.
``tools/bench/models.py`` measures the same on real input.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.mirror.module import Mirror
from onnx_cgmq.ort.session import open_session
from onnx_cgmq.preparation.prepare import prepare
from tests.support.packaged_models import NAMES, packaged_model
from tools import ROOT
from tools.fetch.models import DEFAULT_CACHE, MODELS, is_whole

pytestmark = pytest.mark.slow

CACHE = ROOT / DEFAULT_CACHE
FETCHED = [model.name for model in MODELS if is_whole(CACHE, model)]
CASES = [
    *(pytest.param(name, False, id=name) for name in NAMES),
    *(pytest.param(name, True, id=f"{name} with its weights") for name in FETCHED),
]
TWO_RATES = ("silero-vad", "silero-vad-op18-ifless")
SIZES = {
    "magika": (2048,),
    "ocr-detection": (3, 64, 64),
    "ocr-recognition": (3, 48, 32),
    "ocr-orientation": (3, 48, 192),
    "open-nsfw": (224, 224, 3),
}


def load(name: str, has_weights: bool) -> onnx.ModelProto:
    return onnx.load(CACHE / f"{name}.onnx") if has_weights else packaged_model(name)


def feeds(name: str, model: onnx.ModelProto, rate: int) -> dict[str, np.ndarray]:
    """Random input for one sample."""
    generator = np.random.default_rng(0)
    found = {}
    for value in model.graph.input:
        shape = {"state": (2, 1, 128), "h": (1, 1, 128), "c": (1, 1, 128)}.get(value.name)
        shape = shape or (1, *SIZES.get(name, (576 * rate // 16_000,)))
        array = generator.normal(size=shape).astype(np.float32)
        if value.name == "bytes":
            array = generator.integers(0, 257, shape).astype(np.int32)
        found[value.name] = np.array(rate) if value.name == "sr" else array
    return found


@pytest.mark.parametrize(("name", "has_weights"), CASES)
def test_mirror_and_preparation(name: str, has_weights: bool) -> None:
    model = load(name, has_weights)
    mirror, original, prepared = Mirror(model), open_session(model), open_session(prepare(model))
    names = [value.name for value in original.get_outputs()]
    for rate in (16_000, 8_000) if name in TWO_RATES else (16_000,):
        arrays = feeds(name, model, rate)
        expected = dict(zip(names, original.run(names, arrays), strict=True))
        found = mirror({name: torch.from_numpy(array) for name, array in arrays.items()})
        check({name: value.detach().numpy() for name, value in found.items()}, expected)
        check(dict(zip(names, prepared.run(names, arrays), strict=True)), expected)
        torch.autograd.backward([value.square().sum() for value in found.values()])
    assert all(weight.grad is not None for weight in mirror.value_parameters.values())


@pytest.mark.parametrize(("name", "has_weights"), CASES)
def test_with_gates_it_is_still_the_float_model(name: str, has_weights: bool) -> None:
    model = load(name, has_weights)
    if name in TWO_RATES:  # what multiplies is in the branches of an If
        with pytest.raises(ModelError, match="nothing to quantize"):
            insert_gates(model)
        return
    original, arrays = open_session(model), feeds(name, model, 16_000)
    names = [value.name for value in original.get_outputs()]
    mirror = Mirror(insert_gates(model, target="generic", integer_kernels=False))
    assert mirror.quantizers
    with torch.no_grad():
        found = mirror({name: torch.from_numpy(array) for name, array in arrays.items()})
    expected = dict(zip(names, original.run(names, arrays), strict=True))
    check({name: value.numpy() for name, value in found.items()}, expected)


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        tolerance = 1e-6 + 1e-4 * float(np.abs(array).max())  # noise is no text: almost zero
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance, err_msg=name)
