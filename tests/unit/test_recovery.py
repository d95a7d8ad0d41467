"""What a rebuilt ledger holds: every window of the lake, and empty time up to the watermark that the marker names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.offload.ledger.accounting import Entry
from include.offload.model import WindowState
from include.offload.recovery import account
from include.offload.windows import Grid, Span, gapless_end

GRID = Grid(10)
WINDOWS = st.dictionaries(st.integers(-8, 8), st.integers(1, 5), max_size=8).map(
    lambda rows: [WindowState(n, r, n % 2**64) for n, r in rows.items()]
)


@given(
    windows=WINDOWS,
    watermark=st.none() | st.integers(-8, 9).map(lambda n: n * 10),
    start=st.none() | st.integers(-90, 40),
    horizon=st.integers(0, 60),
)
def test_every_instant_is_accounted_for_once_and_the_watermark_stands_where_it_stood(
    windows: list[WindowState], watermark: int | None, start: int | None, horizon: int
) -> None:
    entries, origin = account(windows, watermark, start, horizon, GRID)
    assert [e.shipped for e in entries if e.shipped] == sorted(windows, key=lambda w: w.window)
    ordered = sorted(e.span for e in entries)
    assert all(a.hi <= b.lo for a, b in zip(ordered, ordered[1:], strict=False))
    empty = [e.span for e in entries if e.shipped is None]
    assert all(s.lo % 10 == 0 and s.hi % 10 == 0 for s in empty)
    if start is not None:
        assert origin == GRID.floor(start)
    if watermark is None:
        assert not empty
        return
    assert origin is not None
    assert all(s.hi <= watermark for s in empty)
    if origin <= watermark:
        assert gapless_end(origin, ordered) >= watermark


def test_without_start_accounting_begins_at_the_first_row_or_a_horizon_before_the_watermark() -> None:
    """So that a row older than the first one is late, not lost, after a rebuild too."""
    first = WindowState(3, 5, 1)
    assert account([first], 100, None, 50, GRID) == (
        [Entry(Span(30, 40), first), Entry(Span(40, 100), None)],
        30,
    )
    assert account([first], 100, None, 95, GRID) == (
        [Entry(Span(30, 40), first), Entry(Span(0, 30), None), Entry(Span(40, 100), None)],
        0,
    )


def test_what_was_accounted_for_stays_so_whatever_the_lake_lost() -> None:
    """Else rows that ClickHouse still holds there would lie "before the start", where nobody looks."""
    first = WindowState(3, 5, 1)
    assert account([first], 100, None, 50, GRID, -20) == (
        [Entry(Span(30, 40), first), Entry(Span(-20, 30), None), Entry(Span(40, 100), None)],
        -20,
    )
    assert account([], 100, None, 50, GRID, -20) == ([Entry(Span(-20, 100), None)], -20)
    assert account([first], 100, 20, 50, GRID, -20)[1] == 20, "`start` is the user's word"


def test_an_empty_lake_without_a_watermark_has_no_beginning() -> None:
    assert account([], None, None, 10, GRID) == ([], None)
    assert account([], None, 25, 10, GRID) == ([], 20)
