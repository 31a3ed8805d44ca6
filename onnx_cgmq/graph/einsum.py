"""The equation of an Einsum node."""

from __future__ import annotations

import onnx_ir as ir


def einsum_terms(node: ir.Node) -> tuple[str, ...]:
    """The labels of every operand, as in ``("bik", "...kj")``."""
    return _sides(node)[0]


def is_plain_einsum(node: ir.Node) -> bool:
    """Whether it multiplies two operands, neither of which repeats a label (a diagonal)."""
    terms = [term.replace(".", "") for term in einsum_terms(node)]
    return len(terms) == 2 and all(len(set(term)) == len(term) for term in terms)


def einsum_labels(term: str, rank: int) -> list[str]:
    """One label for every axis of an operand; those of an ellipsis are counted from the right."""
    before, dots, after = term.partition("...")
    broadcast = range(rank - len(before) - len(after), 0, -1) if dots else ()
    return [*before, *(f"...{i}" for i in broadcast), *after]


def output_axis(node: ir.Node, operand: int, rank: int) -> int | None:
    """The last axis of one of two operands that only the output has too, or ``None``."""
    terms, output = _sides(node)
    labels = einsum_labels(terms[operand], rank)
    other = terms[1 - operand]
    own = [i for i, label in enumerate(labels) if label in output and label not in other]
    return own[-1] if own else None


def _sides(node: ir.Node) -> tuple[tuple[str, ...], str]:
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow:  # implicit: what is there once, in alphabetical order
        letters = left.replace(",", "").replace(".", "")
        right = "".join(sorted(label for label in set(letters) if letters.count(label) == 1))
    return tuple(left.split(",")), right
