"""Three days behind: a table catches up run by run, each begun by the one before; and Airflow's own backfill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.offload.airflow_rest import DagRun
from include.offload.windows import to_us
from tests.support.airflow_driver import TASKS, Driver, poll
from tests.support.tables import MakeTable

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

STEP_S = 360
"""A row every six minutes: 240 a day, ten in a window of an hour."""
BOUND = 200
"""Rows of a plan: 20 windows, so that 730 rows are four plans, wherever the first window begins."""
GREEN = dict.fromkeys(TASKS, "success")
SKIPPED = {**GREEN, "offload": "skipped"}


def settled(airflow: Driver, dag_id: str) -> list[DagRun]:
    """All runs of a DAG, oldest first, once none runs or waits."""

    def look() -> list[DagRun] | None:
        runs = airflow.runs(dag_id)
        return runs if all(r.state in {"success", "failed"} for r in runs) else None

    return sorted(poll(look, 420, f"{dag_id} goes on: {airflow.runs(dag_id)}"), key=lambda r: str(r.started))


def test_one_run_is_followed_at_once_until_the_table_has_caught_up(airflow: Driver, make_table: MakeTable) -> None:
    """Oldest first, in bounded plans, and no run more; clearing old runs begins no second chain."""
    table = make_table("behind").create().insert(730, hours_ago=74, step_s=STEP_S)
    table.write_spec(window="1h", more=f"plan: {{rows: {BOUND}}}\n")
    airflow.discover(table.dag_id)
    first = airflow.ask(table.dag_id)
    runs = settled(airflow, table.dag_id)
    assert [r.run_id for r in runs] == [first.run_id, *(f"catchup__{n}__{first.run_id}" for n in range(2, 5))]
    assert all(airflow.states(r) == GREEN for r in runs)
    plans = [airflow.plan(r) for r in runs]
    assert all(0 < p["rows"] <= BOUND for p in plans)
    assert all(a["to"] <= b["from"] for a, b in zip(plans, plans[1:], strict=False)), "the oldest first"
    assert table.watermark_us() >= table.settled_us() - table.spec.window_us, "a lag is left"
    assert [e.run_id for e in airflow.events(table.dag_id)] == [r.run_id for r in runs]
    table.whole()

    before = table.lake()
    # the first with a new plan, the second with the one that told it to go on
    airflow.clear_run(runs[0])
    assert airflow.green(runs[0]) == SKIPPED
    airflow.clear_only(runs[1], ["update_watermark"])
    assert airflow.green(runs[1]) == GREEN
    assert "went on before" in airflow.log(runs[1], "update_watermark")
    assert len(settled(airflow, table.dag_id)) == len(runs), "a second chain"
    assert table.lake() == before


def test_airflows_backfill_ships_exactly_its_intervals(airflow: Driver, make_table: MakeTable) -> None:
    """Its runs take turns though Airflow starts them side by side; a second backfill ships nothing."""
    now = datetime.now(UTC)
    # the next run on schedule is half a day away
    end = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=12)
    table = make_table("backfilled").create().write_spec(window="1h", schedule=f"0 {end.hour} * * *")
    airflow.discover(table.dag_id)
    (empty,) = poll(lambda: airflow.runs(table.dag_id), 90, "no scheduled run appeared")
    assert airflow.green(empty) == SKIPPED

    # the day before `end` had its run
    first, last = end - timedelta(days=4), end - timedelta(days=2)
    table.insert(1180, hours_ago=120, step_s=STEP_S)
    runs = airflow.backfilled(table.dag_id, airflow.backfill(table.dag_id, first, last, max_active_runs=3))
    assert [airflow.states(r) for r in runs] == [GREEN] * 3, [airflow.finished(r) for r in runs]
    asked = [(p["from"], p["to"]) for p in map(airflow.plan, runs)]
    days = [first + timedelta(days=n) for n in range(4)]
    assert asked == [
        (f"{a:%Y-%m-%dT%H:%M:%SZ}", f"{b:%Y-%m-%dT%H:%M:%SZ}") for a, b in zip(days, days[1:], strict=False)
    ]
    instants = table.ctx.catalog.load_table((table.spec.target.namespace, table.spec.target.table)).scan().to_arrow()
    us = [to_us(ts) for ts in instants["ts"].to_pylist()]
    assert len(us) == len(set(us)) == 3 * 240
    assert to_us(first) <= min(us) <= max(us) < to_us(days[-1])

    before = table.lake()
    again = airflow.backfill(table.dag_id, first, last, max_active_runs=3, reprocess_behavior="completed")
    runs = airflow.backfilled(table.dag_id, again)
    assert [airflow.states(r) for r in runs] == [SKIPPED] * 3
    assert table.lake() == before
    assert len(settled(airflow, table.dag_id)) == 4, "a run more than asked for"

    assert airflow.green(airflow.ask(table.dag_id)) == GREEN
    table.whole()
