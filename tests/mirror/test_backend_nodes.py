"""The standard's own cases: every one is right, or refused or set aside for a known reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from backend_cases import EXPLAINED, KINDS, NO_GRADIENT, Case, difference, load, set_aside
from torch import Tensor

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.dtypes import to_torch

REFUSALS = {
    "ImageDecoder": "reads image files",
}
"""Part of the message of each refusal that is expected, and the reason."""

FEWEST_PASSING = 1195
"""Of the 1,210 cases of single operators that are to be run."""


def _tensor(value: Any) -> Any:
    if value is None or isinstance(value, list):
        return value and [_tensor(item) for item in value]
    return to_torch(ir.tensor(value))


def _array(value: Tensor) -> np.ndarray:
    value = value.detach()
    if value.dtype is torch.bfloat16:
        return value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.numpy()


def _differences(got: Any, wanted: Any) -> list[str]:
    if isinstance(wanted, list):
        pairs = zip(got, wanted, strict=True)
        return [text for pair in pairs for text in _differences(*pair)]
    text = difference(_array(got), wanted)
    return [text] if text else []


def _run(case: Case) -> list[str]:
    """How the outputs differ from those expected."""
    mirror = Mirror(ir.from_proto(case.model))
    found = []
    for inputs, expected in case.data_sets:
        outputs = mirror({name: _tensor(array) for name, array in inputs.items()})
        found += _differences(list(outputs.values()), expected)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_is_right_or_refused_for_a_known_reason(kind: str) -> None:
    problems: list[str] = []
    counts: Counter[str] = Counter()
    for case in load(kind):
        if set_aside(case) or case.name in EXPLAINED:
            continue
        try:
            differences = _run(case)
        except ModelError as error:
            if not any(part in str(error) for part in REFUSALS):
                problems.append(f"{case.name}: {error}")
            continue
        problems += [f"{case.name}: {text}" for text in differences]
        counts["expanded" if case.is_expanded else "plain"] += not differences
    assert not problems, "\n".join(problems)
    assert kind != "node" or counts["plain"] >= FEWEST_PASSING


def test_gradients_reach_the_float_inputs() -> None:
    without: list[str] = []
    for case in load("node"):
        if case.is_expanded or set_aside(case) or case.operators & NO_GRADIENT:
            continue
        inputs = {name: _tensor(array) for name, array in case.data_sets[0][0].items()}
        floats = [t for t in inputs.values() if t.dtype.is_floating_point and t.numel()]
        for tensor in floats:
            tensor.requires_grad_()
        try:
            results = Mirror(ir.from_proto(case.model))(inputs)
        except ModelError:
            continue
        outputs = [y for y in results.values() if y.dtype.is_floating_point]
        if floats and outputs and not any(output.requires_grad for output in outputs):
            without.append(case.name)
    assert not without
