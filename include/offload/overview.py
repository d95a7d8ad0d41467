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

from include.offload.ledger.findings import SUMS, Sum, sum_of
from include.offload.ledger.looks import Guarded
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

REFUSAL_SHOWN = 160
"""Characters of what ClickHouse said."""
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
    late_unknown: int = 0
    """Windows that lost rows, of which nobody knows whether rows are missing in the lake."""
    differing: int = 0
    """Windows that differ from ClickHouse and that the last check left as they are."""
    found: Sum = Sum()
    """What verify and reconcile found, and what expired unshipped, until it is mended or accepted."""
    ttl_guard: str | None = None
    guard_refused: str | None = None
    """What ClickHouse said instead of stopping TTL merges; None: it obeys."""
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

    @property
    def headroom_danger(self) -> Danger:
        """Of the headroom alone."""
        if self.headroom_us is None:
            return Danger.IDLE
        fails_s, warns_s = headroom_limits_s(self.headroom_limit_s)
        if self.headroom_us <= 0 or self.headroom_us < fails_s * 1e6:
            return Danger.CRITICAL
        return Danger.WARNING if self.headroom_us < warns_s * 1e6 else Danger.OK


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


def dag_id(table: str) -> str:
    """The DAG of a table, named `db.table`."""
    database, _, name = table.partition(".")
    return f"offload__{database}__{name}"


_TABLES = f"""
SELECT t.identity, t.width_us, t.origin_us, t.target, t.created_at AS met_at,
    w.watermark, w.generation, w.status, w.failure_count, w.last_error,
    w.last_successful_run, w.updated_at, w.row_count, w.snapshot_id, w.duration_seconds,
    g.reason AS guard, g.wanted, g.applied_at, g.last_error AS guard_error,
    l.updated_at AS looked_at, l.brief AS look, l.differing, day.rows AS day_rows, newest.ttl_us,
    f.found_differing, f.lost, f.lost_rows, f.lost_from_us, f.lost_to_us
FROM offload.tables t
JOIN offload.watermarks w USING (table_id)
LEFT JOIN offload.looks l USING (table_id)
LEFT JOIN offload.ttl_guard g USING (table_id)
LEFT JOIN ({SUMS}) f USING (table_id)
LEFT JOIN LATERAL (
    SELECT sum(greatest(p.rows - p.replaced_rows, 0)) AS rows FROM offload.plans p
    WHERE p.table_id = t.table_id AND p.created_at > now() - interval '1 day' AND p.status = 'committed'
) day ON true
LEFT JOIN LATERAL (
    SELECT x.expiry_us - lower(x.span) AS ttl_us FROM offload.windows x
    WHERE x.table_id = t.table_id AND x.rows > 0 ORDER BY lower(x.span) DESC LIMIT 1
) newest ON true
"""


_UNMET = "SELECT identity, failure_count, last_error, updated_at FROM offload.unmet"
_OF_DAG = " WHERE 'offload__' || regexp_replace({}, '[.]', '__') = :dag"


def board(ledger: Ledger) -> Board:
    """Every table that the ledger knows, if only by its failures. Raises OFL-501, OFL-502."""
    with ledger.begin() as c:
        now_us = to_us(c.execute(text("SELECT now()")).scalar_one())
        # a retired table is in no danger, and nobody waits for it
        going_on = text(_TABLES + " WHERE t.retired_at IS NULL")
        found = [_table(r, now_us) for r in c.execute(going_on).mappings()]
        met = {t.table for t in found}
        found += [_unmet(r) for r in c.execute(text(_UNMET)).mappings() if r["identity"] not in met]
    return Board(now_us, tuple(sorted(found, key=by_danger)))


def one(ledger: Ledger, dag: str) -> tuple[int, TableOverview | None]:
    """Now by the ledger's clock (µs UTC), and the table of a DAG; None when the ledger has never seen it."""
    with ledger.begin() as c:
        now_us = to_us(c.execute(text("SELECT now()")).scalar_one())
        row = c.execute(text(_TABLES + _OF_DAG.format("t.identity")), {"dag": dag}).mappings().first()
        if row is not None:
            return now_us, _table(row, now_us)
        failed = c.execute(text(_UNMET + _OF_DAG.format("identity")), {"dag": dag}).mappings().first()
    return now_us, None if failed is None else _unmet(failed)


def unknown(dag: str) -> TableOverview:
    """A table whose DAG has never run: only its name is known."""
    return TableOverview(dag.removeprefix("offload__").replace("__", ".", 1), "new", reasons=("never ran",))


def _unmet(row: Mapping[Any, Any]) -> TableOverview:
    """A table whose first check has failed: the ledger holds nothing but its failures."""
    seen = TableOverview(
        str(row["identity"]),
        "failed",
        failures=int(row["failure_count"]),
        last_error=without_logins(row["last_error"]),
        error_id=error_id(row["last_error"]),
        last_run_us=to_us(row["updated_at"]),
        heard_us=to_us(row["updated_at"]),
    )
    danger, reason = _failing(seen.failures)
    return replace(seen, danger=danger, reasons=(reason, "no check of it has ended well yet"))


def _failing(failures: int) -> tuple[Danger, str]:
    if not failures:
        # tries before a run's last one do not count
        return Danger.WARNING, "a try failed, a retry follows"
    worst = Danger.CRITICAL if failures >= FAILURES else Danger.WARNING
    return worst, "the last run failed" if failures == 1 else f"{failures} failures in a row"


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
        late_unknown=int(look.get("late_unknown") or 0),
        differing=int(row["differing"] or 0),
        found=sum_of(row),
        ttl_guard=row["guard"],
        guard_refused=_refusal(row),
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


def _refusal(row: Mapping[Any, Any]) -> str | None:
    """As `looks.Guarded.refused`, with the words that a page may show."""
    if row["guard"] is None:
        return None
    guard = Guarded(row["updated_at"], row["guard"], row["applied_at"], row["guard_error"], row["wanted"])
    return without_logins(guard.last_error or "ClickHouse has not answered yet") if guard.refused else None


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
    if seen.headroom_us is not None and seen.headroom_danger is Danger.CRITICAL:
        expiring = "unshipped rows have begun to expire" if seen.headroom_us <= 0 else "unshipped rows expire soon"
        found.append((Danger.CRITICAL, expiring))
    elif seen.headroom_us is not None and seen.headroom_danger is Danger.WARNING:
        found.append((Danger.WARNING, f"unshipped rows expire within {_span(seen.headroom_us)}"))
    if seen.failures or seen.state == "failed":
        found.append(_failing(seen.failures))
    if behind:
        worst = Danger.CRITICAL if far else Danger.WARNING
        found.append((worst, f"a window is {overdue // MINUTE_US} min overdue"))
    if seen.state != "new" and seen.heard_us is not None and _silent(seen.schedule, seen.heard_us, now_us):
        found.append((Danger.WARNING, f"no run for {_span(now_us - seen.heard_us)}: paused, or nothing schedules it"))
    found += _at_risk(seen)
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


def _at_risk(seen: TableOverview) -> list[tuple[Danger, str]]:
    """What is wrong with the rows themselves; as grave as the alerts have it."""
    found: list[tuple[Danger, str]] = []
    lost = seen.found.lost
    if lost:
        least = f", {seen.found.lost_rows} rows at least" if seen.found.lost_rows else ""
        found.append((Danger.CRITICAL, f"rows expired before they were shipped, in up to {_count(lost)}{least}"))
    if seen.guard_refused is not None:
        found.append((Danger.CRITICAL, f"TTL merges could not be stopped: {seen.guard_refused[:REFUSAL_SHOWN]}"))
    if seen.differing:
        differ = "differs" if seen.differing == 1 else "differ"
        found.append((Danger.CRITICAL, f"{_count(seen.differing)} {differ} from ClickHouse"))
    if seen.found.differing:
        found.append((Danger.CRITICAL, f"verify or reconcile saw {_count(seen.found.differing)} differ"))
    if seen.late_rows:
        found.append((Danger.CRITICAL, f"{seen.late_rows} rows came later than the horizon"))
    if seen.late_unknown:
        unknown = f"{_count(seen.late_unknown)} lost rows in ClickHouse, not known whether late ones are missing"
        found.append((Danger.WARNING, unknown))
    if seen.ttl_guard and seen.guard_refused is None:
        found.append((Danger.WARNING, "TTL merges of the source are stopped"))
    return found


def _count(windows: int) -> str:
    return f"{windows} window" + ("" if windows == 1 else "s")


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


def restrict(seen: Board, dags: Mapping[str, Dag]) -> Board:
    """Only the tables of these DAGs, by id; those that never ran too, but for what was retired before it did."""
    known = {t.dag_id: t for t in seen.tables}
    listed = (
        in_scheduler(known.get(id) or unknown(id), dag, seen.now_us)
        for id, dag in dags.items()
        if id in known or not dag.retired
    )
    return Board(seen.now_us, tuple(sorted(listed, key=by_danger)))


def _positive(us: int | None) -> int | None:
    return us if us is not None and us > 0 else None


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)
