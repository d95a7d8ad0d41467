"""Rows that ClickHouse expired before they were shipped: how that is known, although they are gone. Pure.

A window that is empty now is no loss by itself: it may never have held a row. Two things are evidence. An earlier plan
that never landed counted rows in the window, they had begun to expire, and fewer are left. Or a row was seen in
ClickHouse alone, at or after the watermark, whose expiry has passed and which is there no more; then every empty window
of that time, whose rows would all have expired by now, may have held some, and nobody looked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from include.offload.model import WindowState
from include.offload.windows import Grid, Span, from_us

ROUNDING_US = 1_000_000
"""A TTL over `toDateTime(…)` cuts the fraction of a second."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the time before this look. Instants and durations in µs UTC.

    said: what plans that never landed saw, by window: rows and first expiry. gone_us: the expiry of a row that was seen
    unshipped and is gone; None: no such row. ttl_us: how long rows live, as a rule. met_us: when the ledger met the
    table: what had expired by then was never ours to ship. exact: whether every such row that is gone expired, which a
    `TTL … WHERE` leaves open. other_ttl: the source's TTL is another than at the last look, and what went may have gone
    by it.
    """

    said: Mapping[int, tuple[int, int | None]]
    gone_us: int | None
    ttl_us: int | None
    met_us: int
    exact: bool = True
    other_ttl: bool = False


def gone(seen_us: int | None, now_seen_us: int | None, now_us: int, *, same_ttl: bool) -> int | None:
    """The expiry of a row that was seen unshipped and has expired since; None: there is none, or another TTL holds now.

    seen_us, now_seen_us: the first expiry of the unshipped rows at the look before and now, None: none expires.
    """
    if not same_ttl or seen_us is None or seen_us > now_us:
        return None
    return seen_us if now_seen_us is None or now_seen_us > seen_us else None


def expired_unshipped(
    now: Mapping[int, WindowState], append: Sequence[Span], grid: Grid, now_us: int, known: Evidence
) -> dict[int, int]:
    """The windows of `append` whose rows are lost, by number: how many at least, 0 where nobody counted them.

    now: what ClickHouse holds, by window; append: settled time that was never shipped.
    """
    lost: dict[int, int] = {}
    rows = {number: state.rows for number, state in now.items()}
    for number, (said, expiry_us) in known.said.items():
        missing = said - rows.get(number, 0)
        expired = known.other_ttl or (expiry_us is not None and expiry_us <= now_us)
        if missing > 0 and expired and _within(grid.span(number), append):
            lost[number] = missing
    first = None if known.gone_us is None else _window_of(known.gone_us, known.ttl_us, append, grid)
    if first is None:
        return lost
    if known.ttl_us is not None:
        for number in (n for span in append for n in grid.numbers(span)):
            window = grid.span(number)
            expired = window.hi + known.ttl_us <= now_us and window.lo + known.ttl_us > known.met_us
            if expired and not rows.get(number):
                lost.setdefault(number, 0)
    if known.exact:
        # one row at least, also where others of its window are left
        lost[first] = max(1, lost.get(first, 0))
    return lost


def _within(window: Span, spans: Sequence[Span]) -> bool:
    return any(s.lo <= window.lo and window.hi <= s.hi for s in spans)


def _window_of(gone_us: int, ttl_us: int | None, append: Sequence[Span], grid: Grid) -> int | None:
    """The window of a row by when it expired; None when that one was shipped, by a range that somebody asked for.

    While nobody knows how long rows live nothing with a TTL was ever shipped: then the first window.
    """
    if not append:
        return None
    if ttl_us is None:
        return grid.number(append[0].lo)
    at = gone_us - ttl_us
    return next((n for us in (at, at - ROUNDING_US) if _within(grid.span(n := grid.number(us)), append)), None)


def note(lost: Mapping[int, int], grid: Grid, table: str) -> str | None:
    """One line for the log; None when nothing was lost."""
    if not lost:
        return None
    lo, hi = grid.span(min(lost)).lo, grid.span(max(lost)).hi
    rows = sum(lost.values())
    least = f", {rows} rows at least" if rows else ""
    return (
        f"rows expired in ClickHouse before they were shipped, in up to {len(lost)} windows from"
        f" {from_us(lo):%Y-%m-%dT%H:%M:%SZ} to {from_us(hi):%Y-%m-%dT%H:%M:%SZ}{least}; they are in no lake."
        f" Once that is known and reported: bin/offload accept-loss {table}"
    )
