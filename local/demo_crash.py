"""`make demo-crash`: one job dies after its Iceberg commit, another before it; Airflow runs them again; nothing is
lost or doubled. The jobs kill themselves with SIGKILL at a named point (`include/offload/crashpoint.py`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from include.offload.airflow_rest import AirflowRest, DagRun
from include.offload.cli.common import any_replica
from include.offload.cli.console import number
from include.offload.cli.overview import TableStatus, overview
from include.offload.context import Context
from include.offload.source.sql import instant_sql, quote
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid
from local import k2
from local.demo_once import DemoError, Goal, verify_all
from local.steplist import StepList

CRASHES = {"k2.bronze_trades_binance": "after-commit", "k2.bronze_trades_kraken": "before-commit"}
LATE_ROWS = 5_000
KILL_LIMIT_S = 120.0
RECOVER_LIMIT_S = 240.0
"""A retry waits 30 s; a busy machine may need more for Spark."""
POLL_S = 0.5
HOURS_BACK_US = 6 * 3_600_000_000
COPIED_FROM = 10**12
"""Sequence numbers from here on are copies that this demo made."""


@dataclass
class Crash:
    """One of the two jobs, and what was counted around its death."""

    spec: TableSpec
    point: str
    run: DagRun | None = None
    before: TableStatus | None = None
    killed: TableStatus | None = None
    after: TableStatus | None = None
    tries: int = 0


def crash_demo(
    ctx: Context, specs: Sequence[TableSpec], airflow: AirflowRest, crash_dir: Path, steps: StepList
) -> None:
    """Runs the two crashes and prints the counts. Raises DemoError when a row is missing or doubled."""
    by_name = {s.identity: s for s in specs}
    crashes = [Crash(by_name[name], point) for name, point in CRASHES.items()]
    paused = airflow.dags()
    with steps.step("quiet: the other DAGs paused"):
        for dag_id in (s.dag_id for s in specs):
            airflow.pause(dag_id, dag_id not in {c.spec.dag_id for c in crashes})
        crash_dir.mkdir(parents=True, exist_ok=True)
        _wait_idle(airflow, {c.spec.dag_id for c in crashes})
    try:
        for crash in crashes:
            with steps.step(f"{crash.spec.identity}: {number(LATE_ROWS)} late rows into ClickHouse") as step:
                goal = _add_late_rows(ctx, crash.spec)
                crash.before = _count(ctx, crash.spec)
                step.say(
                    f"ClickHouse {number(crash.before.clickhouse_rows)}, Iceberg {number(crash.before.iceberg_rows)}"
                )
            with steps.step(f"{crash.spec.identity}: job killed {crash.point.replace('-', ' its ')}") as step:
                _kill(crash, airflow, crash_dir)
                crash.killed = _count(ctx, crash.spec)
                step.say(f"Iceberg {number(crash.killed.iceberg_rows)}, ledger at generation {crash.killed.generation}")
        for crash in crashes:
            with steps.step(f"{crash.spec.identity}: recovered by Airflow") as step:
                _recover(crash, airflow)
                crash.after = _count(ctx, crash.spec)
                step.say(f"try {crash.tries}, Iceberg {number(crash.after.iceberg_rows)}")
        with steps.step("verified by both readers"):
            reports = verify_all(ctx, [Goal(c.spec, goal) for c in crashes], steps.console)
    finally:
        for crash in crashes:
            (crash_dir / crash.point).unlink(missing_ok=True)
        for spec in specs:
            airflow.pause(spec.dag_id, paused.get(spec.dag_id, True))
    steps.console.print(_table(crashes))
    steps.console.print(
        f"{sum(r.source_rows for r in reports)} rows equal by both readers: none lost, none doubled", style="green"
    )


def _wait_idle(airflow: AirflowRest, mine: set[str]) -> None:
    """Waits until no task runs, and the DAGs of this demo have ended what was left of earlier runs."""
    end = time.monotonic() + RECOVER_LIMIT_S
    while busy := airflow.busy() | {d for d, s in airflow.states().items() if d in mine and s in {"running", "queued"}}:
        if time.monotonic() > end:
            raise DemoError(f"these DAGs do not come to rest: {', '.join(sorted(busy))}")
        time.sleep(POLL_S)


def _add_late_rows(ctx: Context, spec: TableSpec) -> int:
    """Copies rows of the last settled hours under new sequence numbers. Returns the settled time, µs UTC."""
    name, cursor = f"{quote(spec.source.database)}.{quote(spec.source.table)}", quote(spec.cursor)
    sequence = quote(spec.sequence or "")
    with any_replica(ctx.settings, "offload demo-crash") as client:
        settled = Grid(spec.window_us).settled_until(client.now_us(), spec.settle_us)
        hours = f"{cursor} >= {instant_sql(settled - HOURS_BACK_US)} AND {cursor} < {instant_sql(settled)}"
        # numbers of this very moment, far above the trades' own: a second demo-crash makes no row twice
        fresh = COPIED_FROM + time.time_ns() // 1_000_000 * 100_000
    # the offload's own user may only read
    with closing(k2.client()) as writer:
        writer.command(
            # a subquery: ClickHouse would take the replaced number for the one in WHERE
            f"INSERT INTO {name} SELECT * REPLACE ({sequence} % 100000 + {fresh} AS {sequence}) FROM"
            f" (SELECT * FROM {name} WHERE {hours} AND {sequence} < {COPIED_FROM} ORDER BY {cursor} LIMIT {LATE_ROWS})"
        )
        ((added,),) = writer.query(f"SELECT count() FROM {name} WHERE {sequence} >= {fresh}").result_rows
    if added != LATE_ROWS:
        raise DemoError(f"{added} late rows came into {spec.identity} instead of {LATE_ROWS}")
    return settled


def _count(ctx: Context, spec: TableSpec) -> TableStatus:
    seen = overview(ctx, [spec])
    if seen.problems:
        raise DemoError("; ".join(seen.problems))
    return seen.tables[0]


def _kill(crash: Crash, airflow: AirflowRest, crash_dir: Path) -> None:
    """Arms the crash point, starts the run, and waits until the job has taken the file and died."""
    armed = crash_dir / crash.point
    armed.touch()
    crash.run = airflow.trigger(crash.spec.dag_id)
    end = time.monotonic() + KILL_LIMIT_S
    while armed.exists():
        state = airflow.run(crash.run).state
        if state in {"success", "failed"}:
            raise DemoError(f"the run of {crash.spec.identity} ended as {state} and never came to {crash.point}")
        if time.monotonic() > end:
            raise DemoError(f"the job of {crash.spec.identity} did not come to {crash.point} in {KILL_LIMIT_S:.0f} s")
        time.sleep(POLL_S)


def _recover(crash: Crash, airflow: AirflowRest) -> None:
    assert crash.run is not None  # noqa: S101 - armed before
    end = time.monotonic() + RECOVER_LIMIT_S
    while (state := airflow.run(crash.run).state) != "success":
        if state == "failed" or time.monotonic() > end:
            raise DemoError(f"the run of {crash.spec.identity} did not recover, it is {state}")
        time.sleep(POLL_S)
    crash.tries = airflow.tasks(crash.run)["offload"][1]


def _table(crashes: Sequence[Crash]) -> Table:
    shown = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("table", "killed", "ClickHouse", "Iceberg before", "when killed", "after", "watermark moved by try"):
        shown.add_column(name, justify="left" if name in {"table", "killed"} else "right")
    for c in crashes:
        assert c.before and c.killed and c.after  # noqa: S101 - filled above
        shown.add_row(
            c.spec.identity,
            c.point.replace("-", " the "),
            number(c.after.clickhouse_rows),
            number(c.before.iceberg_rows),
            number(c.killed.iceberg_rows),
            number(c.after.iceberg_rows),
            str(c.tries),
        )
    return shown
