"""What a file holds or computes besides the operators that are counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from onnx_cgmq.graph.files.load import tensors_of
from onnx_cgmq.graph.layouts import constants_above, transposes_above
from onnx_cgmq.graph.nodes import standard_op
from onnx_cgmq.graph.operators import lookup_spec, mac_spec, moves_codes
from onnx_cgmq.inspection.operands import Operands
from onnx_cgmq.inspection.patterns.grid import is_fixed
from onnx_cgmq.inspection.reading import stored_value
from onnx_cgmq.ort.sizes import Sizes

_NOTED_ABOVE: Final = 1 << 16
"""Bytes of other constants that are noted if they are more than the weights."""

_NOTED_SHARE: Final = 0.01
"""Part of the counted multiply-accumulates above which others are noted."""

_SUMS: Final = frozenset(
    {
        "AveragePool",
        "CumSum",
        "Einsum",
        "GlobalAveragePool",
        "ReduceMean",
        "ReduceSum",
        "Sum",
    }
)
_TIMES: Final = frozenset({"Div", "Mul", "QLinearMul"})


def computed_weights(model: ir.Model, operands: Operands) -> set[ir.Value]:
    """Constants from which operators compute what is multiplied, where no reading counts them.

    These are weights behind an Add, a Concat or any other operator on constants, and the steps of a
    weight whose width is not believed because of them.
    """
    counted: set[ir.Value] = set()
    behind: set[ir.Value] = set()
    for value in _multiplied(model):
        path = transposes_above(value)
        top = path[-1].inputs[0] if path else None
        source = stored_value(value) or (stored_value(top) if top is not None else None)
        if source is not None:
            counted.add(source)
        if (source is None or operands.is_doubted(value)) and is_fixed(value):
            behind |= constants_above(value)[0]
    return behind - counted


def other_bytes(model: ir.Model, weight_bytes: int) -> int:
    """Bytes of all constants that are not counted as weights."""
    return max(0, sum(tensor.nbytes for _, tensor in tensors_of(model)) - weight_bytes)


def other_constants(other: int, weight_bytes: int) -> tuple[str, ...]:
    """A sentence on constants that are no weights, if they are more than these."""
    if other <= max(weight_bytes, _NOTED_ABOVE):
        return ()
    return (
        f"constants of {other:,} bytes that no counted operator multiplies are not part of the "
        f"size of the weights, {weight_bytes:,} bytes",
    )


def uncounted_products(model: ir.Model, macs: int) -> tuple[str, ...]:
    """A sentence on products that are spelled out, such as Mul and ReduceSum for MatMul."""
    sizes = Sizes(model)
    found = {
        node.name or str(node.outputs[0].name): count
        for node in model.graph.all_nodes()
        if node.op_type in _TIMES and (count := _products(node, sizes) // sizes.samples)
    }
    total = sum(found.values())
    if total <= _NOTED_SHARE * macs:
        return ()
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{total:,} multiplications that are not counted may be multiply-accumulates spelled out: "
        f"{max(found, key=lambda name: found[name])}{more}",
    )


def _products(node: ir.Node, sizes: Sizes) -> int:
    """Multiplications of a node that may be part of a product of matrices; 0 if they are not."""
    step = 3 if node.op_type == "QLinearMul" else 1
    a, b = node.inputs[0], node.inputs[step]
    if a is None or b is None or (is_fixed(a) and is_fixed(b)):
        return 0
    shapes = [tuple(size or 1 for size in sizes.shape(value) or ()) for value in (a, b)]
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    count = math.prod(map(max, zip(*padded, strict=True)))
    inputs = [math.prod(s) for s, v in zip(shapes, (a, b), strict=True) if not is_fixed(v)]
    single = min(map(math.prod, shapes)) == 1  # a factor of all elements, such as a step
    spreads = count > max(inputs) and not single  # every element meets several others
    weighs = len(inputs) == 2 and not _derives(a, b) and not _derives(b, a)
    weighs = weighs or (len(inputs) == 1 and not single)
    return count if spreads or (weighs and _is_summed(node.outputs[0])) else 0


def _derives(value: ir.Value, source: ir.Value) -> bool:
    """Whether a value is a function of each element of another: a gate, as in x * sigmoid(x)."""
    while value is not source:
        node = value.producer()
        reads = [v for v in node.inputs if v is not None and not is_fixed(v)] if node else []
        if len(reads) != 1:
            return False
        value = reads[0]
    return True


def _is_summed(value: ir.Value) -> bool:
    """Whether elements of a value are added up, perhaps after they were moved."""
    above = [value]
    seen = {value}
    while above:
        for node in above.pop().consumers():
            if standard_op(node) in _SUMS:
                return True
            if moves_codes(node) or standard_op(node) in ("Cast", "Neg"):
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                above += new
    return False


def _multiplied(model: ir.Model) -> Iterator[ir.Value]:
    """Operands and biases of MAC operators, and tables."""
    for node in model.graph.all_nodes():
        spec = mac_spec(node) or lookup_spec(node)
        if spec is None:
            continue
        for _, value in spec.operand_values(node):
            if mac_spec(node) is not None or value.dtype is ir.DataType.FLOAT:
                yield value
        bias = spec.bias_value(node)
        if bias is not None:
            yield bias
