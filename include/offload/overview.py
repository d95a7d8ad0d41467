"""Where every table stands, told by the ledger alone: one query for all tables, so that a page may ask every minute.

`bin/offload status` asks ClickHouse and Iceberg too; this asks neither, and so answers while both are away. What it
says of the source is as old as the last `check_extent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from typing import Any

from sqlalchemy import text

from include.offload.errors import REGISTRY
from include.offload.ledger.store import Ledger
from include.offload.limits import (
    FAILURES,
    SCHEDULE,
    expires_us,
    headroom_limits_s,
    lag_limits_s,
    silent_before,
)
from include.offload.redact import without_logins
from include.offload.sections import error_id
from include.offload.windows import Grid, from_us, to_us

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


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
    """Until ClickHouse deletes the first row that may not be in the lake; None: no such row is known to expire."""
    ttl_us: int | None = None
    """How long a row lives in ClickHouse, as a rule; None: forever, or not known."""
    expires: bool | None = None
    """Whether the source has a TTL; None: not known."""
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
    heard_us: int | None = None
    """When a run was last heard of: one that ships nothing leaves only its look."""
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
    met_us: int | None = None
    """When the ledger first met the table: what had expired by then was never the offload's to ship."""
    target: str | None = None
    schedule: str = SCHEDULE
    lag_limit_s: float | None = None
    """`alerts.lag` of its spec; None: the limit of all."""
    headroom_limit_s: float | None = None
    """`alerts.ttl_headroom` of its spec; None: the limit of all."""
    paused: bool = False
    """Its DAG is paused: what is behind does not catch up by itself."""
    stopped: str | None = None
    """Why no DAG runs it, half a sentence; None: one does."""

    @property
    def dag_id(self) -> str:
        return dag_id(self.table)


@dataclass(frozen=True, slots=True)
class Dag:
    """What the scheduler knows of a table's DAG.

    stopped: why it does not run it any more, half a sentence, None: it does; retired: and no mistake in its spec is
    known, so that somebody may have taken it out on purpose. schedule: cron; since_us: when the scheduler first knew
    the DAG, µs UTC; None: not known.
    """

    paused: bool = False
    stopped: str | None = None
    retired: bool = False
    schedule: str | None = None
    since_us: int | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """All tables, the most endangered first, and when the ledger was asked (its clock, µs UTC)."""

    now_us: int
    tables: tuple[TableOverview, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """What to do next. line: what to type, None: no command does it; why: what it is for; hint: words about it."""

    line: str | None
    why: str
    hint: str = ""


def dag_id(table: str) -> str:
    """The DAG of a table, named `db.table`."""
    database, _, name = table.partition(".")
    return f"offload__{database}__{name}"


_TABLES = """
SELECT t.identity, t.width_us, t.origin_us, t.target, t.created_at AS met_at,
    w.watermark, w.generation, w.status, w.failure_count, w.last_error,
    w.last_successful_run, w.updated_at, w.row_count, w.snapshot_id, w.duration_seconds,
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
        ttl_us=_positive(look["ttl_us"] if "ttl_us" in look else row["ttl_us"]),
        expires=look.get("expires"),
        day_rows=int(row["day_rows"] or 0),
        lake_rows=int(row["row_count"]),
        generation=int(row["generation"]),
        snapshot_id=row["snapshot_id"],
        failures=int(row["failure_count"]),
        # again: what older code wrote was not searched for secrets
        last_error=None if row["last_error"] is None else without_logins(row["last_error"]),
        error_id=error_id(row["last_error"]),
        last_success_us=_us(row["last_successful_run"]),
        last_run_us=_us(row["updated_at"]),
        heard_us=max(to_us(row["updated_at"]), int(look.get("seen_us") or 0)),
        duration_s=row["duration_seconds"],
        late_rows=int(look.get("late_rows") or 0),
        late_from_us=look.get("late_from_us"),
        late_to_us=look.get("late_to_us"),
        differing=int(row["differing"] or 0),
        ttl_guard=row["guard"],
        width_us=int(row["width_us"]),
        settle_us=int(look.get("settle_us") or 0),
        origin_us=row["origin_us"],
        met_us=to_us(row["met_at"]),
        target=row["target"],
        schedule=str(look.get("schedule") or SCHEDULE),
        lag_limit_s=look.get("lag_limit_s"),
        headroom_limit_s=look.get("headroom_limit_s"),
    )
    # what the last plan shipped no longer expires unshipped
    landed = row["looked_at"] and row["last_successful_run"] and row["last_successful_run"] >= row["looked_at"]
    known = look.get("next_expiry_us" if landed else "first_expiry_us")
    expiry = expires_us(known, seen.watermark_us, seen.ttl_us)
    return _judged(replace(seen, headroom_us=None if expiry is None else expiry - now_us), now_us)


def lag_limits_us(seen: TableOverview) -> tuple[int, int]:
    """The lags that warn and that are critical, µs: its own, else by the width of its windows and its schedule."""
    assert seen.width_us is not None  # noqa: S101 - a table that the ledger knows has a width
    warns, fails = lag_limits_s(seen.width_us, seen.lag_limit_s, seen.schedule)
    return int(warns * 1e6), int(fails * 1e6)


def _judged(seen: TableOverview, now_us: int) -> TableOverview:
    """With lag, state and danger."""
    lag, overdue = None, 0
    behind = far = False
    if seen.watermark_us is not None and seen.width_us:
        settled = Grid(seen.width_us).settled_until(now_us, seen.settle_us)
        lag = now_us - seen.settle_us - seen.watermark_us if settled > seen.watermark_us else 0
        overdue = max(0, lag - seen.width_us)
        warns_us, fails_us = lag_limits_us(seen)
        behind, far = lag > warns_us, lag > fails_us
    found: list[tuple[Danger, str]] = []
    if seen.headroom_us is not None:
        fails_s, warns_s = headroom_limits_s(seen.headroom_limit_s)
        if seen.headroom_us <= 0:
            found.append((Danger.CRITICAL, "unshipped rows have begun to expire"))
        elif seen.headroom_us < fails_s * 1e6:
            found.append((Danger.CRITICAL, "unshipped rows expire soon"))
        elif seen.headroom_us < warns_s * 1e6:
            found.append((Danger.WARNING, f"unshipped rows expire within {_span(seen.headroom_us)}"))
    if seen.failures:
        worst = Danger.CRITICAL if seen.failures >= FAILURES else Danger.WARNING
        found.append((worst, "the last run failed" if seen.failures == 1 else f"{seen.failures} failures in a row"))
    elif seen.state == "failed":
        # tries before a run's last one do not count
        found.append((Danger.WARNING, "a try failed, a retry follows"))
    if behind:
        worst = Danger.CRITICAL if far else Danger.WARNING
        found.append((worst, f"a window is {overdue // MINUTE_US} min overdue"))
    if seen.state != "new" and seen.heard_us is not None and _silent(seen.schedule, seen.heard_us, now_us):
        found.append((Danger.WARNING, f"no run for {_span(now_us - seen.heard_us)}: paused, or nothing schedules it"))
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


def in_scheduler(seen: TableOverview, dag: Dag, now_us: int) -> TableOverview:
    """The table with what is wrong with its DAG: what nothing runs is not safe, however well its last run was."""
    seen = replace(seen, paused=dag.paused, stopped=dag.stopped)
    if dag.stopped is not None:
        return _warned(seen, f"nothing runs it: {dag.stopped}")
    heard = dag.since_us if seen.heard_us is None else seen.heard_us
    if seen.state == "new" and not dag.paused and heard is not None:
        schedule = dag.schedule if seen.heard_us is None and dag.schedule else seen.schedule
        if _silent(schedule, heard, now_us):
            return _warned(seen, f"no run has come this far in {_span(now_us - heard)}")
    return seen


def _warned(seen: TableOverview, reason: str) -> TableOverview:
    """The table with one more warning, before the others but behind what is critical."""
    reasons = (*seen.reasons, reason) if seen.danger is Danger.CRITICAL else (reason, *seen.reasons)
    state = "warning" if seen.state in {"ok", "new"} else seen.state
    return replace(seen, reasons=reasons, danger=min(seen.danger, Danger.WARNING), state=state)


def _silent(schedule: str, heard_us: int, now_us: int) -> bool:
    return from_us(heard_us) < silent_before(schedule, from_us(now_us))


def _span(us: int) -> str:
    """`50 min`, `7 h`, `3 days`."""
    if us < 2 * HOUR_US:
        return f"{us // MINUTE_US} min"
    return f"{us // HOUR_US} h" if us < 2 * DAY_US else f"{us // DAY_US} days"


def next_commands(table: TableOverview) -> tuple[Command, ...]:
    """What to type next, the most urgent first; the last two always help."""
    name, out = table.table, list[Command]()
    if table.stopped is not None:
        retired = "retired on purpose? Delete its DAG in Airflow, and it leaves this page"
        out.append(Command("bin/offload spec check", "names what is wrong in each spec", retired))
    kind = REGISTRY.get(table.error_id or "")
    if kind is not None:
        out.append(Command(kind.command_for(name), f"{kind.id}: {kind.title}", kind.hint_for(name)))
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


def restrict(seen: Board, dags: Mapping[str, Dag]) -> Board:
    """Only the tables of these DAGs, by id; those that never ran too, but for what was retired before it did."""
    known = {t.dag_id: t for t in seen.tables}
    listed = (
        in_scheduler(known.get(id) or unknown(id), dag, seen.now_us)
        for id, dag in dags.items()
        if id in known or not dag.retired
    )
    return Board(seen.now_us, tuple(sorted(listed, key=by_danger)))


def _iso(us: int) -> str:
    return f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}"


def _positive(us: int | None) -> int | None:
    return us if us is not None and us > 0 else None


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)
