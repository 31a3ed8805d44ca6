"""Arithmetic on shapes, done with Python numbers.

A graph with dynamic sizes computes shapes from shapes. Done in Python that costs nothing, needs no
tensor to be read back, and ``torch.compile`` can trace it. Everything here is an integer or a truth
value, or a list of them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnx_cgmq.mirror.registry import Context

Shape = tuple[int | None, ...]
"""``()`` of a number, ``(n,)`` of a list; the length is ``None`` if it depends on the data."""

_INT, _BOOL = ir.DataType.INT64, ir.DataType.BOOL
LARGEST = 64
"""Numbers above which a constant is no shape."""


@dataclass(frozen=True)
class Operand:
    """What is known of an input before anything runs.

    Attributes:
        shape: Its shape.
        dtype: ``INT64`` or ``BOOL``.
        value: Its value if it is constant.
    """

    shape: Shape
    dtype: ir.DataType
    value: Any = None


Result = tuple[Shape, ir.DataType]
Plan = Callable[[Context, Sequence["Operand | None"]], "Result | None"]
"""``plan(context, operands)``: shape and type of the result, ``None`` if it must be a tensor."""


@dataclass(frozen=True)
class HostOp:
    """An operator on Python numbers.

    Attributes:
        plan: Says whether it can be done so.
        run: ``run(context, *inputs)``.
    """

    plan: Plan
    run: Callable[..., Any]


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    if not any(shapes):
        return ()
    lengths = {shape[0] for shape in shapes if shape and shape[0] != 1}
    return (lengths.pop() if len(lengths) == 1 else None,) if lengths else (1,)


def _map(function: Callable[..., Any], *values: Any) -> Any:
    """Applies a function to numbers, and to lists number by number."""
    lengths = {len(value) for value in values if isinstance(value, list)}
    if not lengths:
        return function(*values)
    longest = lengths - {1}
    if len(longest) > 1:
        raise ValueError(f"lists of {sorted(lengths)} numbers don't broadcast")
    count = longest.pop() if longest else 1
    rows = [
        (value * count if len(value) == 1 else value)
        if isinstance(value, list)
        else [value] * count
        for value in values
    ]
    return [function(*numbers) for numbers in zip(*rows, strict=True)]


def _elementwise(
    function: Callable[..., Any], dtype: ir.DataType | None = None, takes: ir.DataType | None = None
) -> HostOp:
    """An operator number by number; its result has the type given, else that of its last input."""

    def plan(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
        known = [operand for operand in operands if operand is not None]
        if takes is not None and any(operand.dtype is not takes for operand in known):
            return None
        return _broadcast([operand.shape for operand in known]), dtype or known[-1].dtype

    return HostOp(plan, lambda ctx, *values: _map(function, *values))


def _divide(a: int, b: int) -> int:
    """Division towards zero, as integers divide in C."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _axes(ctx: Context, operands: Sequence[Operand | None]) -> Any:
    """Axes from the attribute of older versions or a constant input; ``None`` if omitted."""
    if ctx.has("axes"):
        return list(ctx.integers("axes") or ())
    operand = operands[1] if len(operands) > 1 else None
    if operand is None:
        return None
    if operand.value is None:
        return "unknown"
    return operand.value if isinstance(operand.value, list) else [operand.value]


def _plan_cast(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    (x,) = operands
    target = ir.DataType(ctx.integer("to"))
    return None if x is None or target not in (_INT, _BOOL) else (x.shape, target)


def _run_cast(ctx: Context, x: Any) -> Any:
    return _map(int if ctx.integer("to") == _INT else bool, x)


def _plan_gather(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    x, indices = operands
    if x is None or indices is None or len(x.shape) != 1 or ctx.integer("axis") not in (0, -1):
        return None
    return indices.shape, x.dtype


def _run_gather(ctx: Context, x: list[Any], indices: Any) -> Any:
    return _map(x.__getitem__, indices)


def _plan_concat(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    parts = [operand for operand in operands if operand is not None]
    if any(len(part.shape) != 1 for part in parts):
        return None
    lengths = [part.shape[0] for part in parts]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    return (total,), parts[0].dtype


def _plan_slice(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    x = operands[0]
    return None if x is None or len(x.shape) != 1 else ((None,), x.dtype)


def _run_slice(
    ctx: Context,
    x: list[Any],
    starts: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> list[Any]:
    starts = ctx.integers("starts") or () if starts is None else starts
    ends = ctx.integers("ends") or () if ends is None else ends
    for start, end, step in zip(starts, ends, steps or [1] * len(starts), strict=True):
        x = x[start:end:step]
    return x


def _plan_squeeze(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    x, axes = operands[0], _axes(ctx, operands)
    if x is None or len(x.shape) != 1:
        return None
    removes = axes in ([0], [-1]) or (axes is None and x.shape == (1,))
    return ((), x.dtype) if removes else None


def _run_squeeze(ctx: Context, x: list[Any], axes: Any = None) -> Any:
    (number,) = x
    return number


def _plan_unsqueeze(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    x, axes = operands[0], _axes(ctx, operands)
    return ((1,), x.dtype) if x is not None and not x.shape and axes in ([0], [-1]) else None


def _plan_reshape(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    x, shape = operands
    if x is None or shape is None or shape.shape not in ((0,), (1,)):
        return None
    return ((None if x.shape else 1,) if shape.shape == (1,) else ()), x.dtype


def _run_reshape(ctx: Context, x: Any, shape: Sequence[int]) -> Any:
    numbers = x if isinstance(x, list) else [x]
    kept = [len(numbers), -1, 0] if isinstance(x, list) else [1, -1]
    if not shape and len(numbers) == 1:
        return numbers[0]
    if not shape or shape[0] not in kept:
        raise ValueError(f"{len(numbers)} numbers can't be reshaped to {list(shape)}")
    return numbers


def _plan_filled(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    (shape,) = operands
    value: ir.TensorProtocol | None = ctx.attributes.get("value")
    if shape is None or shape.shape != (1,) or value is None or value.dtype not in (_INT, _BOOL):
        return None
    return (None,), value.dtype


def _run_filled(ctx: Context, shape: list[int]) -> Any:
    return ctx.attributes["value"].numpy().reshape(-1).tolist() * shape[0]


def _plan_expand(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    x, shape = operands
    if x is None or shape is None or shape.shape != (1,):
        return None
    return (None,), x.dtype


def _run_expand(ctx: Context, x: Any, shape: list[int]) -> Any:
    return _map(lambda number, _: number, x, [0] * shape[0])


def _reduction(function: Callable[[list[Any]], Any]) -> HostOp:
    def plan(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
        x, axes = operands[0], _axes(ctx, operands)
        whole = axes in ([0], [-1]) or (axes is None and not ctx.flag("noop_with_empty_axes"))
        if x is None or len(x.shape) != 1 or x.dtype is not _INT or not whole:
            return None
        return ((1,) if ctx.flag("keepdims", True) else ()), x.dtype

    def run(ctx: Context, x: list[Any], axes: Any = None) -> Any:
        result = function(x)
        return [result] if ctx.flag("keepdims", True) else result

    return HostOp(plan, run)


def _same(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    (x,) = operands
    return None if x is None else (x.shape, x.dtype)


def _plan_shape(ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    (x,) = operands
    whole = not ctx.has("start") and not ctx.has("end")
    return ((1,), _INT) if x is not None and len(x.shape) == 1 and whole else None


def shape_of(ctx: Context, sizes: Sequence[int]) -> list[int]:
    """``Shape``: a list of sizes, or a part of it."""
    end: int | None = ctx.integer("end") if ctx.has("end") else None
    return list(sizes)[ctx.integer("start") : end]


HOST_OPS = {
    "Shape": HostOp(_plan_shape, lambda ctx, x: shape_of(ctx, [len(x)])),
    "Identity": HostOp(_same, lambda ctx, x: x),
    "Cast": HostOp(_plan_cast, _run_cast),
    "Gather": HostOp(_plan_gather, _run_gather),
    "Concat": HostOp(_plan_concat, lambda ctx, *xs: [number for x in xs for number in x]),
    "Slice": HostOp(_plan_slice, _run_slice),
    "Squeeze": HostOp(_plan_squeeze, _run_squeeze),
    "Unsqueeze": HostOp(_plan_unsqueeze, lambda ctx, x, axes=None: [x]),
    "Reshape": HostOp(_plan_reshape, _run_reshape),
    "ConstantOfShape": HostOp(_plan_filled, _run_filled),
    "Expand": HostOp(_plan_expand, _run_expand),
    "Add": _elementwise(operator.add, takes=_INT),
    "Sub": _elementwise(operator.sub, takes=_INT),
    "Mul": _elementwise(operator.mul, takes=_INT),
    "Div": _elementwise(_divide, takes=_INT),
    "Neg": _elementwise(operator.neg, takes=_INT),
    "Abs": _elementwise(abs, takes=_INT),
    "Max": _elementwise(lambda *numbers: max(numbers), takes=_INT),
    "Min": _elementwise(lambda *numbers: min(numbers), takes=_INT),
    "Equal": _elementwise(operator.eq, _BOOL),
    "Less": _elementwise(operator.lt, _BOOL, _INT),
    "LessOrEqual": _elementwise(operator.le, _BOOL, _INT),
    "Greater": _elementwise(operator.gt, _BOOL, _INT),
    "GreaterOrEqual": _elementwise(operator.ge, _BOOL, _INT),
    "Not": _elementwise(operator.not_, takes=_BOOL),
    "And": _elementwise(lambda a, b: a and b, takes=_BOOL),
    "Or": _elementwise(lambda a, b: a or b, takes=_BOOL),
    "Where": _elementwise(lambda condition, x, y: x if condition else y),
    "ReduceProd": _reduction(math.prod),
    "ReduceSum": _reduction(sum),
    "ReduceMax": _reduction(max),
    "ReduceMin": _reduction(min),
}
"""Operators on Python numbers, by operator of the standard domain."""


SIZE_OPS: dict[str, tuple[Callable[..., Any], Shape]] = {
    "Shape": (lambda ctx, x: shape_of(ctx, x.shape), (None,)),
    "Size": (lambda ctx, x: x.numel(), ()),
}
"""Operators that take a tensor and give Python numbers, and the shape of the result."""


def plan_host(op_type: str, ctx: Context, operands: Sequence[Operand | None]) -> Result | None:
    """Shape and type of a node's result if it can be computed in Python, else ``None``.

    Args:
        op_type: Operator of the standard domain.
        ctx: The node.
        operands: Its inputs, all of them numbers in Python.
    """
    op = HOST_OPS.get(op_type)
    result = op.plan(ctx, operands) if op is not None else None
    return result if result is not None and result[1] in (_INT, _BOOL) else None
