"""Computes shapes with Python numbers.

A graph with dynamic sizes computes shapes from shapes. In Python this costs nothing, no tensor has
to be read back, and ``torch.compile`` can trace it. All values here are integers or booleans, or
lists of them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from onnx_cgmq.mirror.compile.host_plan import HostPlan, Operand, Shape
from onnx_cgmq.mirror.core.registry import Context

_INT, _BOOL = ir.DataType.INT64, ir.DataType.BOOL
_Operands = Sequence[Operand | None]
_Planner = Callable[[Context, _Operands], HostPlan | None]
"""Plans a node; returns ``None`` if its result must be a tensor."""


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    if not any(shapes):
        return ()
    lengths = {shape[0] for shape in shapes if shape and shape[0] != 1}
    return (lengths.pop() if len(lengths) == 1 else None,) if lengths else (1,)


def _map(function: Callable[..., Any], *values: Any) -> Any:
    """Applies a function to numbers, or to the numbers of lists one by one."""
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
) -> _Planner:
    """Makes the planner of an elementwise operator.

    Args:
        function: What the operator computes of single numbers.
        dtype: Type of the result; ``None`` for that of the last input.
        takes: The only type of inputs that can be planned; ``None`` for any.
    """

    def plan(ctx: Context, operands: _Operands) -> HostPlan | None:
        known = [operand for operand in operands if operand is not None]
        if takes is not None and any(operand.dtype is not takes for operand in known):
            return None
        shape = _broadcast([operand.shape for operand in known])
        return HostPlan(shape, dtype or known[-1].dtype, partial(_map, function))

    return plan


def _modulo(ctx: Context, operands: _Operands) -> HostPlan | None:
    # With fmod the result has the sign of the dividend, but in Python that of the divisor.
    return None if ctx.flag("fmod") else _elementwise(operator.mod, takes=_INT)(ctx, operands)


def _divide(a: int, b: int) -> int:
    """Divides integers, and rounds towards zero as C does."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _axes(ctx: Context, operands: _Operands) -> Any:
    """The axes of a node, from an attribute (older versions) or a constant input.

    Returns:
        ``None`` if they are omitted, ``"unknown"`` if the input is not constant.
    """
    if ctx.has("axes"):
        return list(ctx.integers("axes") or ())
    operand = operands[1] if len(operands) > 1 else None
    if operand is None:
        return None
    if operand.value is None:
        return "unknown"
    return operand.value if isinstance(operand.value, list) else [operand.value]


def _identity(ctx: Context, operands: _Operands) -> HostPlan | None:
    (x,) = operands
    return None if x is None else HostPlan(x.shape, x.dtype, lambda x: x)


def _shape(ctx: Context, operands: _Operands) -> HostPlan | None:
    (x,) = operands
    if x is None or len(x.shape) != 1 or ctx.has("start") or ctx.has("end"):
        return None
    return HostPlan((1,), _INT, lambda x: [len(x)])


def _cast(ctx: Context, operands: _Operands) -> HostPlan | None:
    (x,) = operands
    target = ir.DataType(ctx.integer("to"))
    if x is None or target not in (_INT, _BOOL):
        return None
    return HostPlan(x.shape, target, partial(_map, int if target is _INT else bool))


def _gather(ctx: Context, operands: _Operands) -> HostPlan | None:
    x, indices = operands
    if x is None or indices is None or len(x.shape) != 1:
        return None
    return HostPlan(indices.shape, x.dtype, lambda x, indices: _map(x.__getitem__, indices))


def _concat(ctx: Context, operands: _Operands) -> HostPlan | None:
    parts = [operand for operand in operands if operand is not None]
    if any(len(part.shape) != 1 for part in parts):
        return None
    lengths = [part.shape[0] for part in parts]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    return HostPlan((total,), parts[0].dtype, lambda *xs: [n for x in xs for n in x])


def _slice(ctx: Context, operands: _Operands) -> HostPlan | None:
    x = operands[0]
    if x is None or len(x.shape) != 1:
        return None
    starts, ends = ctx.integers("starts"), ctx.integers("ends")

    def run(
        x: list[Any], first: Any = starts, last: Any = ends, axes: Any = None, steps: Any = None
    ) -> list[Any]:
        for start, end, step in zip(first, last, steps or [1] * len(first), strict=True):
            x = x[start:end:step]
        return x

    return HostPlan((None,), x.dtype, run)


def _squeeze(ctx: Context, operands: _Operands) -> HostPlan | None:
    x, axes = operands[0], _axes(ctx, operands)
    if x is None or len(x.shape) != 1:
        return None
    if axes not in ([0], [-1]) and (axes is not None or x.shape != (1,)):
        return None

    def run(x: list[Any], axes: Any = None) -> Any:
        (number,) = x
        return number

    return HostPlan((), x.dtype, run)


def _unsqueeze(ctx: Context, operands: _Operands) -> HostPlan | None:
    x, axes = operands[0], _axes(ctx, operands)
    if x is None or x.shape or axes not in ([0], [-1]):
        return None
    return HostPlan((1,), x.dtype, lambda x, axes=None: [x])


def _reshape(ctx: Context, operands: _Operands) -> HostPlan | None:
    x, shape = operands
    if x is None or shape is None or shape.shape not in ((0,), (1,)):
        return None

    def run(x: Any, shape: Sequence[int]) -> Any:
        numbers = x if isinstance(x, list) else [x]
        kept = [len(numbers), -1, 0] if isinstance(x, list) else [1, -1]
        if not shape and len(numbers) == 1:
            return numbers[0]
        if not shape or shape[0] not in kept:
            raise ValueError(f"{len(numbers)} numbers can't be reshaped to {list(shape)}")
        return numbers

    if shape.shape == (0,):
        return HostPlan((), x.dtype, run)
    return HostPlan(x.shape or (1,), x.dtype, run)


def _filled(ctx: Context, operands: _Operands) -> HostPlan | None:
    (shape,) = operands
    value: Tensor | None = ctx.attributes.get("value")
    if shape is None or shape.shape != (1,) or value is None:
        return None
    dtype = {torch.int64: _INT, torch.bool: _BOOL}.get(value.dtype)
    if dtype is None:
        return None
    item = value.reshape(-1).tolist()
    return HostPlan((None,), dtype, lambda shape: item * shape[0])


def _expand(ctx: Context, operands: _Operands) -> HostPlan | None:
    x, shape = operands
    if x is None or shape is None or shape.shape != (1,):
        return None

    def run(x: Any, shape: list[int]) -> Any:
        return _map(lambda number, _: number, x, [0] * shape[0])

    return HostPlan((None,), x.dtype, run)


def _reduction(function: Callable[[list[Any]], Any]) -> _Planner:
    def plan(ctx: Context, operands: _Operands) -> HostPlan | None:
        x, axes = operands[0], _axes(ctx, operands)
        reduces_all = axes in ([0], [-1]) or (axes is None and not ctx.flag("noop_with_empty_axes"))
        if x is None or len(x.shape) != 1 or x.dtype is not _INT or not reduces_all:
            return None
        if ctx.flag("keepdims", True):
            return HostPlan((1,), _INT, lambda x, axes=None: [function(x)])
        return HostPlan((), _INT, lambda x, axes=None: function(x))

    return plan


HOST_OPS: Mapping[str, _Planner] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _identity,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Add": _elementwise(operator.add, takes=_INT),
    "Sub": _elementwise(operator.sub, takes=_INT),
    "Mul": _elementwise(operator.mul, takes=_INT),
    "Div": _elementwise(_divide, takes=_INT),
    "Mod": _modulo,
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
"""The planners of the operators that can run in Python, by operator of the standard domain."""


def plan_host(op_type: str, ctx: Context, operands: Sequence[Operand | None]) -> HostPlan | None:
    """Plans a node whose inputs are all known or computed in Python.

    Args:
        op_type: Operator of the standard domain.
        ctx: The node.
        operands: Its inputs; ``None`` for omitted ones.

    Returns:
        The plan, or ``None`` if the node can't be computed in Python.
    """
    planner = HOST_OPS.get(op_type)
    plan = planner(ctx, operands) if planner is not None else None
    return plan if plan is not None and plan.dtype in (_INT, _BOOL) else None


def plan_size(op_type: str, ctx: Context, rank: int | None) -> HostPlan | None:
    """Plans ``Shape`` or ``Size`` of a tensor.

    Args:
        op_type: Operator of the standard domain.
        ctx: The node.
        rank: Rank of the tensor, if it is known.

    Returns:
        The plan, or ``None`` for other operators.
    """
    if op_type == "Size":
        return HostPlan((), _INT, lambda x: x.numel())
    if op_type != "Shape":
        return None
    part = slice(ctx.integer("start"), ctx.integer("end") if ctx.has("end") else None)
    length = None if rank is None else len(range(rank)[part])
    return HostPlan((length,), _INT, lambda x: list(x.shape)[part])
