"""Where every table stands, told by the ledger alone: one query for all tables, so that a page may ask every minute.

`bin/offload status` asks ClickHouse and Iceberg too; this asks neither, and so answers while both are away. What it
says of the source is as old as the last `check_extent`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from typing import Any

from sqlalchemy import text

from include.offload.errors import REGISTRY
from include.offload.ledger.store import Ledger
from include.offload.limits import LAG_FAILED_S, lag_limit_s
from include.offload.sections import error_id
from include.offload.windows import Grid, from_us, to_us

MINUTE_US = 60_000_000
DAY_US = 24 * 60 * MINUTE_US
# the same limits as the alerts': TTLHeadroomWarning and -Critical, ConsecutiveFailures
HEADROOM_LOW_US = 24 * 60 * MINUTE_US
HEADROOM_CRITICAL_US = 6 * 60 * MINUTE_US
MANY_FAILURES = 3


class Danger(IntEnum):
    """How soon somebody has to look; the smallest first."""

    CRITICAL = 0
    WARNING = 1
    OK = 2
    IDLE = 3


@dataclass(frozen=True, slots=True)
class TableOverview:
    """One table as the ledger knows it. Instants and durations in µs; None: not known."""

    table: str
    state: str
    """`new` (no run yet), `ok`, `behind` (its oldest unshipped window is overdue), `warning` (see `reasons`), `failed`
    (the last run did)."""
    danger: Danger = Danger.IDLE
    reasons: tuple[str, ...] = ()
    """Why it is in danger, the worst first, each half a sentence."""
    watermark_us: int | None = None
    lag_us: int | None = None
    """now − settle − watermark; 0 while no window behind the watermark is settled."""
    headroom_us: int | None = None
    """Until ClickHouse deletes the first row that is not in the lake; None: no such row expires."""
    ttl_us: int | None = None
    """How long the newest shipped window lives in ClickHouse; None: forever."""
    day_rows: int = 0
    """Rows that the plans of the last 24 hours shipped."""
    lake_rows: int = 0
    generation: int = 0
    snapshot_id: int | None = None
    failures: int = 0
    last_error: str | None = None
    error_id: str | None = None
    last_success_us: int | None = None
    last_run_us: int | None = None
    duration_s: float | None = None
    late_rows: int = 0
    late_from_us: int | None = None
    late_to_us: int | None = None
    differing: int = 0
    """Windows that differ from ClickHouse and that the last check left as they are."""
    ttl_guard: str | None = None
    width_us: int | None = None
    settle_us: int = 0
    origin_us: int | None = None
    target: str | None = None
    paused: bool = False
    """Its DAG is paused: what is behind does not catch up by itself."""

    @property
    def dag_id(self) -> str:
        return dag_id(self.table)


@dataclass(frozen=True, slots=True)
class Board:
    """All tables, the most endangered first, and when the ledger was asked (its clock, µs UTC)."""

    now_us: int
    tables: tuple[TableOverview, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """Something to type, and when."""

    line: str
    why: str


def dag_id(table: str) -> str:
    """The DAG of a table, named `db.table`."""
    database, _, name = table.partition(".")
    return f"offload__{database}__{name}"


_TABLES = """
SELECT t.identity, t.width_us, t.origin_us, t.target, w.watermark, w.generation, w.status, w.failure_count,
    w.last_error, w.last_successful_run, w.updated_at, w.row_count, w.snapshot_id, w.duration_seconds,
    g.reason AS guard, l.updated_at AS looked_at, l.brief AS look, l.differing, day.rows AS day_rows, newest.ttl_us
FROM offload.tables t
JOIN offload.watermarks w USING (table_id)
LEFT JOIN offload.looks l USING (table_id)
LEFT JOIN offload.ttl_guard g USING (table_id)
LEFT JOIN LATERAL (
    SELECT sum(p.rows) AS rows FROM offload.plans p
    WHERE p.table_id = t.table_id AND p.created_at > now() - interval '1 day' AND p.status = 'committed'
) day ON true
LEFT JOIN LATERAL (
    SELECT x.expiry_us - lower(x.span) AS ttl_us FROM offload.windows x
    WHERE x.table_id = t.table_id AND x.rows > 0 ORDER BY lower(x.span) DESC LIMIT 1
) newest ON true
"""


def board(ledger: Ledger) -> Board:
    """Every table that the ledger knows. Raises OFL-501, OFL-502."""
    with ledger.begin() as c:
        now_us = to_us(c.execute(text("SELECT now()")).scalar_one())
        found = [_table(r, now_us) for r in c.execute(text(_TABLES)).mappings()]
    return Board(now_us, tuple(sorted(found, key=by_danger)))


def one(ledger: Ledger, dag: str) -> tuple[int, TableOverview | None]:
    """Now by the ledger's clock (µs UTC), and the table of a DAG; None when the ledger has never seen it."""
    sql = _TABLES + " WHERE 'offload__' || regexp_replace(t.identity, '[.]', '__') = :dag"
    with ledger.begin() as c:
        now_us = to_us(c.execute(text("SELECT now()")).scalar_one())
        row = c.execute(text(sql), {"dag": dag}).mappings().first()
    return now_us, None if row is None else _table(row, now_us)


def unknown(dag: str) -> TableOverview:
    """A table whose DAG has never run: only its name is known."""
    return TableOverview(dag.removeprefix("offload__").replace("__", ".", 1), "new", reasons=("never ran",))


def by_danger(table: TableOverview) -> tuple[int, float, float, str]:
    """The key that sorts tables: the most endangered first."""
    headroom = float("inf") if table.headroom_us is None else table.headroom_us
    if table.danger > Danger.WARNING:
        headroom = 0.0
    return (table.danger, headroom, -(table.lag_us or 0), table.table)


def _table(row: Mapping[Any, Any], now_us: int) -> TableOverview:
    look: Mapping[str, Any] = row["look"] or {}
    seen = TableOverview(
        table=str(row["identity"]),
        state={"initialized": "new", "success": "ok"}.get(str(row["status"]), str(row["status"])),
        watermark_us=_us(row["watermark"]),
        ttl_us=row["ttl_us"] if row["ttl_us"] is not None and row["ttl_us"] > 0 else None,
        day_rows=int(row["day_rows"] or 0),
        lake_rows=int(row["row_count"]),
        generation=int(row["generation"]),
        snapshot_id=row["snapshot_id"],
        failures=int(row["failure_count"]),
        last_error=row["last_error"],
        error_id=error_id(row["last_error"]),
        last_success_us=_us(row["last_successful_run"]),
        last_run_us=_us(row["updated_at"]),
        duration_s=row["duration_seconds"],
        late_rows=int(look.get("late_rows") or 0),
        late_from_us=look.get("late_from_us"),
        late_to_us=look.get("late_to_us"),
        differing=int(row["differing"] or 0),
        ttl_guard=row["guard"],
        width_us=int(row["width_us"]),
        settle_us=int(look.get("settle_us") or 0),
        origin_us=row["origin_us"],
        target=row["target"],
    )
    # what the last plan shipped no longer expires unshipped
    landed = row["looked_at"] and row["last_successful_run"] and row["last_successful_run"] >= row["looked_at"]
    expiry = look.get("next_expiry_us" if landed else "first_expiry_us")
    return _judged(replace(seen, headroom_us=None if expiry is None else expiry - now_us), now_us)


def behind_us(width_us: int) -> int:
    """The lag above which a table is behind, µs."""
    return int(lag_limit_s(width_us) * 1e6)


def far_behind_us(width_us: int) -> int:
    """The lag above which two runs or more did not land, µs."""
    return int(lag_limit_s(width_us, LAG_FAILED_S) * 1e6)


def _judged(seen: TableOverview, now_us: int) -> TableOverview:
    """With lag, state and danger."""
    lag, overdue = None, 0
    behind = far = False
    if seen.watermark_us is not None and seen.width_us:
        settled = Grid(seen.width_us).settled_until(now_us, seen.settle_us)
        lag = now_us - seen.settle_us - seen.watermark_us if settled > seen.watermark_us else 0
        overdue = max(0, lag - seen.width_us)
        behind, far = lag > behind_us(seen.width_us), lag > far_behind_us(seen.width_us)
    found: list[tuple[Danger, str]] = []
    if seen.headroom_us is not None:
        ttl = seen.ttl_us or 2 * HEADROOM_LOW_US
        if seen.headroom_us <= 0:
            found.append((Danger.CRITICAL, "unshipped rows have begun to expire"))
        elif seen.headroom_us < min(HEADROOM_CRITICAL_US, ttl // 4):
            found.append((Danger.CRITICAL, "unshipped rows expire soon"))
        elif seen.headroom_us < min(HEADROOM_LOW_US, ttl // 2):
            found.append((Danger.WARNING, "unshipped rows expire within a day"))
    if seen.failures:
        worst = Danger.CRITICAL if seen.failures >= MANY_FAILURES else Danger.WARNING
        found.append((worst, "the last run failed" if seen.failures == 1 else f"{seen.failures} failures in a row"))
    elif seen.state == "failed":
        # tries before a run's last one do not count
        found.append((Danger.WARNING, "a try failed, a retry follows"))
    if behind:
        worst = Danger.CRITICAL if far else Danger.WARNING
        found.append((worst, f"a window is {overdue // MINUTE_US} min overdue"))
    if seen.differing:
        found.append((Danger.WARNING, f"{seen.differing} windows differ from ClickHouse"))
    if seen.late_rows:
        found.append((Danger.WARNING, f"{seen.late_rows} rows came later than the horizon"))
    if seen.ttl_guard:
        found.append((Danger.WARNING, "TTL merges of the source are stopped"))
    found.sort(key=lambda f: f[0])
    quiet = Danger.IDLE if seen.state == "new" else Danger.OK
    state = seen.state
    if state == "ok" and found:
        state = "behind" if behind else "warning"
    return replace(
        seen,
        lag_us=lag,
        state=state,
        danger=found[0][0] if found else quiet,
        reasons=tuple(reason for _, reason in found),
    )


def next_commands(table: TableOverview) -> tuple[Command, ...]:
    """What to type next, the most urgent first; the last two always help."""
    name, out = table.table, list[Command]()
    kind = REGISTRY.get(table.error_id or "")
    if kind is not None:
        out.append(Command(kind.next_step.replace("{table}", name), f"{kind.id}: {kind.title}"))
    if table.state == "behind":
        out.append(Command(f"bin/offload run {name}", "ships now what is settled, without waiting for the schedule"))
    if table.differing:
        out.append(
            Command(f"bin/offload reconcile {name} --dry-run", "shows the windows that differ, and why they stay")
        )
    if table.late_rows and table.late_from_us is not None and table.late_to_us is not None:
        lo, hi = _iso(table.late_from_us), _iso(table.late_to_us)
        out.append(Command(f"bin/offload reconcile {name} --from {lo} --to {hi}", "ships rows that came late"))
    out.append(Command(f"bin/offload plan {name}", "what the next run would ship, with its SQL"))
    out.append(Command(f"bin/offload verify {name}", "two readers compare ClickHouse and Iceberg, window by window"))
    return tuple(out)


def restrict(seen: Board, dags: Iterable[str], sleeping: Iterable[str] = ()) -> Board:
    """Only the tables of these DAGs, those that never ran too. sleeping: the DAGs that are paused."""
    allowed, asleep = set(dags), set(sleeping)
    known = {t.dag_id: t for t in seen.tables}
    listed = [known.get(d) or unknown(d) for d in allowed]
    return Board(
        seen.now_us,
        tuple(sorted((replace(t, paused=True) if t.dag_id in asleep else t for t in listed), key=by_danger)),
    )


def _iso(us: int) -> str:
    return f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}"


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)
