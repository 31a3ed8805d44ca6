"""Adds nodes and initializers in front of a node, with types and shapes set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_TABLE_ABOVE = 64  # elements; a shorter array is written as it is


class NodeWriter:
    """Writes the nodes that replace one node, just before it.

    Attributes:
        graph: The graph that the node is in.
        base: Name that new values start with.
        anchor: The node that is replaced.
    """

    def __init__(self, anchor: ir.Node, base: str) -> None:
        assert isinstance(anchor.graph, ir.Graph)
        self.graph = anchor.graph
        self.base = base
        self.anchor = anchor

    def constant(self, suffix: str, array: npt.ArrayLike | ir.TensorProtocol) -> ir.Value:
        """An initializer ``<base>.<suffix>``."""
        name = f"{self.base}.{suffix}"
        tensor = (
            array
            if isinstance(array, ir.TensorProtocol)
            else ir.tensor(np.asarray(array), name=name)
        )
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        suffix: str,
        dtype: ir.DataType,
        shape: ir.Shape | None,
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """A node with one output ``<base>.<suffix>``; the node has the output's name."""
        name = f"{self.base}.{suffix}"
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)
        made = ir.node(op_type, inputs, attributes, domain=domain, outputs=[output], name=name)
        self.graph.insert_before(self.anchor, made)
        return output

    def table(self, suffix: str, array: npt.NDArray[np.float32]) -> ir.Value:
        """A float32 constant that broadcasts as ``array`` does, as small as it can be written.

        Equal entries become one; few distinct ones a UINT8 index into a table, which onnxruntime
        folds when it loads the file.
        """
        distinct, index = np.unique(array, return_inverse=True)
        if len(distinct) == 1:
            return self.constant(suffix, distinct[0])
        if array.size <= _TABLE_ABOVE or len(distinct) > 256:
            return self.constant(suffix, array)
        codes = self.constant(f"{suffix}_index", index.reshape(array.shape).astype(np.uint8))
        entries = self.constant(f"{suffix}_table", distinct)
        shape = ir.Shape(array.shape)
        wide = self.node("Cast", [codes], f"{suffix}_index32", ir.DataType.INT32, shape, {"to": 6})
        return self.node("Gather", [entries, wide], suffix, ir.DataType.FLOAT, shape)
