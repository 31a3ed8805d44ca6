"""Edits of a graph in which floats take the place of codes: names of tensors stay theirs."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.inspection.reading import tensor_name

FLOAT: Final = ir.TensorType(ir.DataType.FLOAT)


class FloatEdits:
    """Changes the main graph of a model.

    Attributes:
        tensors: The values that have the name of a tensor, and keep it.
    """

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        made = (output for node in model.graph.all_nodes() for output in node.outputs)
        values = (*model.graph.inputs, *model.graph.initializers.values(), *made)
        self._named: dict[str, ir.Value | None] = {str(value.name): value for value in values}
        self.tensors: set[ir.Value] = set()

    def name(self, floats: ir.Value, output: ir.Value) -> None:
        """Gives a value the name of the tensor that it is."""
        self.tensors.add(floats)
        name = str(output.name) if output.is_graph_output() else tensor_name(output)
        if floats.is_graph_input() or floats.is_initializer() or floats.name == name:
            return
        floats.name = self._claim(name)
        self._named[floats.name] = floats

    def _claim(self, name: str) -> str:
        """The name of a tensor, which a value that is no tensor has to give up."""
        holder = self._named.get(name)
        if holder is None or holder.is_graph_input() or holder in self.tensors:
            return self._free(name)
        holder.name = self._free(f"{name}.value")
        self._named[holder.name] = holder
        return name

    def take_over(self, node: ir.Node, floats: ir.Value) -> None:
        """Puts a value in place of the result of a node, and removes the node."""
        output = node.outputs[0]
        if output.is_graph_output() and floats.name != output.name:
            copy = self.insert(node, "Identity", [floats], f"{output.name}.copy")
            copy.name, output.name, floats = output.name, copy.name, copy
        output.replace_all_uses_with(floats, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    def insert(self, before: ir.Node, operator: str, inputs: list[ir.Value], name: str) -> ir.Value:
        """Inserts a node; its result has the name, or one that begins with it."""
        value = ir.Value(name=self._free(name), type=FLOAT, shape=inputs[0].shape)
        node = ir.node(operator, inputs, outputs=[value], name=str(value.name))
        self._graph.insert_before(before, node)
        return value

    def constant(self, name: str, array: npt.NDArray[np.float32]) -> ir.Value:
        """Adds a constant, which gets the name unless a tensor has it."""
        name = self._claim(name)
        tensor = ir.tensor(np.asarray(array, dtype=np.float32), name=name)
        shape = ir.Shape(np.shape(array))
        value = ir.Value(name=name, type=FLOAT, shape=shape, const_value=tensor)
        self._named[name] = value
        self._graph.initializers.add(value)
        return value

    def _free(self, name: str) -> str:
        """The name, or one that begins with it and that no value has; it is taken from now on."""
        free, count = name, 1
        while free in self._named:
            count += 1
            free = f"{name}.{count}"
        self._named[free] = None
        return free
