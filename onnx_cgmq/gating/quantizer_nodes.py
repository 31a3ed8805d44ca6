"""Finds the gated quantizers of a graph, and adds the initializers and functions they need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.contract.identifiers import GATED_DOMAIN, SPEC_KEY
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.gated_qdq import is_gated_quantizer


def quantizer_nodes(model: ir.Model) -> dict[str, tuple[ir.Node, QuantizerSpec]]:
    """Finds the gated quantizers of a model.

    Returns:
        Each quantizer node with its spec, by the name of the quantized tensor, in graph order.

    Raises:
        ModelError: A quantizer has no spec in its metadata.
    """
    found = {}
    for node in model.graph:
        if not is_gated_quantizer(node):
            continue
        text = node.metadata_props.get(SPEC_KEY)
        if text is None:
            raise ModelError(
                f"quantizer node '{node.name}' has no '{SPEC_KEY}' in its metadata_props; insert "
                "the gates again with insert_gates()"
            )
        spec = QuantizerSpec.from_json(text)
        found[spec.tensor] = (node, spec)
    return found


def add_initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.float32]) -> ir.Value:
    """Adds a float32 initializer to a graph.

    Args:
        graph: The graph.
        name: Name of the initializer.
        array: Its value.

    Returns:
        The initializer.

    Raises:
        ModelError: Another initializer has the name.
    """
    if name in graph.initializers:
        raise ModelError(f"the model already has a tensor named '{name}'; rename it")
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def add_function(model: ir.Model, name: str, build: Callable[[int], ir.Function]) -> None:
    """Adds a function of the gated domain to a model, unless the model has it already.

    Args:
        model: The model.
        name: Operator type of the function.
        build: Builds the function for an opset of the standard operators.
    """
    identifier = (GATED_DOMAIN, name, "")
    if identifier not in model.functions:
        model.functions[identifier] = build(model.opset_imports[""])
