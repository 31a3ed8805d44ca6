"""Gated quantizers in a graph: find them, change their form, keep their functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_cgmq.bits import GridForm
from onnx_cgmq.errors import ModelError
from onnx_cgmq.graph.gated_qdq import (
    GATED_DOMAIN,
    function_name,
    gated_qdq,
    is_gated_quantizer,
)
from onnx_cgmq.graph.quantizer_spec import QuantizerSpec

SPEC_KEY: Final = "onnx_cgmq.quantizer"
"""Key of a quantizer's description in the ``metadata_props`` of its node."""


def quantizer_nodes(model: ir.Model) -> dict[str, tuple[ir.Node, QuantizerSpec]]:
    """Quantizer nodes and their specs by the name of the quantized tensor, in graph order.

    Raises:
        ModelError: A quantizer has lost its description.
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


def set_form(model: ir.Model, tensor: str, form: GridForm) -> None:
    """Changes the form of a tensor's grids, in place.

    Calibration does so when an activation, such as a graph input, turns out never to be negative.

    Args:
        model: A gated model.
        tensor: Name of the quantized tensor.
        form: The new form. A range start that is new is ``-high``.

    Raises:
        ModelError: The tensor has no quantizer.
    """
    nodes = quantizer_nodes(model)
    if tensor not in nodes:
        raise ModelError(f"tensor '{tensor}' has no quantizer; there are: {', '.join(nodes)}")
    node, old = nodes[tensor]
    spec = replace(old, form=form)
    x, *low, high, gate = node.inputs
    assert high is not None
    assert high.const_value is not None
    if form is GridForm.AFFINE and not low:
        low = [add_initializer(model.graph, f"{tensor}.low", -high.const_value.numpy())]
    unused = low if form is not GridForm.AFFINE else []
    inputs = [x, *(low if form is GridForm.AFFINE else []), high, gate]
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    for value in unused:
        if value is not None and value.name and not value.uses():
            del model.graph.initializers[value.name]
    node.op_type = function_name(spec)
    node.metadata_props[SPEC_KEY] = spec.to_json()
    add_function(model, node.op_type, partial(gated_qdq, spec))
    _drop_function(model, function_name(old))


def add_initializer(graph: ir.Graph, name: str, array: npt.NDArray[np.float32]) -> ir.Value:
    """Registers a float32 initializer.

    Raises:
        ModelError: The name is taken.
    """
    if name in graph.initializers:
        raise ModelError(f"the model already has a tensor named '{name}'; rename it")
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def add_function(model: ir.Model, name: str, build: Callable[[int], ir.Function]) -> None:
    """Adds a function of the gated domain, unless the model has it.

    Args:
        model: The model.
        name: Operator type.
        build: Builds it for a version of the standard operators.
    """
    identifier = (GATED_DOMAIN, name, "")
    if identifier not in model.functions:
        model.functions[identifier] = build(model.opset_imports[""])


def _drop_function(model: ir.Model, op_type: str) -> None:
    """Removes a function that no node calls any more."""
    if not any(node.domain == GATED_DOMAIN and node.op_type == op_type for node in model.graph):
        model.functions.pop((GATED_DOMAIN, op_type, ""), None)
