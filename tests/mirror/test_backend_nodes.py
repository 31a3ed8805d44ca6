"""The standard's own cases: every one is right, or refused or set aside for a known reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.core.dtypes import to_torch
from tests.support.guarded_device import guarded_device
from tools.fetch.backend_cases import (
    EXPLAINED,
    KINDS,
    NO_GRADIENT,
    Case,
    difference,
    load,
    set_aside,
)

pytestmark = pytest.mark.slow

REFUSALS = {
    "ImageDecoder": "reads image files",
}
"""Part of the message of each refusal that is expected, and the reason."""

FEWEST_PASSING = 1195
"""Of the 1,210 cases of single operators that are to be run."""

WITHOUT_GRADIENT = {"depth", "indices", "like", "limit", "r", "ratio", "roi", "scales"}
"""Float inputs that are sizes, indices or settings: the mirror reads them as numbers."""


def _tensor(value: Any, *, gradient: bool = True) -> Any:
    """A torch tensor that requires a gradient if it can."""
    if value is None or isinstance(value, list):
        return value and [_tensor(item) for item in value]
    tensor = to_torch(ir.tensor(value))
    return tensor.requires_grad_(gradient and tensor.is_floating_point())


def _array(value: Tensor) -> np.ndarray:
    value = value.detach()
    if value.dtype is torch.bfloat16:
        return value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.numpy()


def _differences(got: Any, wanted: Any) -> Iterator[str]:
    if isinstance(wanted, list):
        for pair in zip(got, wanted, strict=True):
            yield from _differences(*pair)
    elif wanted is None:
        assert got is None
    else:
        array = _array(got)
        if wanted.dtype.name in ("int2", "int4", "uint2", "uint4"):
            wanted = wanted.astype(array.dtype)  # torch holds them in bytes
        text = difference(array, wanted)
        if text:
            yield text


def _moved(value: Any, device: torch.device) -> Any:
    """A value without gradients, on a device."""
    if isinstance(value, (list, tuple)):
        return [_moved(item, device) for item in value]
    return value.detach().to(device) if isinstance(value, Tensor) else value


def _devices(value: Any) -> Iterator[torch.device]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _devices(item)
    elif isinstance(value, Tensor):
        yield value.device


class _Results:
    """What became of the cases of a kind."""

    def __init__(self, kind: str) -> None:
        self.problems: list[str] = []
        self.elsewhere: list[str] = []
        self.moved = 0
        self.passed: Counter[str] = Counter()
        self.cut: list[str] = []
        for case in load(kind):
            if case.name not in EXPLAINED and set_aside(case) != "random outputs":
                self._run(case)

    def _run(self, case: Case) -> None:
        try:
            mirror = Mirror(ir.from_proto(case.model))
            differences = []
            for arrays, expected in case.data_sets:
                inputs = {name: _tensor(array) for name, array in arrays.items()}
                outputs = list(mirror(inputs).values())
                differences += _differences(outputs, expected)
        except ModelError as error:
            if not set_aside(case) and not any(part in str(error) for part in REFUSALS):
                self.problems.append(f"{case.name}: {error}")
            return
        self.problems += [f"{case.name}: {text}" for text in differences]
        if set_aside(case):
            return
        self.passed["expanded" if case.is_expanded else "plain"] += not differences
        if not differences:
            self._run_elsewhere(case, mirror)
        floats = [x for x in inputs.values() if isinstance(x, Tensor) and x.requires_grad]
        results = [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]
        if any(x.numel() for x in floats) and results and not any(y.requires_grad for y in results):
            self.cut += [] if case.operators & NO_GRADIENT or case.is_expanded else [case.name]

    def _run_elsewhere(self, case: Case, mirror: Mirror) -> None:
        """Runs a case on a device that refuses tensors of the CPU."""
        device = guarded_device()
        mirror.to(device)
        self.moved += 1
        for arrays, expected in case.data_sets:
            inputs = {name: _moved(_tensor(array), device) for name, array in arrays.items()}
            try:
                outputs = list(mirror(inputs).values())
            except ModelError as error:
                self.elsewhere.append(f"{case.name}: {error}")
                continue
            left = [other for other in _devices(outputs) if other != device]
            self.elsewhere += [f"{case.name}: an output is on {other}" for other in left]
            found = _differences(_moved(outputs, torch.device("cpu")), expected)
            self.elsewhere += [f"{case.name}: {text}" for text in found]


_results = cache(_Results)


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_is_right_or_refused_for_a_known_reason(kind: str) -> None:
    assert not _results(kind).problems, "\n".join(_results(kind).problems)


def test_no_operator_is_missing() -> None:
    assert _results("node").passed["plain"] >= FEWEST_PASSING


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_that_passes_leaves_nothing_behind_on_the_cpu(kind: str) -> None:
    results = _results(kind)
    assert results.moved == results.passed.total()
    assert not results.elsewhere, "\n".join(results.elsewhere)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_a_float_input(kind: str) -> None:
    assert not _results(kind).cut


def _sample() -> Iterator[Case]:
    """Two cases of every combination of operators."""
    seen: Counter[frozenset[str]] = Counter()
    for case in load("node"):
        seen[case.operators] += 1
        if seen[case.operators] <= 2 and not case.is_expanded and not set_aside(case):
            yield case


def test_gradients_equal_finite_differences() -> None:
    problems = []
    checked = 0
    for case in _sample():
        try:
            mirror = Mirror(ir.from_proto(case.model)).double()
            checked += _check_gradients(mirror, case.data_sets[0][0])
        except ModelError:
            continue  # the other test tells
        except AssertionError as error:
            problems.append(f"{case.name}: {error}")
    assert checked > 200
    assert not problems, "\n".join(problems)


def _check_gradients(mirror: Mirror, arrays: Mapping[str, Any]) -> bool:
    """Compares the gradient along a random direction; ``False`` if there is none."""
    generator = torch.Generator().manual_seed(0)
    fixed = {name: _tensor(array, gradient=False) for name, array in arrays.items()}
    moved = {}
    for name, x in fixed.items():
        if isinstance(x, Tensor) and x.is_floating_point() and name not in WITHOUT_GRADIENT:
            # away from the kinks, where many cases have their values
            noise = 1e-3 * torch.rand(x.shape, dtype=torch.float64, generator=generator)
            moved[name] = (x.double() + noise).requires_grad_()

    def run(values: Mapping[str, Tensor]) -> list[Tensor]:
        outputs = mirror({**fixed, **values}).values()
        return [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]

    outputs = run(moved)
    chosen = [i for i, y in enumerate(outputs) if y.requires_grad and y.dtype is torch.float64]
    if not chosen or not moved:
        return False
    finite = {i: outputs[i].detach().isfinite() for i in chosen}
    weights = {i: torch.randn(outputs[i].shape, generator=generator).double() for i in chosen}

    def total(results: list[Tensor]) -> Tensor:
        return torch.stack(
            [(torch.where(finite[i], results[i], 0.0) * weights[i]).sum() for i in chosen]
        ).sum()

    gradients = torch.autograd.grad(total(outputs), list(moved.values()), allow_unused=True)
    missing = [name for name, g in zip(moved, gradients, strict=True) if g is None]
    assert not missing, f"no gradient for {missing}"
    directions = {
        name: torch.randn(x.shape, generator=generator).double() for name, x in moved.items()
    }
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions.values(), strict=True))

    def measured(step: float) -> float:
        ahead, behind = (
            {name: x.detach() + sign * step * directions[name] for name, x in moved.items()}
            for sign in (1, -1)
        )
        with torch.no_grad():
            return float(total(run(ahead)) - total(run(behind))) / (2 * step)

    # Some operators compute in float32 whatever they are given: a wider step rounds less.
    attempts = ((1e-6, 1e-4), (1e-2, 2e-2))
    errors = {}
    for step, tolerance in attempts:
        errors[step] = abs(measured(step) - slope)
        if errors[step] <= tolerance * max(1.0, abs(slope)):
            return True
    raise AssertionError(f"slope {slope}, off by {errors}")
