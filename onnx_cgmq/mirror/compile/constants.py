"""The constants of a model: initializers and ``Constant`` nodes, subgraphs and functions too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_cgmq.contract.identifiers import SPEC_KEY
from onnx_cgmq.contract.quantizer_spec import QuantizerSpec
from onnx_cgmq.errors import ModelError
from onnx_cgmq.mirror.compile.select import domain_of, is_quantizer

_FORMS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant tensor.

    Attributes:
        name: Name of the constant's value, made unique in the model.
        tensor: Its value.
        is_learned: Whether it belongs to the model, and not to the definition of an operator.
    """

    name: str
    tensor: ir.TensorProtocol
    is_learned: bool = True


@dataclass(frozen=True)
class GatedNode:
    """The spec of a quantizer node, and its constants."""

    spec: QuantizerSpec
    low: ir.TensorProtocol | None
    high: ir.TensorProtocol
    gate: ir.TensorProtocol


def constants_of(model: ir.Model) -> dict[ir.Value, Constant]:
    """Finds all constants of a model; those of the main graph come first and keep their names.

    Raises:
        ModelError: If an initializer has no data.
    """
    found: dict[ir.Value, Constant] = {}
    names: set[str] = set()
    for value, tensor in _constant_values(model):
        name, count = value.name or "", 0
        while name in names:
            count += 1
            name = f"{value.name}_{count}"
        names.add(name)
        found[value] = Constant(name, tensor)
    return found


def replace_constants(model: ir.Model, arrays: Callable[[str], np.ndarray | None]) -> None:
    """Writes new values into the constants of a model.

    Args:
        model: Changed in place.
        arrays: Returns the new value of a constant by its name in :func:`constants_of`, or
            ``None`` to keep the value.
    """
    for value, constant in constants_of(model).items():
        array = arrays(constant.name)
        if array is None:
            continue
        tensor = ir.tensor(array, name=value.name)
        producer = value.producer()
        if producer is None:
            value.const_value = tensor
        else:
            producer.attributes.clear()
            producer.attributes.add(ir.AttrTensor("value", tensor))


def constant_tensor(attributes: Mapping[str, ir.Attr]) -> ir.TensorProtocol | None:
    """The tensor of a ``Constant`` node.

    Returns:
        ``None`` for strings, for sparse tensors, and for an attribute of the function around it.
    """
    for name, attribute in attributes.items():
        if attribute.is_ref():
            continue
        if name == "value":
            return attribute.as_tensor()
        if name in _FORMS:
            return ir.tensor(np.array(attribute.value, dtype=_FORMS[name]))
    return None


def is_constant_node(node: ir.Node) -> bool:
    """Whether a node is a ``Constant`` of the standard domain."""
    return node.op_type == "Constant" and domain_of(node) == ""


def _constant_values(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    graphs: list[ir.Graph | ir.Function] = [*model.graphs()]
    for function in model.functions.values():
        graphs += [function, *function.subgraphs()]
    for graph in graphs:
        if isinstance(graph, ir.Graph):
            for name, value in graph.initializers.items():
                if value.const_value is None:
                    raise ModelError(
                        f"initializer '{name}' has no data; load the model with its external data"
                    )
                yield value, value.const_value
        for node in graph:
            if is_constant_node(node) and node.outputs[0].name:
                tensor = constant_tensor(node.attributes)
                if tensor is not None:
                    yield node.outputs[0], tensor


def gated_nodes(
    graph: ir.Graph, constants: Mapping[ir.Value, Constant]
) -> dict[ir.Node, GatedNode]:
    """Finds the quantizer nodes, in graph order.

    Raises:
        ModelError: If a quantizer has no spec, or if its ranges or gate are not constants.
    """
    found = {}
    for node in graph:
        if not is_quantizer(node):
            continue
        if SPEC_KEY not in node.metadata_props:
            raise ModelError(
                f"quantizer node '{node.name}' has no '{SPEC_KEY}' in its metadata_props; "
                "insert the gates again with insert_gates()"
            )
        values = [value for value in node.inputs[1:] if value is not None and value.name]
        missing = [str(value.name) for value in values if value not in constants]
        if missing or len(values) not in (2, 3):
            raise ModelError(
                f"quantizer node '{node.name}': its ranges and gate must be initializers, but "
                f"{', '.join(missing) or 'some'} are not; insert the gates again with "
                "insert_gates()"
            )
        *low, high, gate = (constants[value].tensor for value in values)
        spec = QuantizerSpec.from_json(node.metadata_props[SPEC_KEY])
        found[node] = GatedNode(spec, low[0] if low else None, high, gate)
    return found
