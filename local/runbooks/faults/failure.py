"""Faults of iceberg-offload-failure.md."""

from __future__ import annotations

import socket
import time

import psutil
import psycopg

from local.ports import HOST, port
from local.runbooks.exercise import Fault
from local.runbooks.faults.common import fault, frozen, pid_of, stopped
from local.runbooks.proof import insist
from local.runbooks.stage import TABLE, Stage

TOO_LITTLE = 1_200_000_000
"""Bytes of address space: a Python task has enough, a JVM does not."""
WRONG_LINE = "setle: 5m\n"
NEVER = 1
"""A snapshot that is in no Iceberg table."""
QUIET_S = 150.0
GONE_S = 60.0


@fault
def airflow_half_stopped(stage: Stage) -> Fault:
    """An upgrade that was broken off: scheduler and DAG processor were stopped and not started again."""
    return stopped(stage, "airflow-scheduler", "airflow-dag-processor")


@fault
def clickhouse_stopped(stage: Stage) -> Fault:
    """ClickHouse is gone: its port refuses."""
    return Fault(
        lambda: gone(stage, "clickhouse", "CLICKHOUSE"),
        lambda: not listens("CLICKHOUSE"),
        lambda: came_back(stage, "clickhouse"),
    )


@fault
def clickhouse_hung(stage: Stage) -> Fault:
    """ClickHouse accepts connections and answers nobody."""
    hung = frozen(stage, "clickhouse")

    def undo() -> None:
        hung.undo()
        came_back(stage, "clickhouse")

    return Fault(hung.cause, hung.proof, undo)


@fault
def store_stopped(stage: Stage) -> Fault:
    """SeaweedFS is gone, and with it the Iceberg catalog and the object store."""
    return Fault(
        lambda: gone(stage, "seaweedfs", "ICEBERG", "S3"),
        lambda: not listens("ICEBERG") and not listens("S3"),
        lambda: stage.stack.start(["seaweedfs"]),
    )


@fault
def memory_limited(stage: Stage) -> Fault:
    """The scheduler was started by something that limits memory: no Spark job's JVM gets its heap."""

    def limited() -> bool:
        pid = pid_of(stage, "airflow-scheduler")
        return pid is not None and psutil.Process(pid).rlimit(psutil.RLIMIT_AS)[1] == TOO_LITTLE

    def cause() -> None:
        pid = pid_of(stage, "airflow-scheduler")
        insist(pid is not None, "the scheduler does not run")
        scheduler = psutil.Process(pid)
        for one in (scheduler, *scheduler.children(recursive=True)):
            # what a task starts inherits the limit of the worker that it runs in
            one.rlimit(psutil.RLIMIT_AS, (TOO_LITTLE, TOO_LITTLE))

    def undo() -> None:
        if limited():
            stage.stack.stop(["airflow-scheduler"])
        stage.stack.start(["airflow-scheduler"])

    return Fault(cause, limited, undo)


@fault
def ledger_row_damaged(stage: Stage) -> Fault:
    """A row of the ledger names a snapshot that never was, as after a restore of one table by hand."""
    true: list[int] = []

    def snapshot() -> int:
        with psycopg.connect(stage.secret("offload_ledger_uri")) as db:
            return _snapshot(db)

    def cause() -> None:
        end = time.monotonic() + QUIET_S
        while not true:
            insist(time.monotonic() < end, f"within {QUIET_S:.0f} s there was always a plan under way")
            with psycopg.connect(stage.secret("offload_ledger_uri")) as db:
                found = _snapshot(db)
                # a plan that is under way would write the row again when it lands
                if not plans_under_way(db):
                    _set_snapshot(db, NEVER)
                    true.append(found)
            time.sleep(0.2)

    def undo() -> None:
        with psycopg.connect(stage.secret("offload_ledger_uri")) as db:
            if true and _snapshot(db) == NEVER:
                _set_snapshot(db, true[0])

    return Fault(cause, lambda: snapshot() == NEVER, undo)


def _snapshot(db: psycopg.Connection[tuple[object, ...]]) -> int:
    row = db.execute("SELECT snapshot_id FROM offload.watermarks WHERE table_name = %s FOR UPDATE", [TABLE]).fetchone()
    insist(row is not None and row[0] is not None, f"the ledger holds no snapshot of {TABLE}")
    return int(str((row or (NEVER,))[0]))


def plans_under_way(db: psycopg.Connection[tuple[object, ...]]) -> bool:
    sql = (
        "SELECT 1 FROM offload.plans JOIN offload.tables USING (table_id)"
        " WHERE identity = %s AND status = 'open' LIMIT 1"
    )
    return db.execute(sql, [TABLE]).fetchone() is not None


def _set_snapshot(db: psycopg.Connection[tuple[object, ...]], snapshot_id: int) -> None:
    db.execute("UPDATE offload.watermarks SET snapshot_id = %s WHERE table_name = %s", [snapshot_id, TABLE])


@fault
def spec_misspelt(stage: Stage) -> Fault:
    """A field with a letter missing in the table's spec."""
    file = stage.spec_file

    def cause() -> None:
        with file.open("a", encoding="utf-8") as text:
            text.write(WRONG_LINE)

    def undo() -> None:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if line != WRONG_LINE), encoding="utf-8")

    return Fault(cause, lambda: WRONG_LINE in file.read_text(encoding="utf-8"), undo)


def listens(name: str) -> bool:
    """Whether somebody accepts connections on this port of the stack."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((HOST, port(name))) == 0


def gone(stage: Stage, service: str, *ports: str) -> None:
    """Stop a server; return when nobody listens at its ports any more. Raises UnprovenError."""
    stage.stack.supervisor.stop(service)
    end = time.monotonic() + GONE_S
    while any(listens(name) for name in ports):
        insist(time.monotonic() < end, f"{service} does not let go of its ports within {GONE_S:.0f} s")
        time.sleep(0.1)


def came_back(stage: Stage, service: str) -> None:
    """Start a server, and the trickle of rows, which gives up when ClickHouse is away for long."""
    stage.stack.start([service])
    stage.stack.start(["k2-trickle"])
