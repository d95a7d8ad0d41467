"""Faults of iceberg-offload-lag.md."""

from __future__ import annotations

import time

import psycopg

from local import k2
from local.runbooks import watch
from local.runbooks.exercise import Fault
from local.runbooks.faults.common import fault
from local.runbooks.faults.spikes import busiest_window, is_paused, pause, pour, rows_within, spec_again
from local.runbooks.proof import insist
from local.runbooks.stage import TABLE, Stage, write_spec

BOUND_ROWS = 2_500
"""Enough for the usual 1,800 rows a minute; less than one window of the spike."""
SPIKE_ROWS = 3_000
SPIKE_S = 300
SPIKE_BEHIND_S = 140
"""Seconds that the table is behind when its runs go on: above the limit of its lag, 120 s."""
BACKLOG_S = 120
"""One run of the catch-up ships the rows of so many seconds: a backlog that raises the alert takes several."""


@fault
def dag_paused(stage: Stage) -> Fault:
    """Somebody paused the DAG and forgot it."""
    return Fault(
        cause=lambda: pause(stage, True),
        proof=lambda: is_paused(stage),
        undo=lambda: pause(stage, False),
    )


@fault
def ledger_locked(stage: Stage) -> Fault:
    """Somebody looked at the ledger with a lock, in a transaction that is still open."""
    held: list[tuple[psycopg.Connection[tuple[object, ...]], int]] = []

    def cause() -> None:
        session = psycopg.connect(stage.secret("offload_ledger_uri"), application_name="psql")
        held.append((session, session.info.backend_pid))
        session.execute("SELECT * FROM offload.watermarks WHERE table_name = %s FOR UPDATE", (TABLE,))

    def proof() -> bool:
        if not held:
            return False
        with psycopg.connect(stage.secret("postgres_uri")) as db:
            row = db.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (held[0][1],)).fetchone()
        return row is not None and row[0] == "idle in transaction"

    def undo() -> None:
        for session, _ in held:
            # also after PostgreSQL ended it
            session.close()

    return Fault(cause, proof, undo)


@fault
def more_than_a_run_ships(stage: Stage) -> Fault:
    """The source sends ten times its usual rows, and the spec bounds a run to one window of them.

    Runs follow each other at once and nearly keep up with that, so they begin when the table is behind already.
    """

    def cause() -> None:
        write_spec(stage.tables, plan={"rows": BOUND_ROWS})
        pour(stage, "lag-spike", SPIKE_ROWS, SPIKE_S)
        pause(stage, True)
        watch.until(lambda: _behind_s(stage) > SPIKE_BEHIND_S, SPIKE_BEHIND_S + 60, "the table falls behind")
        pause(stage, False)

    def undo() -> None:
        pause(stage, False)
        spec_again(stage)

    return Fault(cause, lambda: busiest_window(stage) > stage.spec.plan.rows, undo)


def _behind_s(stage: Stage) -> float:
    """Seconds from the watermark to now; 0 for a table that was never offloaded."""
    head = stage.ctx.ledger.head(TABLE)
    return 0.0 if head is None or head.watermark_us is None else time.time() - head.watermark_us / 1e6


@fault
def backlog_of_several_runs(stage: Stage) -> Fault:
    """After an outage: the DAG is still paused, and more waits than one run may ship."""
    bounds: list[int] = []

    def cause() -> None:
        # of the usual rows: a spike that just ended must not count
        bounds.append(min(rows_within(stage, BACKLOG_S), int(k2.BATCH_ROWS / k2.BATCH_S * BACKLOG_S)))
        insist(bounds[0] > 0, "the source stands still: there will be no backlog")
        write_spec(stage.tables, plan={"rows": bounds[0]})
        pause(stage, True)

    def undo() -> None:
        pause(stage, False)
        spec_again(stage)

    return Fault(cause, lambda: is_paused(stage) and stage.spec.plan.rows == bounds[0], undo)
