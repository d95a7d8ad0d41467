"""Faults of iceberg-offload-data-at-risk.md."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from include.offload import recovery
from include.offload.accepting import schema_accept
from include.offload.verify import verify
from include.offload.windows import from_us
from local import k2
from local.paths import ROOT
from local.runbooks import watch
from local.runbooks.exercise import Fault
from local.runbooks.faults.common import fault, stopped
from local.runbooks.faults.watermark import ledger
from local.runbooks.proof import insist
from local.runbooks.stage import DAG, TABLE, Stage, write_spec

SHORT_TTL_MINUTES = 362
"""A little more than the 6 hours of the alert: shipped every minute no row comes near it, unshipped ones soon do."""
OLD_H = 20
"""Hours ago: shipped long since, and far beyond the stage's horizon of 2 hours."""
STOOD_STILL = timedelta(minutes=2)
BACK = timedelta(minutes=6)
FEW_ROWS = 4_000
"""About two minutes of the trickle: two or three more runs make good `BACK`, the first one reports from before."""
IDLE_S = 200.0
LATE_ROWS = 5
SHIPPED_S = 180.0
"""Two runs and more."""


def clickhouse(stage: Stage, statement: str) -> list[tuple[Any, ...]]:
    """A statement as ClickHouse's administrator; its rows."""
    db = k2.client(stage.stack.home)
    try:
        if statement.lstrip().upper().startswith("SELECT"):
            return [tuple(row) for row in db.query(statement).result_rows]
        db.command(statement)
        return []
    finally:
        db.close()


def lake(stage: Stage) -> Table:
    target = stage.spec.target
    return stage.ctx.catalog.load_table((target.namespace, target.table))


@fault
def shipping_stopped_before_the_ttl(stage: Stage) -> Fault:
    """New rows live 6 hours and 2 minutes, and the DAG was paused: the oldest unshipped row comes nearer to its end."""
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    whole = "toDateTime(timestamp) + INTERVAL 30 DAY"
    # the rows of the history keep their 30 days: to lose them is another fault. Not as `DELETE WHERE`, whose condition
    # is taken for true: windows that may be expiring are not compared any more, and other scenarios need them
    short = (
        f"toDateTime(timestamp) + if(timestamp > toDateTime('{since}', 'UTC'), {SHORT_TTL_MINUTES * 60}, {30 * 86_400})"
    )
    changes = f"ALTER TABLE {TABLE} MODIFY TTL {{}} SETTINGS materialize_ttl_after_modify = 0"

    def cause() -> None:
        clickhouse(stage, changes.format(short))
        _next_run(stage)
        stage.pause_between_runs()

    def proof() -> bool:
        return stage.airflow.dags()[DAG] or _behind(stage) > STOOD_STILL

    def undo() -> None:
        clickhouse(stage, changes.format(whole))
        stage.airflow.pause(DAG, False)

    return Fault(cause, proof, undo)


@fault
def row_changed_after_the_horizon(stage: Stage) -> Fault:
    """Somebody corrected a price in ClickHouse that was shipped yesterday; the nightly verify saw it."""
    chosen: list[tuple[str, Any]] = []

    def cause() -> None:
        ((message, price),) = clickhouse(
            stage,
            f"SELECT toString(message_id), price FROM {TABLE} WHERE timestamp < now() - INTERVAL {OLD_H} HOUR"
            " ORDER BY timestamp DESC LIMIT 1",
        )
        chosen.append((message, price))
        clickhouse(
            stage,
            f"ALTER TABLE {TABLE} UPDATE price = price + 1 WHERE message_id = '{message}' SETTINGS mutations_sync = 2",
        )
        verify(stage.ctx, stage.spec)

    def proof() -> bool:
        ((message, _),) = chosen
        ((there,),) = clickhouse(stage, f"SELECT price FROM {TABLE} WHERE message_id = '{message}'")
        (row,) = lake(stage).scan(f"message_id = '{message}'", selected_fields=("price",)).to_arrow().to_pylist()
        return bool(row["price"] != there)

    def undo() -> None:
        if proof():
            ((message, _),) = chosen
            back = f"UPDATE price = price - 1 WHERE message_id = '{message}' SETTINGS mutations_sync = 2"
            clickhouse(stage, f"ALTER TABLE {TABLE} {back}")
            verify(stage.ctx, stage.spec)

    return Fault(cause, proof, undo)


@fault
def rows_after_the_horizon(stage: Stage) -> Fault:
    """A feed delivered yesterday's trades once more time, hours after their windows were shipped."""
    sent: list[str] = []

    def cause() -> None:
        name = f"late-{time.time_ns()}"
        sent.append(name)
        clickhouse(
            stage,
            f"INSERT INTO {TABLE} SELECT * REPLACE (generateUUIDv4() AS message_id, '{name}' AS trade_id)"
            f" FROM {TABLE} WHERE timestamp < now() - INTERVAL {OLD_H} HOUR ORDER BY timestamp DESC LIMIT {LATE_ROWS}",
        )
        _count_again(stage)

    def proof() -> bool:
        found = lake(stage).scan(f"trade_id = '{sent[-1]}'", selected_fields=("trade_id",)).to_arrow().num_rows
        ((there,),) = clickhouse(stage, f"SELECT count() FROM {TABLE} WHERE trade_id = '{sent[-1]}'")
        return bool(there == LATE_ROWS and found < LATE_ROWS)

    def undo() -> None:
        if proof():
            gone = f"DELETE WHERE trade_id = '{sent[-1]}' SETTINGS mutations_sync = 2"
            clickhouse(stage, f"ALTER TABLE {TABLE} {gone}")
            _count_again(stage)

    return Fault(cause, proof, undo)


@fault
def column_dropped(stage: Stage) -> Fault:
    """A release dropped a column of the ClickHouse table that is offloaded.

    It is one that came with an earlier release, so that views of the table and other scenarios never knew it.
    """
    column = f"desk_{time.time_ns()}"
    last: list[int | None] = []

    def gone() -> bool:
        rows = clickhouse(stage, "SELECT name FROM system.columns WHERE database = 'k2' AND table = 'silver_trades'")
        return (column,) not in rows

    def cause() -> None:
        clickhouse(stage, f"ALTER TABLE {TABLE} ADD COLUMN {column} String DEFAULT 'spot' SETTINGS alter_sync = 2")
        watch.until(
            lambda: any(field.name == column for field in lake(stage).schema().fields),
            SHIPPED_S,
            f"Iceberg with the column {column}",
            every_s=1,
        )
        # a run that read while the column came was refused (OFL-212): its alert is to be over before the fault
        stage.settle()
        watch.until(
            lambda: not watch.fires("IcebergOffloadConsecutiveFailures"), SHIPPED_S, "an end of the refused run's alert"
        )
        clickhouse(stage, f"ALTER TABLE {TABLE} DROP COLUMN {column} SETTINGS alter_sync = 2")
        last.append(lake(stage).metadata.current_snapshot_id)

    def proof() -> bool:
        """Whether nothing has been committed since; a column that is accepted as gone stays in the lake."""
        return gone() and lake(stage).metadata.current_snapshot_id in last

    def undo() -> None:
        if not gone():
            clickhouse(stage, f"ALTER TABLE {TABLE} DROP COLUMN {column} SETTINGS alter_sync = 2")
        if proof():
            schema_accept(stage.ctx, stage.spec)

    return Fault(cause, proof, undo)


@fault
def rolled_back_and_paused(stage: Stage) -> Fault:
    """Somebody rolled the Iceberg table back, rebuilt its ledger, let one run of few rows go, and left it paused.

    One run, since the watermark's metric comes from a run. With the DAG active the next ones would make it good.
    """
    before: list[int] = []

    def cause() -> None:
        back_us = BACK // timedelta(microseconds=1)
        # a stage that is new has not shipped so much
        watch.until(
            lambda: _oldest_us(stage) <= _watermark_us(stage) - back_us, BACK.total_seconds() + 180, "as much of a past"
        )
        # rows of hours ago that were healed and are rolled back stay away: the alert on them would be right
        watch.until(
            lambda: not _healed_since(stage, _watermark_us(stage) - back_us),
            BACK.total_seconds() + 180,
            "a past in which nothing old was healed",
        )
        stage.pause_between_runs()
        before.append(_watermark_us(stage))
        write_spec(stage.tables, plan={"rows": FEW_ROWS})
        _roll_back(stage, before[-1] - back_us)
        recovery.rebuild(stage.ctx, stage.spec)
        done = subprocess.run(
            [str(ROOT / "bin" / "offload"), "run", TABLE], capture_output=True, text=True, timeout=IDLE_S, check=False
        )
        insist(done.returncode == 0, done.stderr)

    def proof() -> bool:
        found = stage.ctx.ledger.head(TABLE)
        return found is None or found.watermark_us is None or found.watermark_us < before[0]

    def undo() -> None:
        write_spec(stage.tables)
        stage.airflow.pause(DAG, False)

    return Fault(cause, proof, undo)


@fault
def alertmanager_stopped(stage: Stage) -> Fault:
    """Alerts fire in Prometheus and reach nobody."""
    return stopped(stage, "alertmanager")


@fault
def source_made_again(stage: Stage) -> Fault:
    """Somebody made the ClickHouse table anew, with all of its rows, and put it into the place of the old one."""
    was: list[str] = []
    uuid_of = "SELECT toString(uuid) FROM system.tables WHERE database = 'k2' AND name = 'silver_trades'"

    def cause() -> None:
        ((old,),) = clickhouse(stage, uuid_of)
        was.append(old)
        stage.stack.supervisor.stop("k2-trickle")
        copy = f"{TABLE}_new"
        clickhouse(stage, f"DROP TABLE IF EXISTS {copy} SYNC")
        clickhouse(stage, f"CREATE TABLE {copy} AS {TABLE}")
        clickhouse(stage, f"INSERT INTO {copy} SELECT * FROM {TABLE}")
        clickhouse(stage, f"EXCHANGE TABLES {TABLE} AND {copy}")
        clickhouse(stage, f"DROP TABLE {copy} SYNC")
        stage.stack.start(["k2-trickle"])

    def proof() -> bool:
        with ledger(stage) as db:
            known = db.execute("SELECT source_identity FROM offload.tables WHERE identity = %s", (TABLE,)).fetchone()
        ((now,),) = clickhouse(stage, uuid_of)
        return known is not None and now != was[-1] and now not in str(known[0])

    def undo() -> None:
        stage.stack.start(["k2-trickle"])
        if proof():
            recovery.accept_source(stage.ctx, stage.spec)

    return Fault(cause, proof, undo)


@fault
def rows_deleted_in_the_lake(stage: Stage) -> Fault:
    """Somebody deleted an hour of rows from the Iceberg table."""
    hour = timedelta(hours=1)
    missing: list[tuple[str, str]] = []

    def cause() -> None:
        until = datetime.now(UTC) - timedelta(hours=OLD_H)
        span = ((until - hour).isoformat(), until.isoformat())
        missing.append(span)
        lake(stage).delete(_within(span))

    def proof() -> bool:
        found = lake(stage).scan(_within(missing[-1]), selected_fields=("timestamp",)).to_arrow().num_rows
        lo, hi = (datetime.fromisoformat(one).timestamp() for one in missing[-1])
        ((there,),) = clickhouse(stage, f"SELECT count() FROM {TABLE} WHERE timestamp >= {lo} AND timestamp < {hi}")
        return bool(found < there)

    def undo() -> None:
        if proof():
            recovery.rebuild(stage.ctx, stage.spec)

    return Fault(cause, proof, undo)


def _within(span: tuple[str, str]) -> str:
    return f"timestamp >= '{span[0]}' and timestamp < '{span[1]}'"


def _main(table: Table) -> Iterator[Snapshot]:
    """The snapshots of main, the newest first."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.snapshot_by_id(parent)


def _marked_us(snapshot: Snapshot) -> int | None:
    """Its watermark, µs UTC; None for another writer's."""
    told = snapshot.summary.additional_properties.get("offload.watermark") if snapshot.summary else ""
    return int(told) if told else None


def _past(table: Table) -> Iterator[tuple[int, int]]:
    """Snapshots of main and their watermarks (µs UTC), the newest first; those without a watermark are left out."""
    for snapshot in _main(table):
        if (us := _marked_us(snapshot)) is not None:
            yield snapshot.snapshot_id, us


def _healed_since(stage: Stage, since_us: int) -> bool:
    """Whether a newer snapshot than the one of a watermark (µs UTC) did more than append to the newest windows."""
    newer = list(takewhile(lambda s: (_marked_us(s) or since_us + 1) > since_us, _main(lake(stage))))
    marked = [us for one in newer if (us := _marked_us(one)) is not None]
    replaced = any(one.summary is not None and one.summary.operation is not Operation.APPEND for one in newer)
    return replaced or any(one == earlier for one, earlier in pairwise(marked))


def _oldest_us(stage: Stage) -> int:
    return min(watermark for _, watermark in _past(lake(stage)))


def _watermark_us(stage: Stage) -> int:
    head = stage.ctx.ledger.head(TABLE)
    insist(head is not None and head.watermark_us is not None, "the table has no watermark")
    return int(head.watermark_us)  # type: ignore[union-attr, arg-type]


def _roll_back(stage: Stage, to_us: int) -> None:
    """Main at the newest snapshot whose watermark is not after an instant (µs UTC)."""
    table = lake(stage)
    found = next(snapshot for snapshot, watermark in _past(table) if watermark <= to_us)
    table.manage_snapshots().rollback_to_snapshot(found).commit()


def _count_again(stage: Stage) -> None:
    """The hour until the next count of old windows is over."""
    with ledger(stage) as db:
        db.execute("UPDATE offload.looks SET document = jsonb_set(document, '{surveyed_us}', '0')")


def _behind(stage: Stage) -> timedelta:
    return datetime.now(UTC) - from_us(_watermark_us(stage))


def _next_run(stage: Stage, limit_s: float = 300.0) -> None:
    """Waits until one more run that began after now has moved the watermark."""
    began = datetime.now(UTC)
    watch.until(
        lambda: any(
            r.state == "success" and r.started and datetime.fromisoformat(r.started) > began
            for r in stage.airflow.runs(DAG, 5)
        ),
        limit_s,
        "a run that begins and ends well",
    )
