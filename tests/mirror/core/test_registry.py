from __future__ import annotations

import pytest

import onnx_cgmq.mirror.ops  # noqa: F401
from onnx_cgmq.mirror.core.registry import Context, find_operator, onnx_op, registered_operators


def test_newest_version_that_is_not_above_the_opset() -> None:
    versions = [find_operator("", "Clip", opset) for opset in (7, 10, 11, 13, 25, 99)]
    assert [version.since for version in versions if version] == [1, 1, 11, 11, 11, 11]


def test_unknown_operators_are_not_found() -> None:
    assert find_operator("", "NoSuchOperator", 20) is None
    assert find_operator("com.example", "Relu", 20) is None
    assert find_operator("", "Attention", 16) is None


def test_one_handler_per_version() -> None:
    with pytest.raises(ValueError, match="Relu since 1 is already registered"):
        onnx_op("Relu")(lambda ctx, x: x)


def test_every_operator_has_a_docstring() -> None:
    operators = registered_operators()
    assert len(operators) > 100
    assert all(operator.handler.__doc__ for operator in operators)


def test_context_reads_attributes() -> None:
    ctx = Context("n", "Op", 20, {"axis": 2, "alpha": 0.5, "mode": "edge", "pads": [1, 2]})
    assert ctx.integer("axis") == 2
    assert ctx.integer("missing", 7) == 7
    assert ctx.real("alpha") == 0.5
    assert ctx.text("mode") == "edge"
    assert ctx.integers("pads") == (1, 2)
    assert ctx.integers("missing") is None
    assert not ctx.flag("missing")
    assert ctx.has("axis")
    assert not ctx.has("missing")
    assert ctx.input_type(3) is None
    assert ctx.wants(0)
    assert not ctx.wants(1)
