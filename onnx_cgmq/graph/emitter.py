"""Standard nodes that take the place of another node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.graph.uses import has_one_reader


class Emitter:
    """Inserts standard nodes before the node that they are to replace.

    Attributes:
        opset: Version of the standard operators.
    """

    def __init__(self, node: ir.Node, opset: int) -> None:
        """Names the node to replace and the opset of its graph."""
        self.opset = opset
        self._node = node
        self._count = 0

    def __call__(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        rank: int | None = None,
        outputs: int = 1,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Inserts a node.

        Args:
            op_type: Operator of the standard domain.
            *inputs: What the node reads; ``None`` omits an input.
            rank: Number of axes of the first output, if it is known.
            outputs: Number of outputs.
            attributes: Attributes of the node by name.

        Returns:
            The first output of the node.
        """
        self._count += 1
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)
        node.name = f"{self._node.name}.{op_type.lower()}{self._count}"
        for index, output in enumerate(node.outputs):
            output.name = f"{self._node.outputs[0].name}.{op_type.lower()}{self._count}.{index}"
        if rank is not None:
            node.outputs[0].shape = ir.Shape([None] * rank)
        assert self._node.graph is not None
        self._node.graph.insert_before(self._node, node)
        return node.outputs[0]

    def constant(self, value: Any, dtype: Any = np.float32) -> ir.Value:
        """Inserts a Constant node and returns its output."""
        array = np.array(value, dtype=dtype)
        output = self("Constant", attributes={"value": ir.tensor(array)})
        output.const_value, output.shape = ir.tensor(array), ir.Shape(array.shape)
        return output


def replace(node: ir.Node, results: list[ir.Value | None]) -> None:
    """Replaces the outputs of a node by new values, which take over their names.

    Args:
        node: The node; it is removed from its graph.
        results: For each output of the node, the value that replaces it. ``None``, or nothing at
            the end, stands for an output that nothing reads.
    """
    assert node.graph is not None
    for old, new in zip(node.outputs, results, strict=False):
        if new is None:
            continue
        name, dtype, shape = old.name, old.type, old.shape
        old.name = None
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name, new.type, new.shape = name, dtype or new.type, shape or new.shape
    node.graph.remove(node, safe=True)


def set_constant(
    model: ir.Model, node: ir.Node, index: int, array: npt.NDArray[Any], name: str
) -> None:
    """Gives an input of a node a constant that no other node reads, in place.

    Args:
        model: The model of the node.
        node: The node.
        index: Index of the input, which may be missing so far.
        array: The constant.
        name: Its name, if the input does not have a constant of its own already; made unique.
    """
    old = node.inputs[index] if len(node.inputs) > index else None
    tensor = ir.tensor(array)
    if old is not None and has_one_reader(old):
        old.const_value, old.shape = tensor, ir.Shape(array.shape)
        return
    while name in model.graph.initializers:
        name += "_"
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    node.resize_inputs(max(len(node.inputs), index + 1))
    node.replace_input_with(index, value)


def optional(node: ir.Node, index: int) -> ir.Value | None:
    """Returns an input of a node, or ``None`` if the node omits it."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return value if value is not None and value.name else None


def used_outputs(node: ir.Node) -> set[int]:
    """Returns the indices of those outputs of a node that are read, by nodes or by the user."""
    return {i for i, v in enumerate(node.outputs) if v.uses() or v.is_graph_output()}


def rank_of(value: ir.Value | None) -> int | None:
    """Returns the number of axes of a value, or ``None`` if it is unknown."""
    return None if value is None or value.shape is None else len(value.shape)
