"""Jobs that die under Airflow: nothing is lost, nothing is doubled, and nothing of a stopped job stays behind.

The job sends itself SIGKILL at a named point (include/offload/crashpoint.py), once.
"""

from __future__ import annotations

import pytest

from tests.support.airflow_driver import TASKS, Driver, poll
from tests.support.processes import processes_of
from tests.support.stack import Servers
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(1500)
GREEN = dict.fromkeys(TASKS, "success")


def arm(servers: Servers, point: str) -> None:
    (servers.crashes / point).touch()


def fired(servers: Servers, point: str) -> bool:
    return not (servers.crashes / point).exists()


def test_killed_before_the_commit_and_cleared(airflow: Driver, make_table: MakeTable, full_stack: Servers) -> None:
    """The same frozen plan is shipped again by clearing the failed task; only its second attempt lands."""
    table = make_table("died_before").create().insert(700).write_spec()
    airflow.discover(table.dag_id)
    arm(full_stack, "before-commit")
    run = airflow.ask(table.dag_id)
    states = airflow.finished(run)
    assert fired(full_stack, "before-commit")
    assert states == {"check_extent": "success", "offload": "failed", "update_watermark": "upstream_failed"}
    log = airflow.log(run, "offload")
    assert "OFL-504" in log
    assert "then clear offload" in log
    plan = airflow.plan(run)
    airflow.clear_only(run, ["offload"], downstream=True)
    assert airflow.green(run) == GREEN
    assert airflow.plan(run) == plan
    assert len(table.lake().snapshots) == 1
    table.whole()


def test_killed_after_the_commit_and_cleared(airflow: Driver, make_table: MakeTable, full_stack: Servers) -> None:
    """The second attempt finds its plan in the lake and writes nothing."""
    table = make_table("died_after").create().insert(700).write_spec()
    airflow.discover(table.dag_id)
    arm(full_stack, "after-commit")
    run = airflow.ask(table.dag_id)
    assert airflow.finished(run)["offload"] == "failed"
    landed = table.lake()
    assert landed.rows == 700
    airflow.clear_only(run, ["offload"], downstream=True)
    assert airflow.green(run) == GREEN
    assert table.lake() == landed
    assert "already-committed" in airflow.log(run, "offload")
    table.whole()


def test_killed_and_left_to_the_next_run(airflow: Driver, make_table: MakeTable, full_stack: Servers) -> None:
    """Nobody clears anything: the next run adopts what landed and goes on; the old run may be cleared later."""
    table = make_table("left").create().insert(700).write_spec()
    airflow.discover(table.dag_id)
    arm(full_stack, "after-commit")
    first = airflow.ask(table.dag_id)
    assert airflow.finished(first)["offload"] == "failed"
    assert table.lake().rows == 700
    table.insert(60, hours_ago=4, step_s=13)
    second = airflow.ask(table.dag_id)
    assert airflow.green(second) == GREEN
    table.whole()
    said = {e.extra["plan"]: e for e in airflow.events(table.dag_id)}
    assert said.keys() == {airflow.plan(first)["plan_id"], airflow.plan(second)["plan_id"]}
    adopted = said[airflow.plan(first)["plan_id"]]
    assert (adopted.run_id, adopted.extra["rows"]) == (second.run_id, 700)
    airflow.clear_run(first)
    airflow.green(first)
    plans = [e.extra["plan"] for e in airflow.events(table.dag_id)]
    assert len(plans) == len(set(plans)), f"a plan was announced twice: {plans}"
    table.whole()


def test_airflow_retries_by_itself(airflow: Driver, make_table: MakeTable, full_stack: Servers) -> None:
    table = make_table("retried").create().insert(700).write_spec(retries=2)
    airflow.discover(table.dag_id)
    arm(full_stack, "file-uploaded")
    run = airflow.ask(table.dag_id)
    assert airflow.green(run) == GREEN
    assert airflow.tasks(run)["offload"][1] == 2
    table.whole()


def test_killed_between_ledger_and_airflow(airflow: Driver, make_table: MakeTable, full_stack: Servers) -> None:
    """The watermark task dies after writing the ledger: its event is not lost, and comes once."""
    table = make_table("unannounced").create().insert(300).write_spec(retries=1)
    airflow.discover(table.dag_id)
    arm(full_stack, "ledger-written")
    run = airflow.ask(table.dag_id)
    assert airflow.green(run) == GREEN
    assert fired(full_stack, "ledger-written")
    assert airflow.tasks(run)["update_watermark"][1] == 2
    (event,) = airflow.events(table.dag_id)
    assert event.extra["plan"] == airflow.plan(run)["plan_id"]
    assert event.extra["rows"] == 300
    table.whole()


def test_a_stopped_task_leaves_no_process(airflow: Driver, make_table: MakeTable) -> None:
    """Marking a running task as failed ends spark-submit, its JVM and the Python job; then the plan still ships."""
    table = make_table("stopped").create().insert(400_000, hours_ago=30, step_s=0.25).write_spec()
    airflow.discover(table.dag_id)
    run = airflow.ask(table.dag_id)
    poll(lambda: airflow.states(run)["offload"] == "running", 300, "offload did not start")
    plan = str(airflow.plan(run)["plan_id"])
    poll(lambda: len(processes_of(plan)) >= 2, 120, "the job did not start")
    airflow.mark(run, "offload", "failed")
    poll(lambda: not processes_of(plan), 60, "the job outlived its task")
    airflow.finished(run)
    airflow.clear_only(run, ["offload"], downstream=True)
    assert airflow.green(run) == GREEN
    table.whole()
