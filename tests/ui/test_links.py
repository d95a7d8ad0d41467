"""Links on a task's page: from what was shipped to its snapshot, from what failed to its runbook."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from include.offload.airflow_rest import DagRun
from tests.support.airflow_driver import Driver
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(900)


def links(client: httpx.Client, run: DagRun, task: str) -> dict[str, Any]:
    """The buttons that Airflow shows for a task."""
    path = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task}/links"
    found: dict[str, Any] = client.get(path).raise_for_status().json()["extra_links"]
    return {name: link for name, link in found.items() if link}


def test_from_a_shipped_plan_and_from_a_failure(client: httpx.Client, airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("linked").write_spec(retries=0)
    airflow.discover(table.dag_id)
    failed = airflow.ask(table.dag_id)
    assert airflow.finished(failed)["check_extent"] == "failed"
    shown = links(client, failed, "check_extent")
    assert set(shown) == {"Runbook"}
    assert shown["Runbook"].endswith("/plugin/offload/offload/errors/OFL-203")
    assert "OFL-203" in client.get("/offload/errors/OFL-203").raise_for_status().text

    table.create().insert(300).write_spec(more="plan:\n  driver_rows: 0\n")
    run = airflow.ask(table.dag_id)
    airflow.green(run)
    shown = links(client, run, "offload")
    assert set(shown) == {"Iceberg snapshot", "Spark event log"}
    application = airflow.xcom(run, "offload", "return_value")["application_id"]
    log = client.get(shown["Spark event log"].replace("/plugin/offload", "")).raise_for_status()
    assert log.headers["Content-Type"].startswith("text/plain")
    events = [json.loads(line) for line in log.text.splitlines()]
    (started,) = [e for e in events if e["Event"] == "SparkListenerApplicationStart"]
    assert started["App ID"] == application
    assert [e for e in events if e["Event"] == "SparkListenerTaskEnd"]
    assert client.get(f"/offload/dags/{table.dag_id}/runs/another/events").status_code == 404
    assert links(client, run, "check_extent") == {}
    page = client.get(shown["Iceberg snapshot"].replace("/plugin/offload", "")).raise_for_status().text
    assert str(table.lake().snapshots[-1]) in page
    # the page of the table shows the same, from the ledger alone
    page = client.get(f"/offload/dags/{table.dag_id}").raise_for_status().text
    assert 'class="cell shipped' in page
    assert airflow.plan(run)["plan_id"][:8] in page
