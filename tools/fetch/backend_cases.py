"""The standard's own cases (``onnx.backend.test``), and which of them are set aside and why.

The single source for the tests of the mirror and for ``tools/bench/operators.py``. It needs onnx
and numpy only, so that other converters can be run on the same cases.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")

SET_ASIDE_TYPES: Mapping[str, str] = {
    "STRING": "strings",
    "SEQUENCE": "sequences",
    "OPTIONAL": "optionals",
    "FLOAT8": "8-bit floats",
    "FLOAT4": "4-bit floats",
    "INT4": "4-bit integers",
    "UINT4": "4-bit integers",
    "INT2": "2-bit integers",
    "UINT2": "2-bit integers",
    "COMPLEX": "complex numbers",
}
"""By the (beginning of the) type of a graph input or output."""

SET_ASIDE_DOMAINS: Mapping[str, str] = {
    "ai.onnx.ml": "classical machine learning (ai.onnx.ml)",
    "ai.onnx.preview": "preview operators",
    "ai.onnx.preview.training": "training operators",
}

SET_ASIDE_OPERATORS: Mapping[str, str] = dict.fromkeys(
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ),
    "random outputs",
)

SET_ASIDE_CASES: Mapping[str, str] = {
    "test_training_dropout": "random outputs",
    "test_training_dropout_mask": "random outputs",
    "test_training_dropout_default": "random outputs",
    "test_training_dropout_default_mask": "random outputs",
}

_FRACTIONAL_LENGTH = (
    "the expected values come from the length before it is rounded (2.4), the standard's text and "
    "onnxruntime take the length of the resized tensor (2)"
)

EXPLAINED: Mapping[str, str] = {
    "test_resize_downsample_scales_linear_align_corners": _FRACTIONAL_LENGTH,
    "test_resize_downsample_scales_cubic_align_corners": _FRACTIONAL_LENGTH,
}
"""Cases to be run whose expected values are not what the standard says."""

NO_GRADIENT = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "Cast",
        "CastLike",
        "ConstantOfShape",
        "DynamicQuantizeLinear",
        "EyeLike",
        "Hardmax",
        "MelWeightMatrix",
        "NonMaxSuppression",
        "QuantizeLinear",
        "Shape",
        "Size",
    }
)
"""Operators whose result does not depend on the values of a float input, or is constant between."""

TOLERANCES = {np.dtype(np.float16): (5e-3, 1e-3), np.dtype(ml_dtypes.bfloat16): (2e-2, 2e-2)}
DEFAULT_TOLERANCE = (1e-3, 1e-5)


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        name: Its name, such as ``test_relu``.
        kind: One of :data:`KINDS`.
        model: The model.
        data_sets: Inputs by name and expected outputs in order; an array, or for a sequence a list.
    """

    name: str
    kind: str
    model: onnx.ModelProto
    data_sets: tuple[tuple[dict[str, Any], list[Any]], ...]

    @property
    def is_expanded(self) -> bool:
        """Whether it is another case with the operator replaced by its definition."""
        return "_expanded" in self.name

    @property
    def operators(self) -> frozenset[str]:
        """The operators of the graph, not of its subgraphs."""
        return frozenset(node.op_type for node in self.model.graph.node)


@cache
def load(kind: str = "node") -> tuple[Case, ...]:
    """All cases of a kind."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind=kind)
    return tuple(_from_folder(case) if case.model is None else _case(case) for case in found)


def set_aside(case: Case) -> str | None:
    """Why a case says nothing about a float model in torch, or ``None`` if it is to be run."""
    if case.name in SET_ASIDE_CASES:
        return SET_ASIDE_CASES[case.name]
    for node in case.model.graph.node:
        reason = SET_ASIDE_DOMAINS.get(node.domain) or SET_ASIDE_OPERATORS.get(node.op_type)
        if reason:
            return reason
    types = sorted(
        name
        for value in (*case.model.graph.input, *case.model.graph.output)
        for name in _type_names(value.type)
    )
    reasons = (
        reason
        for start, reason in SET_ASIDE_TYPES.items()
        if any(t.startswith(start) for t in types)
    )
    return next(reasons, None)


def difference(got: np.ndarray, wanted: np.ndarray) -> str | None:
    """How an output differs from what is expected: type, shape, integers exact, floats closely."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"{got.dtype} {got.shape}, expected {wanted.dtype} {wanted.shape}"
    is_float = got.dtype.kind == "f" or got.dtype in TOLERANCES
    rtol, atol = TOLERANCES.get(got.dtype, DEFAULT_TOLERANCE) if is_float else (0.0, 0.0)
    if is_float:
        got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    try:
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return None


def _type_names(value: onnx.TypeProto) -> Iterator[str]:
    kind = value.WhichOneof("value")
    if kind == "tensor_type":
        yield onnx.TensorProto.DataType.Name(value.tensor_type.elem_type)
    elif kind == "sequence_type":
        yield "SEQUENCE"
        yield from _type_names(value.sequence_type.elem_type)
    elif kind == "optional_type":
        yield "OPTIONAL"
        yield from _type_names(value.optional_type.elem_type)


def _case(case: Any) -> Case:
    data = tuple(
        (_named(case.model, [_array(x) for x in inputs]), [_array(y) for y in outputs])
        for inputs, outputs in case.data_sets
    )
    return Case(case.name, case.kind, case.model, data)


def _from_folder(case: Any) -> Case:
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    data = tuple(
        (
            _named(model, _read(model.graph.input, path, "input")),
            _read(model.graph.output, path, "output"),
        )
        for path in sorted(folder.glob("test_data_set_*"))
    )
    return Case(case.name, case.kind, model, data)


def _read(values: Any, folder: Path, kind: str) -> list[Any]:
    """Reads the arrays of a data set; its files end where inputs that are initializers begin."""
    found: list[Any] = []
    for index, value in enumerate(values):
        path = folder / f"{kind}_{index}.pb"
        if not path.exists():
            break
        if value.type.WhichOneof("value") == "sequence_type":
            found.append(numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes())))
        else:
            found.append(numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())))
    return found


def _named(model: onnx.ModelProto, arrays: list[Any]) -> dict[str, Any]:
    return dict(zip((value.name for value in model.graph.input), arrays, strict=False))


def _array(data: Any) -> Any:
    if isinstance(data, onnx.TensorProto):
        return numpy_helper.to_array(data)
    if isinstance(data, (list, tuple)):
        return [_array(item) for item in data]
    return data if data is None else np.asarray(data)
