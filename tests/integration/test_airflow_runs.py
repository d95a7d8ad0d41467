"""The main path through a real Airflow: schedule, clear, range, nothing to do, late rows. Then both verifiers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.offload.windows import from_us
from tests.support.airflow_driver import TASKS, Driver, poll
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(1500)
GREEN = dict.fromkeys(TASKS, "success")
SKIPPED = {**GREEN, "offload": "skipped"}


def test_the_schedule_runs_three_green_tasks(airflow: Driver, make_table: MakeTable) -> None:
    """Unpausing starts the last whole interval by itself; its data interval has the schedule's width."""
    table = make_table("scheduled").create().insert(900).write_spec(schedule="0 * * * *")
    airflow.discover(table.dag_id)
    run = poll(lambda: next(iter(airflow.runs(table.dag_id)), None), 90, "no scheduled run appeared")
    assert airflow.green(run) == GREEN
    assert run.run_id.startswith("scheduled__")
    told = airflow.details(run)
    assert told["run_type"] == "scheduled"
    assert airflow.interval(run) == timedelta(hours=1)
    table.whole()
    (event,) = airflow.events(table.dag_id)
    assert event.asset == f"lake.{table.identity}"
    assert event.run_id == run.run_id
    lake = table.lake()
    assert airflow.xcom(run, "offload", "return_value")["application_id"] is None, "few rows need no Spark application"
    assert event.extra["rows"] == 900
    assert event.extra["plan"] == airflow.plan(run)["plan_id"]
    assert event.extra["snapshot_id"] == str(lake.snapshots[-1])
    assert event.extra["windows"] > 0
    assert event.extra["watermark"].endswith("Z")


def test_clearing_anything_changes_nothing(airflow: Driver, make_table: MakeTable) -> None:
    """Each task on its own, each with what follows it, then the whole run: same rows, same hash, same snapshots."""
    table = make_table("cleared").create().insert(1_000).write_spec()
    airflow.discover(table.dag_id)
    run = airflow.ask(table.dag_id)
    assert airflow.green(run) == GREEN
    before = table.lake()
    assert before.rows == 1_000
    first_plan = airflow.plan(run)["plan_id"]
    for task in reversed(TASKS):
        airflow.clear_only(run, [task])
        assert airflow.green(run)["update_watermark"] == "success", task
        assert table.lake() == before, f"clearing {task} changed the lake"
        assert [e.extra["plan"] for e in airflow.events(table.dag_id)].count(first_plan) == 1
    for task in TASKS:
        airflow.clear_only(run, [task], downstream=True)
        assert airflow.green(run)["update_watermark"] == "success", task
        assert table.lake() == before, f"clearing {task} and what follows changed the lake"
    airflow.clear_run(run)
    assert airflow.green(run) == SKIPPED
    assert table.lake() == before
    plans = [e.extra["plan"] for e in airflow.events(table.dag_id)]
    assert len(plans) == len(set(plans)), f"a plan was announced twice: {plans}"
    table.whole()


def test_nothing_to_move_skips_the_job_and_moves_the_watermark(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("quiet").create().insert(300, hours_ago=1).write_spec(window="1m")
    airflow.discover(table.dag_id)
    assert airflow.green(airflow.ask(table.dag_id)) == GREEN
    before, lake = table.watermark_us(), table.lake()
    poll(lambda: table.settled_us() > before, 400, "no new window settled")
    run = airflow.ask(table.dag_id)
    assert airflow.green(run) == SKIPPED
    assert table.watermark_us() > before
    assert table.lake() == lake
    log = airflow.log(run, "check_extent")
    assert "to move: 0 rows" in log
    assert "watermark:" in log


def test_an_empty_table_is_green(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("empty").create().write_spec()
    airflow.discover(table.dag_id)
    assert airflow.green(airflow.ask(table.dag_id)) == SKIPPED
    table.insert(50)
    assert airflow.green(airflow.ask(table.dag_id)) == GREEN
    table.whole()


def test_late_rows_are_healed_by_the_next_run(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("late").create().insert(800).write_spec()
    airflow.discover(table.dag_id)
    airflow.green(airflow.ask(table.dag_id))
    before = table.lake()
    table.insert(40, hours_ago=5, step_s=11)
    run = airflow.ask(table.dag_id)
    assert airflow.green(run) == GREEN
    after = table.lake()
    assert after.rows == 840
    assert len(after.snapshots) == len(before.snapshots) + 1, "one replace is one snapshot"
    assert "0 windows to append" in airflow.log(run, "check_extent")
    table.whole()


def test_a_range_by_hand(airflow: Driver, make_table: MakeTable) -> None:
    """Unchanged windows are left alone; `force` replaces them; both say how the range was rounded."""
    table = make_table("ranged").create().insert(1_000).write_spec()
    airflow.discover(table.dag_id)
    airflow.green(airflow.ask(table.dag_id))
    before = table.lake()
    assert table.first_us is not None
    start = table.first_us + 20 * 60_000_000
    asked = {
        "from": (from_us(start) + timedelta(seconds=90)).isoformat(),
        "to": (from_us(start) + timedelta(minutes=14)).isoformat(),
    }
    run = airflow.ask(table.dag_id, **asked)
    assert airflow.green(run) == SKIPPED
    assert table.lake() == before
    log = airflow.log(run, "check_extent")
    assert "`from` rounded down" in log
    assert "`to` rounded up" in log

    forced = airflow.ask(table.dag_id, **asked, force=True)
    assert airflow.green(forced) == GREEN
    after = table.lake()
    assert (after.rows, after.digest) == (before.rows, before.digest)
    assert len(after.snapshots) == len(before.snapshots) + 1
    assert "3 to replace" in airflow.log(forced, "check_extent")
    table.whole()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "is not before"),
        ({"from": "soon"}, "no ISO instant"),
        ({"force": True}, "`force` is set but `from` is empty"),
    ],
)
def test_a_senseless_range_fails_at_once(
    airflow: Driver, make_table: MakeTable, asked: dict[str, object], words: str
) -> None:
    table = make_table("senseless").create().insert(10).write_spec(retries=2)
    airflow.discover(table.dag_id)
    run = airflow.ask(table.dag_id, **asked)
    assert airflow.finished(run)["check_extent"] == "failed"
    assert airflow.tasks(run)["check_extent"][1] == 1, "it was tried again"
    log = airflow.log(run, "check_extent")
    assert "OFL-407" in log
    assert words in log
