"""Compiles nodes that compute with shapes to steps in Python."""

from __future__ import annotations

import onnx_ir as ir

from onnx_cgmq.mirror.compile.constants import Constant
from onnx_cgmq.mirror.compile.host_plan import Operand
from onnx_cgmq.mirror.compile.scope import HostValue, Scope, is_omitted
from onnx_cgmq.mirror.compile.shape_arithmetic import HOST_OPS, plan_host, plan_size
from onnx_cgmq.mirror.core.registry import Context

_LARGEST = 64  # a constant with more numbers is not a shape


def compile_on_host(node: ir.Node, context: Context, scope: Scope) -> bool:
    """Compiles a node to a step in Python, if it computes with shapes.

    Returns:
        Whether it does; if not, nothing has changed.
    """
    if node.op_type not in HOST_OPS and node.op_type != "Size":
        return False
    given = [value for value in node.inputs if value is not None and not is_omitted(value)]
    operands = [None if is_omitted(value) else _operand(value, scope) for value in node.inputs]
    known = given and sum(operand is not None for operand in operands) == len(given)
    plan = plan_host(node.op_type, context, operands) if known else None
    if plan is not None:
        inputs = [scope.host_slot(value)[0] for value in node.inputs]
    else:
        shape = given[0].shape if given else None
        plan = plan_size(node.op_type, context, None if shape is None else len(shape))
        if plan is None:
            return False
        inputs = [scope.slot(node.inputs[0])]
    result = HostValue(scope.frame.new_slot(), plan.shape, plan.dtype)
    scope.values[node.outputs[0]] = result
    scope.types[node.outputs[0]] = plan.dtype
    scope.frame.add(plan.run, inputs, [result.slot], context.label)
    return True


def _operand(value: ir.Value | None, scope: Scope) -> Operand | None:
    """What is known about an input that is a number or a short list; ``None`` for a tensor."""
    assert value is not None
    found = scope.find(value)
    if isinstance(found, HostValue):
        return Operand(found.shape, found.dtype)
    if not isinstance(found, Constant):
        return None
    tensor = found.tensor
    if tensor.dtype.is_floating_point() or len(tensor.shape) > 1 or tensor.size > _LARGEST:
        return None
    return Operand(tuple(tensor.shape.numpy()), tensor.dtype, tensor.numpy().tolist())
