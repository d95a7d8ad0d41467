"""One table's last windows and plans, told by the ledger alone: what became of each window, how far behind it was."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from include.offload.ledger.store import Ledger
from include.offload.overview import TableOverview
from include.offload.windows import Grid, Span, merge, to_us

MAX_CELLS = 2_600
"""Most windows on one page: a week of five minutes, or 42 hours of one."""
PLANS = 100
"""How many plans the charts look back on: a day of a run every quarter of an hour."""


class Fate(StrEnum):
    """What became of a window."""

    SHIPPED = "shipped"
    HEALED = "healed"
    """Shipped, and later replaced: rows had come late or had changed."""
    EMPTY = "empty"
    PENDING = "pending"
    """Settled, and not looked at yet."""
    LOST = "lost"
    """Its rows expired in ClickHouse before they were shipped, or have begun to: what was there may be gone for good.

    Also when a run has seen it empty since, until somebody accepts the loss.
    """
    DIFFERS = "differs"
    """ClickHouse holds something else, and the last check left it as it is."""
    EXPIRED = "expired"
    """Shipped, and its rows have begun to expire in ClickHouse: only the lake is sure to hold them all."""
    OPEN = "open"
    """Not settled yet, or before the table's accounting begins."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One window. `rows`: in the lake; `was`: rows before it was replaced. Instants µs UTC."""

    span: Span
    fate: Fate
    rows: int = 0
    was: int | None = None
    source_rows: int | None = None
    """Rows in ClickHouse, where they differ."""
    why: str | None = None
    plan_id: uuid.UUID | None = None
    recorded_us: int | None = None
    verified_us: int | None = None
    """When verify last compared it, whatever came of it."""


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One plan. `status`: open, committed, empty or superseded."""

    plan_id: uuid.UUID
    generation: int
    status: str
    run_id: str
    rows: int
    windows: int
    snapshot_id: int | None
    created_us: int
    closed_us: int | None
    watermark_before_us: int | None
    watermark_after_us: int | None
    predecessor: uuid.UUID | None
    files: int | None = None
    bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What a cell says of the plan that made it."""

    generation: int
    snapshot_id: int | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The windows of `span` in order, the last plans, newest first, and every plan that a window names."""

    span: Span
    width_us: int
    cells: tuple[Cell, ...]
    plans: tuple[PlanLine, ...]
    made: Mapping[uuid.UUID, Made] = field(default_factory=dict)


_WINDOWS = text(
    "SELECT lower(span) AS lo, upper(span) AS hi, rows, expiry_us, plan_id, recorded_at FROM offload.windows"
    " WHERE table_id = :id AND span && int8range(:lo, :hi)"
)
_REPLACED = text(
    "SELECT p.plan_id, (w ->> 'window')::bigint AS number, (w ->> 'ledger_rows')::bigint AS was"
    " FROM offload.plans p, jsonb_path_query(p.document, '$.windows[*] ? (@.action == \"replace\")') w"
    " WHERE p.table_id = :id AND p.created_at >= to_timestamp(:lo / 1e6) AND p.plan_id = ANY(:plans)"
)
_LEFT = text(
    "SELECT (x ->> 'window')::bigint AS number, x ->> 'reason' AS reason, (x ->> 'rows')::bigint AS rows,"
    # older code did not say it
    " coalesce((x ->> 'differs')::boolean, x ->> 'reason' <> 'unknown-fingerprint') AS differs"
    " FROM offload.looks, jsonb_array_elements(document -> 'left') x WHERE table_id = :id"
)
_MADE = text(
    "SELECT plan_id, generation, snapshot_id FROM offload.plans WHERE table_id = :id AND plan_id = ANY(:plans)"
)
_FOUND = text(
    "SELECT lower(span) AS lo, upper(span) AS hi, kind FROM offload.findings"
    " WHERE table_id = :id AND accepted_at IS NULL AND span && int8range(:lo, :hi)"
)
_VERIFIED = text("SELECT lo, verified_at FROM offload.verified WHERE table_id = :id AND lo >= :lo AND lo < :hi")
_PLAN_COLUMNS = (
    "SELECT p.plan_id, p.generation, p.status, p.run_id, p.rows, p.windows, p.snapshot_id, p.created_at, p.closed_at,"
    " p.predecessor, (p.document ->> 'watermark_before')::bigint AS before,"
    " (p.document ->> 'watermark_after')::bigint AS after, a.files, a.bytes, a.seconds FROM offload.plans p"
    " LEFT JOIN LATERAL (SELECT (x.outcome ->> 'files')::bigint AS files, (x.outcome ->> 'bytes')::bigint AS bytes,"
    " (x.outcome ->> 'seconds')::float8 AS seconds FROM offload.attempts x WHERE x.plan_id = p.plan_id"
    " ORDER BY x.recorded_at DESC LIMIT 1) a ON p.status = 'committed'"
)
_LAST_PLANS = text(_PLAN_COLUMNS + " WHERE p.table_id = :id ORDER BY p.created_at DESC LIMIT :limit")
_ONE_PLAN = text(
    _PLAN_COLUMNS + " JOIN offload.tables t USING (table_id) WHERE t.identity = :identity AND p.plan_id = :plan"
)


def timeline(ledger: Ledger, seen: TableOverview, now_us: int, span: Span) -> Timeline:
    """What became of each window in `span`, which must lie on the table's grid. Raises OFL-501, ValueError."""
    assert seen.width_us is not None  # noqa: S101 - a table that the ledger knows has a width
    grid = Grid(seen.width_us)
    with ledger.begin(seen.table) as c:
        table_id = c.execute(
            text("SELECT table_id FROM offload.tables WHERE identity = :identity"), {"identity": seen.table}
        ).scalar_one()
        rows = c.execute(_WINDOWS, {"id": table_id} | _ends(span)).mappings().all()
        shipped_by = list({r["plan_id"] for r in rows if r["rows"]})
        was = _replaced(c, table_id, span, shipped_by)
        made = {
            r.plan_id: Made(int(r.generation), r.snapshot_id)
            for r in c.execute(_MADE, {"id": table_id, "plans": shipped_by})
        }
        left = {r.number: (str(r.reason), int(r.rows)) for r in c.execute(_LEFT, {"id": table_id}) if r.differs}
        found = [(Span(r.lo, r.hi), str(r.kind)) for r in c.execute(_FOUND, {"id": table_id} | _ends(span))]
        compared = {int(r.lo): to_us(r.verified_at) for r in c.execute(_VERIFIED, {"id": table_id} | _ends(span))}
        plans = [_plan(r) for r in c.execute(_LAST_PLANS, {"id": table_id, "limit": PLANS}).mappings()]
    # a difference that no window shows is none of a window
    known = Known(
        lost=merge(s for s, kind in found if kind == "lost"),
        differing=merge(s for s, kind in found if kind in {"verify", "reconcile"}),
    )
    cells = tuple(
        replace(cell, verified_us=compared.get(cell.span.lo))
        for cell in _cells(grid, span, rows, was, left, seen, now_us, known)
    )
    return Timeline(span, seen.width_us, cells, tuple(plans), made)


def plan_line(ledger: Ledger, table: str, plan_id: uuid.UUID) -> PlanLine | None:
    """One plan of this table, None when it has none with that id."""
    with ledger.begin(table) as c:
        row = c.execute(_ONE_PLAN, {"identity": table, "plan": plan_id}).mappings().first()
    return None if row is None else _plan(row)


def _replaced(c: Connection, table_id: int, span: Span, plans: Sequence[uuid.UUID]) -> dict[tuple[Any, int], int]:
    """Rows before, by plan and window, of the windows that these plans replaced."""
    wanted = {"id": table_id, "lo": span.lo, "plans": list(plans)}
    return {(r.plan_id, r.number): int(r.was or 0) for r in c.execute(_REPLACED, wanted)}


def _ends(span: Span) -> dict[str, int]:
    return {"lo": span.lo, "hi": span.hi}


@dataclass(frozen=True, slots=True)
class Known:
    """What is neither mended nor accepted, as merged spans: what expired unshipped, what verify or reconcile saw."""

    lost: Sequence[Span] = ()
    differing: Sequence[Span] = ()


def _cells(
    grid: Grid,
    span: Span,
    rows: Sequence[Mapping[Any, Any]],
    was: Mapping[tuple[Any, int], int],
    left: Mapping[int, tuple[str, int]],
    seen: TableOverview,
    now_us: int,
    known: Known = Known(),  # noqa: B008 - it is frozen
) -> tuple[Cell, ...]:
    shipped = {grid.number(r["lo"]): r for r in rows if r["rows"]}
    empty = merge(Span(r["lo"], r["hi"]) for r in rows if not r["rows"])
    settled = grid.settled_until(now_us, seen.settle_us)
    out = []
    for number in grid.numbers(span):
        window = grid.span(number)
        row = shipped.get(number)
        reason, source_rows = left.get(number, (None, None))
        if reason is None and _covered(window, known.differing):
            reason = "verified"
        lost = _covered(window, known.lost)
        if row is None:
            fate = Fate.EMPTY
            if not _covered(window, empty):
                begun = seen.origin_us is not None and window.lo >= seen.origin_us
                fate = _unshipped(window, seen, now_us) if begun and window.hi <= settled else Fate.OPEN
            fate = Fate.LOST if lost else Fate.DIFFERS if reason else fate
            out.append(Cell(window, fate, source_rows=source_rows, why=reason))
            continue
        before = was.get((row["plan_id"], number))
        gone = row["expiry_us"] is not None and row["expiry_us"] <= now_us
        whole = Fate.HEALED if before is not None else Fate.EXPIRED if gone else Fate.SHIPPED
        fate = Fate.LOST if lost else Fate.DIFFERS if reason else whole
        recorded = to_us(row["recorded_at"])
        out.append(Cell(window, fate, int(row["rows"]), before, source_rows, reason, row["plan_id"], recorded))
    return tuple(out)


def _unshipped(window: Span, seen: TableOverview, now_us: int) -> Fate:
    if seen.ttl_us is None or seen.met_us is None:
        return Fate.PENDING
    return Fate.LOST if seen.met_us < window.lo + seen.ttl_us <= now_us else Fate.PENDING


def _covered(window: Span, merged: Sequence[Span]) -> bool:
    at = bisect_right(merged, window.lo, key=lambda s: s.lo) - 1
    return at >= 0 and window.hi <= merged[at].hi


def _plan(row: Mapping[Any, Any]) -> PlanLine:
    closed: datetime | None = row["closed_at"]
    return PlanLine(
        plan_id=row["plan_id"],
        generation=int(row["generation"]),
        status=str(row["status"]),
        run_id=str(row["run_id"]),
        rows=int(row["rows"]),
        windows=int(row["windows"]),
        snapshot_id=row["snapshot_id"],
        created_us=to_us(row["created_at"]),
        closed_us=None if closed is None else to_us(closed),
        watermark_before_us=row["before"],
        watermark_after_us=row["after"],
        predecessor=row["predecessor"],
        files=row["files"],
        bytes=row["bytes"],
        seconds=row["seconds"],
    )
