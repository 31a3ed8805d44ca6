from __future__ import annotations

import onnx_ir as ir
import pytest

from onnx_cgmq.graph.einsum import einsum_labels, einsum_terms, is_plain_einsum, output_axis


def einsum(equation: str) -> ir.Node:
    return ir.node("Einsum", [ir.Value(name="a"), ir.Value(name="b")], {"equation": equation})


@pytest.mark.parametrize(
    ("equation", "terms", "plain"),
    [
        ("ij, jk -> ik", ("ij", "jk"), True),
        ("...ij,jk", ("...ij", "jk"), True),
        ("ii,ij->j", ("ii", "ij"), False),
        ("i,j,k->ijk", ("i", "j", "k"), False),
        ("ij->ji", ("ij",), False),
    ],
)
def test_terms_name_the_labels_of_every_operand(equation, terms, plain) -> None:
    assert einsum_terms(einsum(equation)) == terms
    assert is_plain_einsum(einsum(equation)) is plain


def test_labels_of_an_ellipsis_are_counted_from_the_right() -> None:
    assert einsum_labels("ij", 2) == ["i", "j"]
    assert einsum_labels("b...j", 4) == ["b", "...2", "...1", "j"]


@pytest.mark.parametrize(
    ("equation", "operand", "axis"),
    [
        ("ij,jk->ik", 1, 1),
        ("ij,kj->ik", 1, 0),
        ("bid,hde->bhie", 1, 2),
        ("ij,jk", 1, 1),
        ("ij,j->i", 1, None),
        ("ij,jk->ik", 0, 0),
    ],
)
def test_output_axis_is_the_last_axis_that_only_the_output_shares(equation, operand, axis) -> None:
    rank = len(equation.partition("->")[0].split(",")[operand])
    assert output_axis(einsum(equation), operand, rank) == axis
