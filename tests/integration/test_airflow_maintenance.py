"""A maintenance through a real Airflow: it lets the offload end, sees what there is to do, and runs real Spark."""

from __future__ import annotations

import pytest

from tests.support.airflow_driver import Driver
from tests.support.tables import MakeTable

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


def test_a_maintenance_runs_after_the_offload_and_leaves_every_row(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("cared").create().insert(900).write_spec(more="maintenance: {schedule: '0 0 29 2 *'}")
    care = table.spec.maintenance_dag_id
    airflow.discover(table.dag_id)
    airflow.discover(care)
    offload = airflow.ask(table.dag_id)
    maintenance = airflow.ask(care)
    airflow.green(offload)
    assert airflow.green(maintenance) == {"wait": "success", "survey": "success", "maintain": "success"}
    said = airflow.xcom(maintenance, "maintain", "return_value")
    # one run left nothing to compact; whether there are orphans only the store can tell
    assert [(s["care"], s["status"]) for s in said["steps"]] == [("remove_orphans", "done")]
    assert said["after"]["files"] == said["before"]["files"]
    table.whole()
