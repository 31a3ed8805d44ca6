"""The standard's own node cases, for every operator that the mirror has."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from onnx_cgmq.errors import ModelError, UnsupportedOperatorError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.dtypes import to_torch
from onnx_cgmq.mirror.registry import find_operator

REFUSALS = {
    "no tensors of type FLOAT8": "torch computes with no 8-bit floats",
    "no tensors of type FLOAT4": "torch computes with no 4-bit floats",
    "no tensors of type STRING": "torch has no strings",
    "no tensors of type COMPLEX": "no complex tensors",
    "training mode": "the mirror is a model in inference",
    "training_mode is on": "the same, where the mode is an input of the graph",
    "opsets before 7": "models are upgraded first",
    "codes of type": "quantizers of 8- and 4-bit floats",
}
"""Why a case may be refused: part of the message, and the reason. No case may give wrong values."""

TOLERANCES = {torch.float16: (5e-3, 1e-3), torch.bfloat16: (2e-2, 2e-2)}
DEFAULT_TOLERANCE = (1e-3, 1e-5)
FEWEST_PASSING = 1000
NO_GRADIENT = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "Cast",
        "CastLike",
        "ConstantOfShape",
        "EyeLike",
        "Hardmax",
        "QuantizeLinear",
        "DynamicQuantizeLinear",
        "Shape",
        "Size",
    }
)
"""Operators whose result does not depend on the values of a float input, or is constant between."""


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    return [case for case in found if case.model is not None and _covered(case.model)]


def _covered(model: onnx.ModelProto) -> bool:
    opsets = {imported.domain: imported.version for imported in model.opset_import}
    return all(
        find_operator(node.domain, node.op_type, opsets.get(node.domain, 1)) is not None
        for node in model.graph.node
    )


def _tensor(data: Any) -> Tensor:
    if isinstance(data, onnx.TensorProto):
        return to_torch(ir.from_proto(data))
    return to_torch(ir.tensor(np.asarray(data)))


def _inputs(case: Any, arrays: Any) -> dict[str, Tensor]:
    pairs = zip(case.model.graph.input, arrays, strict=False)
    return {value.name: _tensor(array) for value, array in pairs}


def _difference(got: Tensor, wanted: Tensor) -> str | None:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"{got.dtype} {tuple(got.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
    rtol, atol = TOLERANCES.get(got.dtype, DEFAULT_TOLERANCE)
    exact = not got.dtype.is_floating_point
    try:
        torch.testing.assert_close(
            got, wanted, rtol=0 if exact else rtol, atol=0 if exact else atol, equal_nan=True
        )
    except AssertionError as error:
        return str(error).replace("\n", " ")
    return None


def _run(case: Any) -> str | None:
    """The first difference from the expected outputs, if any."""
    mirror = Mirror(ir.from_proto(case.model))
    for arrays, expected in case.data_sets:
        outputs = mirror(_inputs(case, arrays))
        for got, wanted in zip(outputs.values(), expected, strict=True):
            difference = _difference(got.detach(), _tensor(wanted))
            if difference:
                return difference
    return None


def test_every_case_is_right_or_refused_for_a_known_reason(cases: list[Any]) -> None:
    problems: list[str] = []
    passed: Counter[str] = Counter()
    for case in cases:
        try:
            difference = _run(case)
        except (ModelError, UnsupportedOperatorError) as error:
            if not any(part in str(error) for part in REFUSALS):
                problems.append(f"{case.name}: {error}")
            continue
        if difference:
            problems.append(f"{case.name}: {difference}")
        else:
            passed["all"] += 1
    assert not problems, "\n".join(problems)
    assert passed["all"] >= FEWEST_PASSING


def test_gradients_reach_the_float_inputs(cases: list[Any]) -> None:
    without: list[str] = []
    for case in cases:
        operators = {node.op_type for node in case.model.graph.node}
        if "_expanded" in case.name or operators & NO_GRADIENT:
            continue
        try:
            mirror = Mirror(ir.from_proto(case.model))
            inputs = _inputs(case, case.data_sets[0][0])
            floats = [t for t in inputs.values() if t.dtype.is_floating_point and t.numel()]
            for tensor in floats:
                tensor.requires_grad_()
            outputs = [y for y in mirror(inputs).values() if y.dtype.is_floating_point]
        except (ModelError, UnsupportedOperatorError):
            continue
        if floats and outputs and not any(output.requires_grad for output in outputs):
            without.append(case.name)
    assert not without
