"""`bin/offload dag pause` and `unpause`: one table, every table, and the DAG that takes care of the Iceberg table."""

from __future__ import annotations

import subprocess

import pytest

from include.offload.settings import ROOT
from tests.support.airflow_driver import Driver
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(300)


def dag(*words: str, code: int = 0) -> list[str]:
    done = subprocess.run(
        [str(ROOT / "bin" / "offload"), "dag", *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_one_table_and_every_table(airflow: Driver, make_table: MakeTable) -> None:
    one, other = make_table("pause_one").write_spec(), make_table("pause_other").write_spec()
    ids = (one.dag_id, other.dag_id)
    for dag_id in ids:
        airflow.discover(dag_id)
        airflow.pause(dag_id, False)
    assert dag("pause", one.identity) == [f"{one.dag_id} is paused"]
    said = dag("pause", "--all", "--wait", "60")
    assert {f"{one.dag_id} is paused already", f"{other.dag_id} is paused"} <= set(said)
    assert all(airflow.dags()[dag_id] for dag_id in ids)
    dag("unpause", "--all")
    assert not any(airflow.dags()[dag_id] for dag_id in ids)

    care = one.spec.maintenance_dag_id
    airflow.pause(care, False)
    assert dag("pause", one.identity, "--maintenance", "--wait", "60") == [f"{care} is paused"]
    assert airflow.dags()[care]
    assert not airflow.dags()[one.dag_id]
    dag("pause", code=2)
