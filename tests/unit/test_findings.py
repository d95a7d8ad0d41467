"""What the ledger keeps of differences: as few spans as there may be, and no window is forgotten."""

from __future__ import annotations

from include.offload.ledger.findings import Finding, Kind, few
from include.offload.windows import Span


def at(lo: int, hi: int, rows: int = 0) -> Finding:
    return Finding(Kind.VERIFY, Span(lo, hi), hi - lo, rows)


def test_neighbours_are_one() -> None:
    assert few([at(3, 4), at(0, 1), at(1, 3, rows=2)]) == [at(0, 4, rows=2)]
    assert few([]) == []


def test_beyond_the_most_the_closest_are_joined_and_still_counted_right() -> None:
    found = few([at(0, 1), at(3, 4), at(10, 11), at(12, 13), at(30, 31)], most=3)
    assert [f.span for f in found] == [Span(0, 4), Span(10, 13), Span(30, 31)]
    assert [f.windows for f in found] == [2, 2, 1]
    assert len(few([at(2 * n, 2 * n + 1) for n in range(5_000)])) == 200
