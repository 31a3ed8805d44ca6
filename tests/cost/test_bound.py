from __future__ import annotations

from fractions import Fraction

import pytest

from onnx_cgmq.cost.bound import (
    Bound,
    CostKind,
    bounds_text,
    json_number,
    number_text,
    parse_bounds,
    share_text,
)
from onnx_cgmq.errors import BoundError

WHOLE = {
    CostKind.BOPS: 1024 * 1000,
    CostKind.SIZE: 4000,
    CostKind.TABLE: Fraction(3, 4),
    CostKind.ACTIVATIONS: 900,
}


def parse(bounds, unit="ms", whole=WHOLE):
    return parse_bounds(bounds, whole.get, unit)


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("0.4%", CostKind.BOPS, 4096),
        (" 0.4 % ", CostKind.BOPS, 4096),
        (0.25, CostKind.BOPS, 256_000),
        ("12.5MBOP", CostKind.BOPS, 12_500_000),
        ("3 kbops", CostKind.BOPS, 3000),
        ("1e6BOP", CostKind.BOPS, 1_000_000),
        ("2TBOPs", CostKind.BOPS, 2 * 10**12),
        ("200KB", CostKind.SIZE, 200_000),
        ("1.5MiB", CostKind.SIZE, 1_572_864),
        ("900 bytes", CostKind.SIZE, 900),
        ("size:25%", CostKind.SIZE, 1000),
        ("size:2KB", CostKind.SIZE, 2000),
        ("activations:64KB", CostKind.ACTIVATIONS, 64_000),
        ("activations:25%", CostKind.ACTIVATIONS, 225),
        ("cost:50%", CostKind.TABLE, Fraction(3, 8)),
        ("cost:0.1", CostKind.TABLE, Fraction(1, 10)),
        ("cost: 0.1 ms", CostKind.TABLE, Fraction(1, 10)),
        ("cost:1.5M", CostKind.TABLE, 1_500_000),
        ("cost:2Kms", CostKind.TABLE, 2000),
    ],
)
def test_bounds_are_read(text, kind, limit) -> None:
    (bound,) = parse(text)
    assert (bound.kind, bound.limit) == (kind, limit)


@pytest.mark.parametrize(
    "text",
    [
        *("", "%", "abc", "0.4", "nan%", "inf%", "0%", "-1%", "1..2%", "4XBOP", "size:3MBOP"),
        *("activations:3BOP", "activations:3", "cost:3KB", "cost:3mms", "cost:3s", "cost:", "a:3%"),
        *(0.0, -0.1, float("nan"), float("inf")),
        *("0.4%,", (), ("0.4%", "abc")),
    ],
)
def test_invalid_bounds_are_refused(text) -> None:
    with pytest.raises(BoundError, match=r"0\.4%"):
        parse(text)


def test_several_bounds_are_a_sequence_or_one_text() -> None:
    bounds = parse(("0.4%", 0.25, "cost:3ms"))
    assert [bound.limit for bound in bounds] == [4096, 256_000, 3]
    again = parse(bounds_text(bounds))
    assert [bound.limit for bound in again] == [4096, 256_000, 3]
    assert parse(bounds) == bounds


def test_a_bound_that_was_read_is_kept() -> None:
    bound = Bound(CostKind.SIZE, 7, "7B")
    assert parse(bound) == (bound,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cost:3", "needs a target with a cost table"),
        ("cost:3%", "needs a target with a cost table"),
        ("activations:3KB", "does not say which activations"),
        ("activations:3%", "does not say which activations"),
    ],
)
def test_bounds_on_unknown_costs_are_refused(text, reason) -> None:
    with pytest.raises(BoundError, match=reason):
        parse(text, whole={CostKind.BOPS: 1, CostKind.SIZE: 1})


def test_costs_as_text_and_as_json_numbers() -> None:
    assert Bound(CostKind.BOPS, 1, "").describe(1234) == "1,234 bit operations"
    assert Bound(CostKind.TABLE, 1, "", "ms").describe(Fraction(1, 3)) == "0.333333 ms"
    assert number_text(Fraction(6, 2)) == "3"
    assert (json_number(Fraction(6, 2)), json_number(Fraction(1, 2))) == (3, 0.5)


@pytest.mark.parametrize(("part", "whole"), [(1, 3), (Fraction(1, 7), 2), (999, 1000), (5, 5)])
@pytest.mark.parametrize("kind", list(CostKind))
def test_share_text_surely_allows_the_cost(kind, part, whole) -> None:
    (bound,) = parse(share_text(kind, part, whole), whole={kind: whole})
    assert bound.kind is kind
    assert (
        part <= bound.limit or kind is not CostKind.TABLE
    )  # others are rounded down to whole ones
    assert bound.limit <= part * Fraction(102, 100) + 1
