"""Rows that expired before they were shipped: told from windows that never held one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.offload.losses import Evidence, expired_unshipped, gone, note
from include.offload.model import WindowState
from include.offload.windows import Grid, Span

GRID = Grid(300_000_000)
HOUR_US = 3_600_000_000
NOW = GRID.span(6_000_000).lo
TTL_US = 24 * HOUR_US
APPEND = (Span(NOW - 30 * HOUR_US, NOW),)
FIRST = GRID.number(APPEND[0].lo)
LAST = GRID.number(NOW - TTL_US) - 1
"""The last window of which every row has expired."""
NOTHING = Evidence({}, None, TTL_US, 0)


def now(**rows: int) -> dict[int, WindowState]:
    return {FIRST + int(n[1:]): WindowState(FIRST + int(n[1:]), count, 0) for n, count in rows.items()}


def lost(known: Evidence, append: tuple[Span, ...] = APPEND, **rows: int) -> dict[int, int]:
    return expired_unshipped(now(**rows), append, GRID, NOW, known)


def test_empty_windows_without_any_evidence_are_no_loss() -> None:
    """Long past their TTL, after a day in which nobody looked: they may never have held a row."""
    assert lost(NOTHING) == {}


def test_what_a_plan_saw_and_is_there_no_more_is_lost() -> None:
    begun, later = NOW - 1, NOW + 1
    said = {FIRST: (10, begun), FIRST + 1: (10, begun), FIRST + 2: (10, begun), FIRST + 3: (10, later)}
    assert lost(replace(NOTHING, said=said), n1=4, n2=12) == {FIRST: 10, FIRST + 1: 6}
    # shortened, and what went would have lived longer
    assert lost(replace(NOTHING, said={FIRST: (10, later)}, other_ttl=True)) == {FIRST: 10}
    # never shipped, but without a TTL: somebody deleted them
    assert lost(replace(NOTHING, said={FIRST: (10, None)})) == {}
    # shipped meanwhile
    assert lost(replace(NOTHING, said=said), append=(Span(NOW - HOUR_US, NOW),)) == {}


def test_a_row_that_was_seen_and_went_makes_empty_windows_of_its_time_lost() -> None:
    known = replace(NOTHING, gone_us=APPEND[0].lo + TTL_US + 1)
    found = lost(known, n3=7)
    assert set(found) == {*range(FIRST, LAST + 1)} - {FIRST + 3}
    assert (found[FIRST], found[FIRST + 1]) == (1, 0)
    # its window has other rows still
    assert lost(known, n0=2)[FIRST] == 1


def test_what_had_expired_when_the_ledger_met_the_table_is_not_ours() -> None:
    known = replace(NOTHING, gone_us=NOW - HOUR_US, met_us=NOW - 2 * HOUR_US)
    assert min(lost(known)) == GRID.number(NOW - 2 * HOUR_US - TTL_US) + 1


def test_a_row_that_a_range_had_shipped_is_no_loss() -> None:
    """Its window is not among those that were never shipped."""
    shipped = NOW - 29 * HOUR_US
    append = (Span(NOW - 30 * HOUR_US, shipped), Span(shipped + HOUR_US, NOW))
    assert lost(replace(NOTHING, gone_us=shipped + TTL_US + 5_000_000), append=append) == {}


def test_a_ttl_that_cuts_fractions_of_a_second_leads_to_the_right_window() -> None:
    """The shortest life of a row is up to a second shorter than the TTL says."""
    append = (Span(APPEND[0].lo, APPEND[0].lo + GRID.width_us),)
    assert lost(replace(NOTHING, gone_us=append[0].hi + TTL_US + 400_000), append=append) == {FIRST: 1}
    assert lost(replace(NOTHING, gone_us=append[0].hi + TTL_US + 1_400_000), append=append) == {}


def test_while_nobody_knows_how_long_rows_live_one_window_counts() -> None:
    assert lost(replace(NOTHING, gone_us=NOW - 1, ttl_us=None)) == {FIRST: 1}


def test_a_condition_of_a_ttl_may_hold_no_more_for_a_row_that_is_there() -> None:
    known = replace(NOTHING, gone_us=APPEND[0].lo + TTL_US, exact=False)
    assert lost(known, **{f"n{n}": 1 for n in range(LAST - FIRST + 1)}) == {}
    assert lost(known, n0=1)[FIRST + 1] == 0


@pytest.mark.parametrize(
    ("seen", "now_seen", "same_ttl", "went"),
    [
        (NOW - 5, None, True, NOW - 5),
        (NOW - 5, NOW + 5, True, NOW - 5),
        # still there: TTL merges come when they come
        (NOW - 5, NOW - 5, True, None),
        # deleted by somebody, or shipped: it has not expired
        (NOW + 5, None, True, None),
        (None, None, True, None),
        # it lives longer by another TTL
        (NOW - 5, NOW + 5, False, None),
    ],
)
def test_a_row_that_was_seen_unshipped_and_has_expired(
    seen: int | None, now_seen: int | None, same_ttl: bool, went: int | None
) -> None:
    assert gone(seen, now_seen, NOW, same_ttl=same_ttl) == went


def test_the_log_names_the_time_and_the_command() -> None:
    said = note({FIRST: 3, FIRST + 2: 0}, GRID, "k2.t") or ""
    assert "up to 2 windows from " in said
    assert ", 3 rows at least;" in said
    assert said.endswith("bin/offload accept-loss k2.t")
    assert note({}, GRID, "k2.t") is None
