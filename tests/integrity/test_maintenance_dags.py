"""What every maintenance DAG of the bundle must be, checked on the parsed bundle."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_bag import ROOT, TEN, copy_bundle, parse

TASKS = ("wait", "survey", "maintain")
MAINTENANCE = {name.replace("offload__", "maintain__") for name in TEN}


@pytest.fixture(params=sorted(MAINTENANCE))
def dag(request: pytest.FixtureRequest, bag: Any) -> Any:
    return bag.dags[request.param]


def test_tasks_and_their_order(dag: Any) -> None:
    assert sorted(dag.task_ids) == sorted(TASKS)
    for before, after in zip(TASKS, TASKS[1:], strict=False):
        assert dag.get_task(before).downstream_task_ids == {after}


def test_it_is_daily_never_twice_at_once_and_in_a_pool_of_its_own(dag: Any, bag: Any) -> None:
    from airflow.sdk import CronDataIntervalTimetable

    assert type(dag.timetable) is CronDataIntervalTimetable
    assert dag.timetable.expression == "17 3 * * *"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.get_task("maintain").pool == "offload_maintenance"
    offload = bag.dags[dag.dag_id.replace("maintain__", "offload__")]
    assert offload.get_task("offload").pool != "offload_maintenance"


def test_it_waits_without_a_slot_and_skips_in_the_end(dag: Any) -> None:
    wait = dag.get_task("wait")
    assert (wait.mode, wait.soft_fail, wait.timeout) == ("reschedule", True, 3600)


def test_every_task_ends_and_holds_no_secret(dag: Any) -> None:
    for task in dag.tasks:
        assert timedelta(minutes=1) <= task.execution_timeout <= timedelta(hours=2)
    job = dag.get_task("maintain")
    assert job.application_args[0] == "--plan"
    assert (job.durable, job.env_vars, job.conf) == (False, None, None)


def test_it_tells_what_it_is_and_where_to_read_on(dag: Any) -> None:
    for word in ("compacts", "When it is red", "docs/howto-maintain.md"):
        assert word in dag.doc_md
    assert "maintenance" in dag.tags
    assert dag.description


def test_dags_survive_serialization_unchanged(dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    once = DagSerialization.to_dict(dag)
    assert once == DagSerialization.to_dict(parse(ROOT / "dags").dags[dag.dag_id])


def test_a_spec_that_wants_none_has_none(tmp_path: Path) -> None:
    dags = copy_bundle(tmp_path)
    spec = dags / "tables" / "k2" / "ohlcv_1m.yaml"
    spec.write_text(spec.read_text() + "\nmaintenance: {enabled: false, schedule: '0 4 * * *'}\n")
    names = set(parse(dags).dags)
    assert "maintain__k2__ohlcv_1m" not in names
    assert "offload__k2__ohlcv_1m" in names
