"""Where every table stands, asked of three witnesses: ClickHouse, Iceberg's metadata, the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pyiceberg.catalog import Catalog

from include.offload.cli.common import any_replica
from include.offload.context import Context
from include.offload.errors import OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.ledger import looks
from include.offload.ledger.looks import Remembered
from include.offload.limits import expires_us, lag_limit_s
from include.offload.lookback import late_note
from include.offload.source.client import Client
from include.offload.source.sql import instant_sql, quote
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, from_us, to_us

CATALOG_THREADS = 8
WITNESSES = 3
RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One line of `status`. Instants in µs UTC; None: that witness did not answer or does not know the table."""

    table: str
    state: str
    """`new`, `ok`, `late` (beyond its lag limit), `failed` (the last run failed), `retired`, `unknown` (no ledger)."""
    clickhouse_rows: int | None = None
    iceberg_rows: int | None = None
    unshipped_rows: int | None = None
    """Settled rows at or behind the watermark, or behind `landed_us` where that is ahead."""
    watermark_us: int | None = None
    landed_us: int | None = None
    """Where a commit of ours in Iceberg ends that the ledger does not know yet; None: it knows them all."""
    lag_seconds: float | None = None
    """now − settle − watermark (or `landed_us`) by ClickHouse's clock; 0 when no settled row is unshipped.

    None of a retired table: nobody waits for its rows.
    """
    last_run_us: int | None = None
    last_success_us: int | None = None
    failures: int = 0
    last_error: str | None = None
    generation: int | None = None
    snapshot_id: int | None = None
    late_rows: int = 0
    """Rows that came later than the horizon and are not in the lake, at the last survey."""
    differing: int = 0
    """Windows that verify or reconcile saw to differ, until one of them sees that they do not."""
    lost_windows: int = 0
    """Windows whose rows expired before they were shipped, until `bin/offload accept-loss`."""
    rows_before_start: int = 0
    rows_in_future: int = 0
    first_expiry_us: int | None = None
    """When the first row that may not be in the lake expires: one that the last look saw, or one that came since."""
    ttl_guard: str | None = None
    """Why the guard keeps the TTL merges of the source stopped."""
    notes: tuple[str, ...] = ()
    """What an operator should know of this table."""


@dataclass(frozen=True, slots=True)
class InLake:
    """What the Iceberg table says itself: rows of the current snapshot, and how far our commits reach (µs UTC)."""

    rows: int = 0
    snapshot_id: int | None = None
    watermark_us: int | None = None
    """None: nothing landed, or the commit marker is not ours to trust."""
    problem: str | None = None
    """Why the marker is not: what the next run will refuse."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All tables, and what could not be asked."""

    now_us: int | None
    tables: tuple[TableStatus, ...]
    problems: tuple[str, ...]


def overview(ctx: Context, specs: Sequence[TableSpec]) -> Overview:
    """The status of these tables. A witness that is away leaves gaps and a problem; all three away raise OFL-…."""
    away: list[OffloadError] = []
    problems: list[str] = []
    found = {s.identity: TableStatus(s.identity, "unknown") for s in specs}
    pipeline: uuid.UUID | None = None
    try:
        ledger = {str(r["table_name"]): r for r in ctx.ledger.watermark_rows()}
        seen = looks.all_remembered(ctx.ledger)
        pipeline = ctx.pipeline
        found = {
            s.identity: _remembered(_from_ledger(s.identity, ledger.get(s.identity)), seen.get(s.identity))
            for s in specs
        }
    except OffloadError as error:
        away.append(error)
    now_us: int | None = None
    with ThreadPoolExecutor(CATALOG_THREADS) as pool:
        lake: dict[str, Future[InLake]] = {}
        try:
            catalog = ctx.catalog
            lake = {s.identity: pool.submit(in_lake, catalog, s, pipeline) for s in specs}
        except OffloadError as error:
            away.append(error)
        try:
            with any_replica(ctx.settings, "offload status") as client:
                now_us = client.now_us()
                for spec in specs:
                    try:
                        reach = shipped_until(found[spec.identity], _answer(lake.get(spec.identity)))
                        found[spec.identity] = _from_source(client, spec, found[spec.identity], now_us, reach)
                    except OffloadError as error:
                        problems.append(str(error))
        except OffloadError as error:
            away.append(error)
        for identity, asked in lake.items():
            try:
                answer = asked.result()
            except OffloadError as error:
                problems.append(str(error))
            else:
                found[identity] = with_lake(found[identity], answer)
    if len(away) == WITNESSES:
        raise away[0]
    lines = dict.fromkeys([*(str(e) for e in away), *problems])
    return Overview(now_us, tuple(found[s.identity] for s in specs), tuple(lines))


def _from_ledger(identity: str, row: Mapping[str, Any] | None) -> TableStatus:
    if row is None:
        return TableStatus(identity, "new")
    state = {"initialized": "new", "success": "ok"}.get(str(row["status"]), str(row["status"]))
    notes: tuple[str, ...] = ()
    if row["retired_at"] is not None:
        state = RETIRED
        since = f"{row['retired_at'].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        notes = (f"retired since {since}: no run plans it; bin/offload retire {identity} --undo lets it go on",)
    return TableStatus(
        identity,
        state,
        notes=notes,
        watermark_us=_us(row["watermark"]),
        last_run_us=_us(row["updated_at"]),
        last_success_us=_us(row["last_successful_run"]),
        failures=int(row["failure_count"]),
        last_error=row["last_error"],
        generation=int(row["generation"]),
    )


def _remembered(known: TableStatus, past: Remembered | None) -> TableStatus:
    """With what the last look at the source found, what was found since, and what the TTL guard did."""
    if past is None:
        return known
    look, guard, found = past.look, past.guard, past.found
    notes = list(known.notes)
    if found.lost and found.lost_from_us is not None and found.lost_to_us is not None:
        least = f", {found.lost_rows} rows at least" if found.lost_rows else ""
        lo, hi = (f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}" for us in (found.lost_from_us, found.lost_to_us))
        notes.append(
            f"rows expired in ClickHouse before they were shipped, in up to {found.lost} windows from {lo} to"
            f" {hi}{least}; when that is known: bin/offload accept-loss {known.table}"
        )
    if found.differing:
        notes.append(f"{found.differing} windows differ, as verify or reconcile saw: bin/offload verify {known.table}")
    if look is not None:
        notes += [n for n in (late_note(look, known.table),) if n is not None]
        if look.rows_before_start:
            notes.append(f"{look.rows_before_start} rows lie before the table's start and are not offloaded")
        if look.rows_in_future:
            notes.append(f"{look.rows_in_future} rows lie in the future")
        known = replace(
            known,
            late_rows=look.late_rows,
            rows_before_start=look.rows_before_start,
            rows_in_future=look.rows_in_future,
            first_expiry_us=expires_us(look.first_expiry_us, known.watermark_us, look.ttl_us),
        )
    if guard is not None:
        how = (
            f"are stopped since {guard.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            if not guard.refused
            else "should be stopped"
        )
        failed = f"; last error: {guard.last_error}" if guard.last_error else ""
        notes.append(f"TTL merges {how}: {guard.reason}{failed}")
        known = replace(known, ttl_guard=guard.reason)
    return replace(known, notes=tuple(notes), differing=found.differing, lost_windows=found.lost)


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)


def _from_source(client: Client, spec: TableSpec, known: TableStatus, now_us: int, reach_us: int | None) -> TableStatus:
    """With what ClickHouse says. reach_us: settled rows before it are in Iceberg; None: none is known to be."""
    name = f"{quote(spec.source.database)}.{quote(spec.source.table)}{' FINAL' if spec.source.final else ''}"
    ((rows,),) = client.query(f"SELECT count() FROM {name}")
    until = Grid(spec.window_us).settled_until(now_us, spec.settle_us)
    cursor = quote(spec.cursor)
    since = reach_us if reach_us is not None else spec.start_us
    lower = f" AND {cursor} >= {instant_sql(since)}" if since is not None else ""
    ((unshipped,),) = client.query(f"SELECT count() FROM {name} WHERE {cursor} < {instant_sql(until)}{lower}")
    lag: float | None = None
    if reach_us is not None and known.state != RETIRED:
        lag = max(0, now_us - spec.settle_us - reach_us) / 1e6 if unshipped else 0.0
    limit = lag_limit_s(spec.window_us, own_s=spec.alerts.lag_s, schedule=spec.schedule)
    late = known.state == "ok" and lag is not None and lag > limit
    return replace(
        known,
        clickhouse_rows=int(rows),
        unshipped_rows=int(unshipped),
        lag_seconds=lag,
        state="late" if late else known.state,
    )


def in_lake(catalog: Catalog, spec: TableSpec, pipeline: uuid.UUID | None) -> InLake:
    """What the Iceberg table of a spec says. pipeline: who signs our commits; None: the ledger did not say."""
    table = find_table(catalog, (spec.target.namespace, spec.target.table), spec.identity)
    snapshot = None if table is None else table.current_snapshot()
    if table is None or snapshot is None:
        return InLake()
    total = 0
    with suppress(KeyError):
        total = int(snapshot.summary["total-records"] or 0) if snapshot.summary else 0
    seen = InLake(total, snapshot.snapshot_id)
    if pipeline is None:
        return seen
    try:
        marker = markers.read(table, spec.identity, pipeline)
    except OffloadError as error:
        return replace(seen, problem=f"{error.id} {error.kind.title}: {error.cause}. Next: {error.next_step}")
    return replace(seen, watermark_us=None if marker is None else marker.watermark_us)


def _answer(asked: Future[InLake] | None) -> InLake:
    """What the lake answered; nothing when it did not, which is said once, with the other problems."""
    return asked.result() if asked is not None and asked.exception() is None else InLake()


def shipped_until(known: TableStatus, lake: InLake) -> int | None:
    """Settled rows before it are in Iceberg (µs UTC): by the ledger, or by a commit that it does not know yet."""
    return max((us for us in (known.watermark_us, lake.watermark_us) if us is not None), default=None)


def with_lake(known: TableStatus, lake: InLake) -> TableStatus:
    """With what the Iceberg table says, and a note where the ledger is behind it."""
    known = replace(known, iceberg_rows=lake.rows, snapshot_id=lake.snapshot_id)
    reach = shipped_until(known, lake)
    if lake.problem is not None:
        return replace(known, notes=(*known.notes, lake.problem))
    if reach is None or reach == known.watermark_us:
        return known
    note = (
        f"landed, not confirmed: rows before {from_us(reach):%Y-%m-%dT%H:%M:%SZ} are in Iceberg; the watermark follows"
        " with update_watermark, or with the next run"
    )
    return replace(known, landed_us=reach, notes=(*known.notes, note))
