"""Quantizer nodes and their specs are found by tensor name."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_cgmq.contract.bits import Role
from onnx_cgmq.contract.identifiers import SPEC_KEY
from onnx_cgmq.errors import ModelError
from onnx_cgmq.gating.insert import insert_gates
from onnx_cgmq.gating.quantizer_nodes import add_function, add_initializer, quantizer_nodes
from tests.support.toys import mlp


def test_quantizers_are_found_by_tensor_in_graph_order() -> None:
    found = quantizer_nodes(insert_gates(mlp()))
    assert list(found) == ["x", "w1", "b1", "r", "w2", "b2"]
    assert [spec.role for _, spec in found.values()] == [
        Role.ACTIVATION,
        Role.WEIGHT,
        Role.BIAS,
    ] * 2
    assert all(node.inputs[0].name == name for name, (node, _) in found.items())


def test_a_quantizer_without_its_spec_is_an_error() -> None:
    gated = insert_gates(mlp())
    node, _ = quantizer_nodes(gated)["x"]
    del node.metadata_props[SPEC_KEY]
    with pytest.raises(ModelError, match="insert the gates again"):
        quantizer_nodes(gated)


def test_an_initializer_whose_name_exists_is_refused() -> None:
    gated = insert_gates(mlp())
    with pytest.raises(ModelError, match=r"'w1\.high'; rename it"):
        add_initializer(gated.graph, "w1.high", np.ones(1, np.float32))


def test_a_function_is_added_once() -> None:
    gated, built = insert_gates(mlp()), []

    def build(opset: int) -> ir.Function:
        built.append(opset)
        return next(iter(gated.functions.values()))

    for _ in range(2):
        add_function(gated, "New", build)
    assert built == [gated.opset_imports[""]]


def test_a_kind_of_grid_that_is_unknown_is_refused() -> None:
    gated = insert_gates(mlp())
    node, spec = quantizer_nodes(gated)["w1"]
    node.metadata_props[SPEC_KEY] = spec.to_json().replace("symmetric", "reduced")
    with pytest.raises(ModelError, match="quantizer of 'w1' has a grid of the kind 'reduced'"):
        quantizer_nodes(gated)
