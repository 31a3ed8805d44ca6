"""Tables keep whole words at any width, and numbers are short."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from onnx_cgmq.inspection.terminal import Column, FittedTable, number_text, size_text

NAME = "encoder/layers.11/self_attention.query.weight"


def shown(width: int, name: str = NAME, why: str = "its weight has 16 bits") -> list[str]:
    table = FittedTable(
        Column("tensor", shortest=12),
        Column("shape", priority=2),
        Column("bytes", right=True, priority=1),
        Column("why", wraps=True, shortest=8),
    )
    table.add_row(name, "768x768", "589.8 K", why)
    table.add_row("x", "?x768", "", "")
    text = StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue().splitlines()


def test_all_is_shown_where_there_is_room() -> None:
    heads, _, first, second = (line.split() for line in shown(100))
    assert heads == ["tensor", "shape", "bytes", "why"]
    assert first == [NAME, "768x768", "589.8", "K", "its", "weight", "has", "16", "bits"]
    assert second == ["x", "?x768"]


def test_names_are_shortened_in_the_middle_before_columns_go() -> None:
    heads, _, first, *_ = shown(60)
    assert heads.split() == ["tensor", "shape", "bytes", "why"]
    name = first.split()[0]
    start, end = name.split("...")
    assert NAME.startswith(start)
    assert NAME.endswith(end)


@pytest.mark.parametrize(
    ("width", "heads"),
    [(40, "tensor shape bytes why"), (38, "tensor bytes why"), (28, "tensor why")],
)
def test_columns_go_by_priority(width: int, heads: str) -> None:
    lines = shown(width)
    assert lines[0].split() == heads.split()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", range(24, 110, 7))
def test_words_are_never_broken(width: int) -> None:
    words = " ".join(shown(width)).split()
    assert {"its", "weight", "has", "16", "bits"} <= set(words)


def test_brackets_in_names_are_no_markup() -> None:
    assert "[red]/w[0]" in shown(100, "[red]/w[0]")[2]


def test_wide_characters_fit_too() -> None:
    lines = shown(38, "\u6743\u91cd" * 12)
    assert "..." in lines[2]
    assert "its" in lines[2]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (9999, "9,999"),
        (10_000, "10.0 K"),
        (115_600_000, "115.6 M"),
        (999_949, "999.9 K"),
        (999_950, "1.0 M"),
        (4.2e12, "4.2 T"),
        (4.2e16, "42,000.0 T"),
    ],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert number_text(number) == text


def test_sizes_have_a_unit() -> None:
    assert size_text(512) == "512 bytes"
    assert size_text(3_475_242) == "3.5 MB"
