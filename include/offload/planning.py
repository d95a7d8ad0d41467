"""Planning: which windows to append, which to replace, which to leave alone, and why. Pure.

The rules are docs/exactly-once.md's 6 to 10, 18 and 19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from include.offload.model import EXPIRED_LONG_AGO, Action, Extent, PlannedWindow, WindowState, earliest
from include.offload.windows import Grid, Span, from_us


class Leave(StrEnum):
    """Why a window that differs, or may differ, is left as it is."""

    SHRUNK = "shrunk"
    EXPIRING = "expiring"
    UNKNOWN = "unknown-fingerprint"
    KEPT = "gone-in-source"
    """Rows of it went without a delete that names them: a dropped partition, a TTL that was shortened."""


@dataclass(frozen=True, slots=True)
class LedgerWindow:
    """A shipped window as the ledger knows it."""

    state: WindowState
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Left:
    """A window that planning looked at and did not touch, with the reason that an operator reads.

    expired: rows or column values of it may be gone from the source by TTL, or its TTL can't be read.
    """

    window: int
    reason: Leave
    rows: int
    ledger_rows: int
    expired: bool = False

    @property
    def differs(self) -> bool:
        """Whether lake and source should be equal there and are not.

        After another projection nothing is known. Of what expired or went with its partition only more rows count: that
        the lake keeps what the source no longer has is what it is for.
        """
        if self.expired or self.reason is Leave.KEPT:
            return self.rows > self.ledger_rows
        return self.reason is not Leave.UNKNOWN


@dataclass(frozen=True, slots=True)
class Rules:
    """What planning needs of the spec. Durations and instants in µs.

    safe_until_us: a window is replaced only when every expiry of it is later than this (now + job time-out +
    margin, rule 18); None: its TTL can't be read, so nothing is replaced.
    """

    grid: Grid
    fingerprint: str
    follow_deletes: bool
    safe_until_us: int | None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The windows to ship and those left alone."""

    windows: tuple[PlannedWindow, ...] = ()
    left: tuple[Left, ...] = field(default=())


def decide(
    extent: Extent,
    append: Sequence[Span],
    ledger: Mapping[int, LedgerWindow],
    empty: Sequence[Span],
    rules: Rules,
) -> Decision:
    """Compare what ClickHouse holds with what the ledger says was shipped.

    append: settled time that the ledger does not know. ledger: shipped windows inside the extent's spans.
    empty: time that was verified empty earlier; rows that appear there are late.
    """
    now = extent.windows()
    ship: list[PlannedWindow] = []
    left: list[Left] = []
    nothing = LedgerWindow(WindowState(0, 0, 0), rules.fingerprint)
    for number in sorted(now.keys() | ledger.keys()):
        span = rules.grid.span(number)
        state = now.get(number, WindowState(number, 0, 0))
        if any(a.lo <= span.lo and span.hi <= a.hi for a in append):
            ship.append(PlannedWindow(number, Action.APPEND, state.rows, state.hash, None, state.expiry_us))
            continue
        if number not in ledger and not any(e.overlaps(span) for e in empty):
            continue
        known = ledger.get(number, nothing)
        verdict = _judge(state, known, rules)
        if verdict is None:
            continue
        expiry = earliest(state.expiry_us, known.state.expiry_us)
        if isinstance(verdict, Leave):
            expired = rules.safe_until_us is None or (expiry is not None and expiry <= extent.now_us)
            left.append(Left(number, verdict, state.rows, known.state.rows, expired))
        else:
            ship.append(PlannedWindow(number, verdict, state.rows, state.hash, known.state.rows, expiry))
    return Decision(tuple(ship), tuple(left))


def _judge(state: WindowState, known: LedgerWindow, rules: Rules) -> Action | Leave | None:
    same_rows = state.rows == known.state.rows
    comparable = known.fingerprint == rules.fingerprint
    if same_rows and not rules.force and (not comparable or state.hash == known.state.hash):
        return Leave.UNKNOWN if not comparable else None
    if known.state.rows == 0:
        # nothing was shipped there: no history that a replace could erase, and rows to lose
        return Action.REPLACE
    if known.state.expiry_us == EXPIRED_LONG_AGO:
        return Leave.KEPT
    if rules.safe_until_us is None:
        return Leave.EXPIRING
    expiry = earliest(state.expiry_us, known.state.expiry_us)
    if expiry is not None and expiry <= rules.safe_until_us:
        return Leave.EXPIRING
    if state.rows < known.state.rows and not rules.follow_deletes:
        return Leave.SHRUNK
    return Action.REPLACE


MANY_SLICES = 100
"""So many in one plan are worth a word: each is a query, a file and a part of the commit."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The most rows that one run ships, and the line of the spec that says so, e.g. `plan.rows is 200`."""

    rows: int
    why: str


def bound_of(most_rows: int, most_bytes: int, bytes_per_row: float) -> Bound:
    """The tighter of the two bounds of the spec. bytes_per_row: uncompressed; 0: not known, so rows alone bound."""
    by_bytes = max(1, int(most_bytes / bytes_per_row)) if bytes_per_row > 0 else most_rows
    if by_bytes < most_rows:
        return Bound(by_bytes, f"plan.bytes is {most_bytes:,}, which is about {by_bytes:,} rows")
    return Bound(most_rows, f"plan.rows is {most_rows:,}")


def describe_bounds(end_us: int | None, settled_us: int, why: str, slices: int, slice_rows: int) -> list[str]:
    """What the spec's bounds do to a plan, for the log. end_us: where a backlog was cut, µs UTC; None: it was not."""
    lines = []
    if end_us is not None:
        lines.append(
            f"the backlog is larger than one run may ship ({why}): this one ends at"
            f" {from_us(end_us):%Y-%m-%dT%H:%M:%SZ}, settled is {from_us(settled_us):%Y-%m-%dT%H:%M:%SZ};"
            " the next run goes on"
        )
    if slices > MANY_SLICES:
        lines.append(f"{slices:,} slices, each a query and a file: slice.rows is {slice_rows:,}")
    return lines


def describe_left(left: Sequence[Left], grid: Grid) -> list[str]:
    """One line a reason, with how many windows, rows and the oldest."""
    lines = []
    for reason in Leave:
        group = [x for x in left if x.reason is reason]
        if group:
            oldest = from_us(grid.span(min(x.window for x in group)).lo)
            lines.append(
                f"{len(group)} windows left alone ({reason}): source {sum(x.rows for x in group)} rows,"
                f" lake {sum(x.ledger_rows for x in group)}, oldest {oldest:%Y-%m-%dT%H:%M:%SZ}"
            )
    return lines
