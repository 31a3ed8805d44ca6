"""Adds nodes and initializers before a node, with types and shapes set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_TABLE_ABOVE = 64  # elements; a smaller array is written as it is


class NodeWriter:
    """Writes the nodes that replace one node, just before it.

    Attributes:
        graph: The graph that the node is in.
        base: Prefix of the names of new values.
        anchor: The node that is replaced.
    """

    def __init__(self, anchor: ir.Node, base: str) -> None:
        """Makes a writer.

        Args:
            anchor: The node before which new nodes go.
            base: Prefix of the names of new values.
        """
        assert isinstance(anchor.graph, ir.Graph)
        self.graph = anchor.graph
        self.base = base
        self.anchor = anchor

    def constant(self, suffix: str, array: npt.ArrayLike | ir.TensorProtocol) -> ir.Value:
        """Adds an initializer with the name ``<base>.<suffix>``."""
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
        """Adds a node with one output; node and output have the name ``<base>.<suffix>``.

        Args:
            op_type: The operator.
            inputs: The values that the node reads.
            suffix: Suffix of the name.
            dtype: Type of the output.
            shape: Shape of the output, if known.
            attributes: Attributes of the node by name.
            domain: Domain of the operator.

        Returns:
            The output.
        """
        name = f"{self.base}.{suffix}"
        output = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)
        made = ir.node(op_type, inputs, attributes, domain=domain, outputs=[output], name=name)
        self.graph.insert_before(self.anchor, made)
        return output

    def small_constant(self, suffix: str, array: npt.NDArray[np.float32]) -> ir.Value:
        """Adds a float32 constant in as few bytes as possible.

        If all elements are equal, one number is written. If there are at most 256 different
        numbers, these are written as a table, and the elements as UINT8 indexes into it.
        onnxruntime computes the constant when it loads the file.

        Args:
            suffix: Suffix of the name.
            array: The elements.

        Returns:
            A value that broadcasts as ``array`` does.
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
