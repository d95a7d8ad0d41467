"""Windows: fixed slices of cursor time, the unit of accounting (docs/exactly-once.md, rule 6).

All arithmetic is on integers: microseconds since the Unix epoch, UTC. No local time, no floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch of an aware datetime. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"naive datetime {moment!r}: give it a time zone")
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_us(us: int) -> datetime:
    """The aware UTC datetime of `us` microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range of cursor time `[lo, hi)`, in microseconds since the epoch, UTC."""

    lo: int
    hi: int

    def __post_init__(self) -> None:
        if self.hi < self.lo:
            raise ValueError(f"a span ends before it begins: [{self.lo}, {self.hi})")

    @property
    def empty(self) -> bool:
        return self.lo == self.hi

    def overlaps(self, other: Span) -> bool:
        return self.lo < other.hi and other.lo < self.hi

    def contains(self, us: int) -> bool:
        return self.lo <= us < self.hi

    def __str__(self) -> str:
        return f"[{from_us(self.lo):%Y-%m-%dT%H:%M:%S}Z, {from_us(self.hi):%Y-%m-%dT%H:%M:%S}Z)"


ALL_TIME = Span(-(2**62), 2**62)
"""Wider than any cursor, and far enough from the edges of 64 bits to be rounded to windows."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The windows of one table: `[n * width, (n + 1) * width)` for every integer n.

    width_us: microseconds, > 0.
    """

    width_us: int

    def __post_init__(self) -> None:
        if self.width_us <= 0:
            raise ValueError(f"window width must be positive, got {self.width_us} µs")

    def number(self, us: int) -> int:
        """The number of the window that holds the instant `us`; floor, also before 1970."""
        return us // self.width_us

    def span(self, number: int) -> Span:
        return Span(number * self.width_us, (number + 1) * self.width_us)

    def floor(self, us: int) -> int:
        return us - us % self.width_us

    def ceil(self, us: int) -> int:
        return -(-us // self.width_us) * self.width_us

    def settled_until(self, now_us: int, settle_us: int) -> int:
        """The end of the last settled window: a window is settled when end + settle <= now."""
        return self.floor(now_us - settle_us)

    def numbers(self, span: Span) -> range:
        """The window numbers of a span that is aligned to this grid. Raises ValueError otherwise."""
        if span.lo % self.width_us or span.hi % self.width_us:
            raise ValueError(f"span {span} is not aligned to windows of {self.width_us} µs")
        return range(span.lo // self.width_us, span.hi // self.width_us)


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same instants as few, sorted, disjoint, non-empty spans; adjacent ones become one."""
    out: list[Span] = []
    for span in sorted(s for s in spans if not s.empty):
        if out and span.lo <= out[-1].hi:
            out[-1] = Span(out[-1].lo, max(out[-1].hi, span.hi))
        else:
            out.append(span)
    return tuple(out)


def subtract(span: Span, holes: Iterable[Span]) -> Iterator[Span]:
    """The parts of `span` that no hole covers, in order."""
    lo = span.lo
    for hole in merge(holes):
        if hole.hi <= lo:
            continue
        if hole.lo >= span.hi:
            break
        if hole.lo > lo:
            yield Span(lo, hole.lo)
        lo = hole.hi
    if lo < span.hi:
        yield Span(lo, span.hi)


def gapless_end(start: int, spans: Iterable[Span]) -> int:
    """The end of the unbroken run of `spans` that begins at `start` (the watermark, rule 7)."""
    end = start
    for span in merge(spans):
        if span.lo > end:
            break
        end = max(end, span.hi)
    return end
