"""Faults of iceberg-offload-watermark-recovery.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from include.offload import recovery
from include.offload.ledger import backup
from local.runbooks.exercise import Fault
from local.runbooks.faults.common import fault, stopped
from local.runbooks.faults.failure import QUIET_S, plans_under_way
from local.runbooks.proof import insist
from local.runbooks.stage import TABLE, Stage

POOL = "offload_spark"


@contextmanager
def ledger(stage: Stage) -> Iterator[psycopg.Connection[Any]]:
    """The ledger's database, as its owner; each statement is its own transaction."""
    with psycopg.connect(stage.secret("offload_ledger_uri"), autocommit=True, connect_timeout=5) as connection:
        yield connection


@contextmanager
def airflow_database(stage: Stage) -> Iterator[psycopg.Connection[Any]]:
    """Airflow's own database, as PostgreSQL's superuser."""
    uri = f"{stage.secret('postgres_uri').rpartition('/')[0]}/airflow"
    with psycopg.connect(uri, autocommit=True, connect_timeout=5) as connection:
        yield connection


@fault
def airflow_not_back_after_maintenance(stage: Stage) -> Fault:
    """All of Airflow was stopped for some work, its API server too, and nobody started it again."""
    return stopped(stage, "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-api-server")


@fault
def ledger_unreachable(stage: Stage) -> Fault:
    """PostgreSQL is gone, and with it the ledger and Airflow's own database."""
    gone = stopped(stage, "postgres")

    def undo() -> None:
        stage.stack.start(["postgres", "airflow"])

    def proof() -> bool:
        try:
            with ledger(stage) as db:
                db.execute("SELECT 1")
        except psycopg.OperationalError:
            return gone.proof()
        return False

    return Fault(gone.cause, proof, undo)


@fault
def watermark_table_dropped(stage: Stage) -> Fault:
    """Somebody dropped offload.watermarks; the rest of the ledger is there, and says it is of the right revision."""

    def cause() -> None:
        with ledger(stage) as db:
            db.execute("DROP TABLE offload.watermarks CASCADE")

    def proof() -> bool:
        with ledger(stage) as db:
            return bool(_one(db, "SELECT to_regclass('offload.watermarks') IS NULL"))

    def undo() -> None:
        if proof():
            backup.recreate(stage.secret("offload_ledger_uri"))
            recovery.rebuild(stage.ctx, stage.spec)

    return Fault(cause, proof, undo)


@fault
def watermark_overwritten(stage: Stage) -> Fault:
    """A watermark was "mended" by hand: its row names a plan that never was."""

    def cause() -> None:
        end = time.monotonic() + QUIET_S
        with ledger(stage) as db:
            # a plan that is under way would land on the row, and the refusal would be another one
            while plans_under_way(db):
                insist(time.monotonic() < end, f"within {QUIET_S:.0f} s there was always a plan under way")
                time.sleep(0.2)
            db.execute(
                "UPDATE offload.watermarks SET plan_id = gen_random_uuid(), generation = generation + 7"
                " WHERE table_name = %s",
                (TABLE,),
            )

    def proof() -> bool:
        with ledger(stage) as db:
            known = _one(
                db,
                "SELECT EXISTS (SELECT FROM offload.plans p JOIN offload.watermarks w USING (plan_id)"
                f" WHERE w.table_name = '{TABLE}')",
            )
        return not known

    def undo() -> None:
        if proof():
            recovery.rebuild(stage.ctx, stage.spec)

    return Fault(cause, proof, undo)


@fault
def pool_without_slots(stage: Stage) -> Fault:
    """The pool of the Spark jobs has no slot: every task waits, nothing fails, and every server is well."""
    had: list[int] = []

    def cause() -> None:
        with airflow_database(stage) as db:
            had.append(_one(db, f"SELECT slots FROM slot_pool WHERE pool = '{POOL}'"))
            db.execute("UPDATE slot_pool SET slots = 0 WHERE pool = %s", (POOL,))

    def proof() -> bool:
        with airflow_database(stage) as db:
            return bool(_one(db, f"SELECT slots = 0 FROM slot_pool WHERE pool = '{POOL}'"))

    def undo() -> None:
        # the page gives it one slot, which is right for a machine of two cores; the stage had its own number
        if had:
            with airflow_database(stage) as db:
                db.execute("UPDATE slot_pool SET slots = %s WHERE pool = %s", (*had, POOL))

    return Fault(cause, proof, undo)


def _one(db: psycopg.Connection[Any], query: str) -> Any:
    row = db.execute(query).fetchone()
    assert row is not None  # noqa: S101 - every query here has one row
    return row[0]
