"""The equation of an Einsum node."""

from __future__ import annotations

import onnx_ir as ir


def einsum_terms(node: ir.Node) -> tuple[str, ...]:
    """Returns the labels of every operand, as in ``("bik", "...kj")``."""
    return _sides(node)[0]


def is_plain_einsum(node: ir.Node) -> bool:
    """Says whether an Einsum multiplies two operands, neither of which repeats a label.

    A repeated label selects a diagonal.
    """
    terms = [term.replace(".", "") for term in einsum_terms(node)]
    return len(terms) == 2 and all(len(set(term)) == len(term) for term in terms)


def einsum_labels(term: str, rank: int) -> list[str]:
    """Returns one label for every axis of an operand.

    Args:
        term: The labels of the operand, as in ``"...kj"``.
        rank: Number of axes of the operand.

    Returns:
        The labels in order. The axes of an ellipsis are counted from the right, because they
        broadcast from there: ``["...2", "...1", "k", "j"]`` for rank 4.
    """
    before, dots, after = term.partition("...")
    broadcast = range(rank - len(before) - len(after), 0, -1) if dots else ()
    return [*before, *(f"...{i}" for i in broadcast), *after]


def output_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    """Returns the axis of an operand that counts output channels.

    This is the last of its axes that the output has and the other operand lacks.

    Args:
        node: An Einsum of two operands.
        operand: Index of the operand, 0 or 1.
        rank: Number of axes of the operand.

    Returns:
        The axis, counted from 0, or ``None`` if there is no such axis.
    """
    terms, output = _sides(node)
    labels = einsum_labels(terms[operand], rank)
    other = terms[1 - operand]
    own = [i for i, label in enumerate(labels) if label in output and label not in other]
    return own[-1] if own else None


def _sides(node: ir.Node) -> tuple[tuple[str, ...], str]:
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow:  # an implicit output has the labels that occur once, in alphabetical order
        letters = left.replace(",", "").replace(".", "")
        right = "".join(sorted(label for label in set(letters) if letters.count(label) == 1))
    return tuple(left.split(",")), right
