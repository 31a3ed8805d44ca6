from __future__ import annotations

import onnx
import pytest

from onnx_cgmq.cost.macs import mac_ops
from onnx_cgmq.cost.notes import cost_notes
from onnx_cgmq.gating.insert import insert_gates

WEIGHT = "float[2, 2] w = {1, 2, 3, 4}"


def model(body: str, inputs: str, output: str = "float[n, 2] y") -> onnx.ModelProto:
    header = '<ir_version: 10, opset_import: ["" : 21]>'
    return onnx.parser.parse_model(f"{header} g ({inputs}) => ({output}) <{WEIGHT}> {{ {body} }}")


def test_no_notes_on_a_model_without_float_nodes() -> None:
    gated = insert_gates(model("[mac] y = MatMul (x, w)", "float[n, 2] x"))
    assert cost_notes(gated) == ()


def test_a_note_names_mac_nodes_in_subgraphs() -> None:
    body = """
        [outer] h = MatMul (x, w)
        [choice] y = If (c) <
            then_branch = t () => (float[n, 2] a) { [inner] a = MatMul (h, w) },
            else_branch = e () => (float[n, 2] b) { [other] b = Identity (h) }
        >
    """
    gated = insert_gates(model(body, "float[n, 2] x, bool c"))
    (note,) = cost_notes(gated)
    assert note.startswith("these nodes stay float")
    assert note.endswith(": inner (MatMul)")


@pytest.mark.parametrize("count", [1, 5])
def test_a_note_names_nodes_with_sizes_that_the_data_decide(count) -> None:
    products = " ".join(f"[mac{i}] h{i + 1} = MatMul (h{i}, w)" for i in range(count))
    body = f"""
        found = NonZero (x)
        pairs = Transpose (found)
        h0 = Cast <to = 1> (pairs)
        {products}
        y = Identity (h{count})
    """
    gated = insert_gates(model(body, "float[n, 2] x", "float[m, 2] y"))
    (note,) = cost_notes(gated)
    listed = ", ".join(f"mac{i} (MatMul)" for i in range(min(3, count)))
    assert note.startswith("these nodes have sizes that only the data decide")
    assert f": {listed}" in note
    assert note.endswith(" and 2 more") is (count == 5)


def test_a_size_that_the_other_operand_has_is_no_reason_for_a_note() -> None:
    body = """
        columns = Compress <axis = 1> (x, chosen)
        [mac] y = MatMul (columns, w)
    """
    gated = insert_gates(model(body, "float[n, 3] x, bool[3] chosen"))
    assert [(op.node, op.macs) for op in mac_ops(gated)] == [("mac", 4)]
    assert not cost_notes(gated)
