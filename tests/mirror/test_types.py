"""Every operator in all types that the standard allows and torch can hold, by onnx.reference.

The standard's cases are in one or two types; here their inputs are converted to the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, defs, helper
from onnx.reference import ReferenceEvaluator

from onnx_cgmq.errors import CgmqError
from onnx_cgmq.mirror import Mirror
from onnx_cgmq.mirror.core.dtypes import TORCH_DTYPES, to_torch
from tools.fetch.backend_cases import Case, load, set_aside

HELD = {
    {"FLOAT": "tensor(float)"}.get(t.name, f"tensor({t.name.lower()})"): t.value
    for t in TORCH_DTYPES
    if t.bitwidth >= 8
}
FEWEST = 1200
"""Combinations of operator, type parameter and type that must be compared."""

LEFT_OUT = {
    "AffineGrid": "onnx.reference returns float32",
    "BatchNormalization": "onnx.reference gives the statistics the type of the input",
    "Det": "onnx.reference returns float64 for bfloat16",
    "GridSample": "onnx.reference cuts integers off before they are added",
    "ImageDecoder": "the mirror reads no image files",
    "LayerNormalization": "onnx.reference gives the statistics the type of the input",
    "RMSNormalization": "onnx.reference returns the type of the input, not that of the scale",
    "ReduceSumSquare": "onnx.reference returns 64 bits for 32",
}
"""Operators for which onnx.reference is no referee, and why."""

BY_ATTRIBUTE = frozenset({"to", "dtype", "output_dtype"})
"""Attributes that decide the output's type: the expected one would have to change with them."""


def _variants(case: Case) -> Iterator[tuple[str, int, frozenset[str]]]:
    """Type parameters of the node with each type, and the values that have it."""
    (node,) = case.model.graph.node
    opset = next(i.version for i in case.model.opset_import if i.domain == "")
    schema = defs.get_schema(node.op_type, opset)
    allowed = {t.type_param_str: t.allowed_type_strs for t in schema.type_constraints}

    def values(names: Any, formals: Any, parameter: str) -> set[str]:
        last = len(formals) - 1
        return {
            name
            for index, name in enumerate(names)
            if name and formals[min(index, last)].type_str == parameter
        }

    for parameter, types in allowed.items():
        names = values(node.input, schema.inputs, parameter)
        names |= values(node.output, schema.outputs, parameter)
        for name in sorted(set(types) & set(HELD)):
            yield parameter, HELD[name], frozenset(names)


def _converted(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype == np.bool_:
        return array.astype(np.float64) > 0.5
    wide = array.astype(np.float64) if array.dtype != np.int64 else array
    return (np.abs(wide) if dtype.kind == "u" else wide).astype(dtype)


def _typed(case: Case, to: int, names: frozenset[str]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model and its first inputs with some values of another type."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    feeds = dict(case.data_sets[0][0])
    for value in (*model.graph.input, *model.graph.output):
        if value.name in names:
            value.type.tensor_type.elem_type = to
            if value.name in feeds:
                dtype = helper.tensor_dtype_to_np_dtype(to)
                feeds[value.name] = _converted(feeds[value.name], dtype)
    return model, feeds


def _difference(model: onnx.ModelProto, feeds: dict[str, Any], wanted: list[Any]) -> str | None:
    tensors = {name: to_torch(ir.tensor(array)) for name, array in feeds.items()}
    try:
        got = Mirror(ir.from_proto(model))(tensors).values()
    except CgmqError as error:
        return str(error)
    for ours, theirs in zip(got, wanted, strict=True):
        expected = to_torch(ir.tensor(np.asarray(theirs)))
        if (ours.dtype, ours.shape) != (expected.dtype, expected.shape):
            return f"{ours.dtype} {ours.shape}, not {expected.dtype} {expected.shape}"
        narrow = ours.dtype in (torch.float16, torch.bfloat16)
        tolerance = 5e-2 if narrow else 1e-3 if ours.is_floating_point() else 0.0
        pair = ours.detach(), expected
        a, b = (t.to(torch.float64) if t.is_floating_point() else t for t in pair)
        if not np.allclose(a.numpy(), b.numpy(), rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"{a.flatten()[:4].tolist()}, not {b.flatten()[:4].tolist()}"
    return None


def _comparable(case: Case) -> bool:
    nodes = case.model.graph.node
    return (
        not case.is_expanded
        and set_aside(case) is None
        and len(nodes) == 1
        and nodes[0].op_type not in LEFT_OUT
        and not any(attribute.name in BY_ATTRIBUTE for attribute in nodes[0].attribute)
        and next(i.version for i in case.model.opset_import if not i.domain) >= 7
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_types_give_what_onnx_reference_gives() -> None:
    seen: set[tuple[str, str, int]] = set()
    problems = []
    for case in filter(_comparable, load("node")):
        operator = case.model.graph.node[0].op_type
        for parameter, dtype, names in _variants(case):
            if (operator, parameter, dtype) in seen:
                continue
            model, feeds = _typed(case, dtype, names)
            try:
                wanted = ReferenceEvaluator(model).run(None, feeds)
            except Exception:  # onnx.reference does not know all types either
                continue
            seen.add((operator, parameter, dtype))
            difference = _difference(model, feeds, wanted)
            if difference:
                problems.append(
                    f"{case.name} {parameter}={TensorProto.DataType.Name(dtype)}: {difference}"
                )
    assert not problems, "\n".join(problems)
    assert len(seen) >= FEWEST
