"""Windows against a brute-force model: sets of single microseconds (rules 6 and 7)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.windows import EPOCH, Grid, Span, from_us, gapless_end, merge, subtract, to_us

SMALL = st.integers(-40, 40)
SPANS = st.tuples(SMALL, st.integers(0, 15)).map(lambda t: Span(t[0], t[0] + t[1]))
FIVE_MINUTES = 300_000_000


def instants(*spans: Span) -> set[int]:
    """The model: every microsecond that the spans hold."""
    return {us for s in spans for us in range(s.lo, s.hi)}


@pytest.mark.parametrize(
    ("us", "floor", "ceil", "number"),
    [
        (0, 0, 0, 0),
        (1, 0, FIVE_MINUTES, 0),
        (FIVE_MINUTES, FIVE_MINUTES, FIVE_MINUTES, 1),
        (FIVE_MINUTES - 1, 0, FIVE_MINUTES, 0),
        (-1, -FIVE_MINUTES, 0, -1),
        (-FIVE_MINUTES, -FIVE_MINUTES, -FIVE_MINUTES, -1),
        (-FIVE_MINUTES - 1, -2 * FIVE_MINUTES, -FIVE_MINUTES, -2),
    ],
)
def test_floor_and_ceil_also_before_1970(us: int, floor: int, ceil: int, number: int) -> None:
    grid = Grid(FIVE_MINUTES)
    assert (grid.floor(us), grid.ceil(us), grid.number(us)) == (floor, ceil, number)


@given(us=st.integers(-(2**62), 2**62), width=st.integers(1, 10**12))
def test_every_instant_lies_in_the_window_of_its_number_and_in_no_other(us: int, width: int) -> None:
    grid = Grid(width)
    number = grid.number(us)
    assert grid.span(number).contains(us)
    assert not grid.span(number - 1).contains(us)
    assert not grid.span(number + 1).contains(us)
    assert grid.floor(us) == grid.span(number).lo
    assert grid.ceil(us) in {grid.span(number).lo, grid.span(number).hi}
    assert grid.ceil(us) >= us > grid.ceil(us) - width


@given(now=st.integers(-(10**9), 10**9), settle=st.integers(0, 10**6), width=st.integers(1, 10**6))
def test_rule_6_a_window_is_settled_when_its_end_plus_settle_is_not_later_than_now(
    now: int, settle: int, width: int
) -> None:
    grid = Grid(width)
    end = grid.settled_until(now, settle)
    assert end + settle <= now
    assert end + width + settle > now
    assert end % width == 0


@given(lo=SMALL, count=st.integers(0, 20), width=st.integers(1, 9))
def test_numbers_are_the_windows_of_an_aligned_span(lo: int, count: int, width: int) -> None:
    grid = Grid(width)
    span = Span(lo * width, (lo + count) * width)
    assert instants(*(grid.span(n) for n in grid.numbers(span))) == instants(span)


@pytest.mark.parametrize("span", [Span(1, 10), Span(0, 9), Span(-3, 10)])
def test_numbers_refuses_a_span_off_the_grid(span: Span) -> None:
    with pytest.raises(ValueError, match="not aligned"):
        Grid(5).numbers(span)


@pytest.mark.parametrize("width", [0, -1])
def test_a_grid_needs_a_positive_width(width: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Grid(width)


def test_a_span_does_not_end_before_it_begins() -> None:
    with pytest.raises(ValueError, match="ends before it begins"):
        Span(1, 0)


@given(a=SPANS, b=SPANS)
def test_overlap_is_a_shared_instant(a: Span, b: Span) -> None:
    if not a.empty and not b.empty:
        assert a.overlaps(b) == bool(instants(a) & instants(b))
    assert a.empty == (not instants(a))


@given(st.lists(SPANS, max_size=12))
def test_merge_keeps_the_instants_in_few_sorted_disjoint_spans(spans: list[Span]) -> None:
    merged = merge(spans)
    assert instants(*merged) == instants(*spans)
    assert not any(s.empty for s in merged)
    # a gap between neighbours: adjacent spans have become one
    assert all(a.hi < b.lo for a, b in zip(merged, merged[1:], strict=False))


@given(span=SPANS, holes=st.lists(SPANS, max_size=12))
def test_subtract_leaves_exactly_what_no_hole_covers(span: Span, holes: list[Span]) -> None:
    parts = list(subtract(span, holes))
    assert instants(*parts) == instants(span) - instants(*holes)
    assert not any(p.empty for p in parts)
    assert all(a.hi < b.lo for a, b in zip(parts, parts[1:], strict=False))


@given(start=SMALL, spans=st.lists(SPANS, max_size=12))
def test_rule_7_the_gapless_run_ends_at_the_first_instant_that_no_span_holds(start: int, spans: list[Span]) -> None:
    held = instants(*spans)
    end = start
    while end in held:
        end += 1
    assert gapless_end(start, spans) == end


def test_rule_7_time_beyond_a_gap_does_not_move_the_end() -> None:
    assert gapless_end(0, [Span(0, 5), Span(6, 100)]) == 5
    assert gapless_end(0, [Span(1, 100)]) == 0
    assert gapless_end(0, []) == 0


# up to the year 9999 in both directions of 1970, as far as datetime goes
@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_instants_survive_the_way_to_datetime_and_back_exactly(us: int) -> None:
    assert to_us(from_us(us)) == us


def test_instants_are_utc_whatever_the_zone_they_come_in() -> None:
    assert to_us(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == to_us(
        datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert from_us(-1) == EPOCH - timedelta(microseconds=1)
    assert from_us(0).tzinfo is UTC


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        to_us(datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


def test_a_span_prints_as_utc_instants() -> None:
    assert str(Span(0, FIVE_MINUTES)) == "[1970-01-01T00:00:00Z, 1970-01-01T00:05:00Z)"
