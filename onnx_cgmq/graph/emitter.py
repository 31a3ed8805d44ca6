"""Standard nodes that take the place of another node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir


class Emitter:
    """Puts standard nodes before the node that they stand for.

    Attributes:
        opset: Version of the standard operators.
    """

    def __init__(self, node: ir.Node, opset: int) -> None:
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
        """Adds a node and returns its first output, whose rank may be given."""
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
        """A constant."""
        array = np.array(value, dtype=dtype)
        output = self("Constant", attributes={"value": ir.tensor(array)})
        output.const_value, output.shape = ir.tensor(array), ir.Shape(array.shape)
        return output


def replace(node: ir.Node, results: list[ir.Value | None]) -> None:
    """Lets new values take the place of a node's outputs, names included."""
    assert node.graph is not None
    for old, new in zip(node.outputs, results, strict=False):
        if new is None:
            continue
        name, dtype, shape = old.name, old.type, old.shape
        old.name = None
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name, new.type, new.shape = name, dtype or new.type, shape or new.shape
    node.graph.remove(node, safe=True)


def optional(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be omitted."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return value if value is not None and value.name else None


def used_outputs(node: ir.Node) -> set[int]:
    """Indices of the outputs that anything reads."""
    return {i for i, v in enumerate(node.outputs) if v.uses() or v.is_graph_output()}


def rank_of(value: ir.Value | None) -> int | None:
    """Number of axes, if it is known."""
    return None if value is None or value.shape is None else len(value.shape)
