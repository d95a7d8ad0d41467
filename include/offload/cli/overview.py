"""Where every table stands, asked of three witnesses: ClickHouse, Iceberg's metadata, the ledger."""

from __future__ import annotations

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
from include.offload.lake.catalog import find_table
from include.offload.ledger import looks
from include.offload.ledger.looks import Guarded, Look
from include.offload.limits import lag_limit_s
from include.offload.lookback import late_note
from include.offload.source.client import Client
from include.offload.source.sql import instant_sql, quote
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, to_us

CATALOG_THREADS = 8
WITNESSES = 3


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One line of `status`. Instants in µs UTC; None: that witness did not answer or does not know the table."""

    table: str
    state: str
    """`new`, `ok`, `late` (beyond its lag limit), `failed` (the last run failed), `unknown` (the ledger is away)."""
    clickhouse_rows: int | None = None
    iceberg_rows: int | None = None
    unshipped_rows: int | None = None
    """Settled rows at or behind the watermark."""
    watermark_us: int | None = None
    lag_seconds: float | None = None
    """now − settle − watermark by ClickHouse's clock; 0 when no settled row is unshipped."""
    last_run_us: int | None = None
    last_success_us: int | None = None
    failures: int = 0
    last_error: str | None = None
    generation: int | None = None
    snapshot_id: int | None = None
    late_rows: int = 0
    """Rows that came later than the horizon and are not in the lake, at the last survey."""
    rows_before_start: int = 0
    rows_in_future: int = 0
    first_expiry_us: int | None = None
    """When the first row that is not in the lake expires, at the last look."""
    ttl_guard: str | None = None
    """Why the guard keeps the TTL merges of the source stopped."""
    notes: tuple[str, ...] = ()
    """What an operator should know of this table."""


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
    try:
        ledger = {str(r["table_name"]): r for r in ctx.ledger.watermark_rows()}
        seen, stopped = looks.all_looks(ctx.ledger), looks.guarded(ctx.ledger)
        found = {
            s.identity: _remembered(
                _from_ledger(s.identity, ledger.get(s.identity)), seen.get(s.identity), stopped.get(s.identity)
            )
            for s in specs
        }
    except OffloadError as error:
        away.append(error)
    now_us: int | None = None
    with ThreadPoolExecutor(CATALOG_THREADS) as pool:
        lake: dict[str, Future[tuple[int, int | None]]] = {}
        try:
            catalog = ctx.catalog
            lake = {s.identity: pool.submit(_lake_rows, catalog, s) for s in specs}
        except OffloadError as error:
            away.append(error)
        try:
            with any_replica(ctx.settings, "offload status") as client:
                now_us = client.now_us()
                for spec in specs:
                    try:
                        found[spec.identity] = _from_source(client, spec, found[spec.identity], now_us)
                    except OffloadError as error:
                        problems.append(str(error))
        except OffloadError as error:
            away.append(error)
        for identity, asked in lake.items():
            try:
                rows, snapshot = asked.result()
            except OffloadError as error:
                problems.append(str(error))
            else:
                found[identity] = replace(found[identity], iceberg_rows=rows, snapshot_id=snapshot)
    if len(away) == WITNESSES:
        raise away[0]
    lines = dict.fromkeys([*(str(e) for e in away), *problems])
    return Overview(now_us, tuple(found[s.identity] for s in specs), tuple(lines))


def _from_ledger(identity: str, row: Mapping[str, Any] | None) -> TableStatus:
    if row is None:
        return TableStatus(identity, "new")
    state = {"initialized": "new", "success": "ok"}.get(str(row["status"]), str(row["status"]))
    return TableStatus(
        identity,
        state,
        watermark_us=_us(row["watermark"]),
        last_run_us=_us(row["updated_at"]),
        last_success_us=_us(row["last_successful_run"]),
        failures=int(row["failure_count"]),
        last_error=row["last_error"],
        generation=int(row["generation"]),
    )


def _remembered(known: TableStatus, look: Look | None, guard: Guarded | None) -> TableStatus:
    """With what the last look at the source found, and what the TTL guard did."""
    notes: list[str] = []
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
            first_expiry_us=look.first_expiry_us,
        )
    if guard is not None:
        how = (
            f"are stopped since {guard.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            if guard.applied_at
            else "should be stopped"
        )
        failed = f"; last error: {guard.last_error}" if guard.last_error else ""
        notes.append(f"TTL merges {how}: {guard.reason}{failed}")
        known = replace(known, ttl_guard=guard.reason)
    return replace(known, notes=tuple(notes))


def _us(moment: datetime | None) -> int | None:
    return None if moment is None else to_us(moment)


def _from_source(client: Client, spec: TableSpec, known: TableStatus, now_us: int) -> TableStatus:
    name = f"{quote(spec.source.database)}.{quote(spec.source.table)}{' FINAL' if spec.source.final else ''}"
    ((rows,),) = client.query(f"SELECT count() FROM {name}")
    until = Grid(spec.window_us).settled_until(now_us, spec.settle_us)
    cursor = quote(spec.cursor)
    since = known.watermark_us if known.watermark_us is not None else spec.start_us
    lower = f" AND {cursor} >= {instant_sql(since)}" if since is not None else ""
    ((unshipped,),) = client.query(f"SELECT count() FROM {name} WHERE {cursor} < {instant_sql(until)}{lower}")
    lag: float | None = None
    if known.watermark_us is not None:
        lag = max(0, now_us - spec.settle_us - known.watermark_us) / 1e6 if unshipped else 0.0
    late = known.state == "ok" and lag is not None and lag > lag_limit_s(spec.window_us, own_s=spec.alerts.lag_s)
    return replace(
        known,
        clickhouse_rows=int(rows),
        unshipped_rows=int(unshipped),
        lag_seconds=lag,
        state="late" if late else known.state,
    )


def _lake_rows(catalog: Catalog, spec: TableSpec) -> tuple[int, int | None]:
    """Rows that the current snapshot counts itself, and its id; 0 and None before the first commit."""
    table = find_table(catalog, (spec.target.namespace, spec.target.table), spec.identity)
    snapshot = None if table is None else table.current_snapshot()
    if snapshot is None:
        return 0, None
    total = 0
    with suppress(KeyError):
        total = int(snapshot.summary["total-records"] or 0) if snapshot.summary else 0
    return total, snapshot.snapshot_id
