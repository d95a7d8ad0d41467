"""Airflow's own processes die by SIGKILL while an offload runs, or a run is cleared under its job.

Jobs that die by themselves under Airflow: tests/integration/test_airflow_crashes.py.
"""

from __future__ import annotations

import psutil
import pytest

from include.offload.airflow_rest import DagRun
from tests.support.airflow_driver import TASKS, Driver, poll
from tests.support.processes import processes_of, running_job, server, worker_of
from tests.support.stack import Servers
from tests.support.tables import MakeTable, Table

pytestmark = pytest.mark.timeout(900)
GREEN = dict.fromkeys(TASKS, "success")
ROWS = 400_000


def started(airflow: Driver, make_table: MakeTable, name: str) -> tuple[Table, DagRun, str]:
    """A table, and its first run with the job under way; the plan's id."""
    table = make_table(name).create().insert(ROWS, hours_ago=30, step_s=0.25).write_spec()
    airflow.discover(table.dag_id)
    run = airflow.ask(table.dag_id)
    return table, run, running_job(airflow, run)


def once(airflow: Driver, table: Table) -> None:
    """Every row is there once, and there is one snapshot a plan that landed, and one announcement."""
    table.whole()
    plans = [e.extra["plan"] for e in airflow.events(table.dag_id)]
    assert len(plans) == len(set(plans)) == len(table.lake().snapshots)


def test_the_scheduler_is_killed_under_a_job(airflow: Driver, make_table: MakeTable, full_stack: Servers) -> None:
    """Its workers and the job die with it, as in a container. No retry is left (`retries: 0`), and yet the next
    scheduler starts the task again: the run ends well without anybody's help.
    """
    table, run, plan = started(airflow, make_table, "orphaned")
    scheduler = server(full_stack, "airflow-scheduler")
    family = scheduler.children(recursive=True)
    assert worker_of(plan, scheduler) in family
    scheduler.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, "they hold the dead scheduler's database connection, and so its locks"
    assert airflow.green(run, limit_s=150) == GREEN
    assert server(full_stack, "airflow-scheduler").pid != scheduler.pid
    assert airflow.tasks(run)["offload"] == ("success", 2)
    assert airflow.plan(run)["plan_id"] == plan
    once(airflow, table)
    assert len(table.lake().snapshots) == 1


def test_a_run_is_cleared_under_its_job(airflow: Driver, make_table: MakeTable) -> None:
    """Its job is stopped, or passed (rule 1); planning begins anew at the same range (rule 8)."""
    table, run, first = started(airflow, make_table, "cleared")
    # so that there is a second job, should the first one land before Airflow stops it
    table.insert(60, hours_ago=4, step_s=13)
    airflow.clear_run(run)
    poll(lambda: airflow.plan_of(run) not in {None, first}, 120, "no second plan was made")
    assert airflow.green(run) == GREEN
    assert airflow.plan_of(run) != first
    poll(lambda: not processes_of(first), 60, "a job outlived its run")
    once(airflow, table)


def test_the_worker_of_a_task_is_killed(airflow: Driver, make_table: MakeTable, full_stack: Servers) -> None:
    """Airflow misses the heartbeat and fails the task; whatever its job did meanwhile, clearing it ends well."""
    table, run, plan = started(airflow, make_table, "worker_killed")
    worker_of(plan, server(full_stack, "airflow-scheduler")).kill()
    assert airflow.finished(run)["offload"] == "failed"
    airflow.clear_only(run, ["offload"], downstream=True)
    assert airflow.green(run) == GREEN
    assert airflow.plan(run)["plan_id"] == plan
    poll(lambda: not processes_of(plan), 60, "a job outlived its run")
    once(airflow, table)
    assert len(table.lake().snapshots) == 1
