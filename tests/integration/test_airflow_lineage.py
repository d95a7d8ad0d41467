"""A real DAG run tells a real receiver from where to where rows went, by Airflow's OpenLineage provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local import ports
from tests.support.airflow_driver import Driver, poll
from tests.support.fixtures import SESSION
from tests.support.receivers import Heard, webhook
from tests.support.stack import Servers, start, stop
from tests.support.tables import MakeTable, Table

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]

SCHEDULER = "airflow-scheduler"
"""Its processes run the tasks, and read the configuration when they start."""


@pytest.fixture(scope="module")
def heard(full_stack: Servers) -> Iterator[Heard]:
    """A receiver, and a stack whose one configuration file names it; afterwards the stack is as it was."""
    setting: Path = full_stack.home / "secrets" / "openlineage.yml"
    with webhook() as receiver:
        login = {"type": "api_key", "apiKey": SESSION}
        transport = {"type": "http", "url": f"http://127.0.0.1:{receiver.port}", "auth": login}
        setting.write_text(yaml.safe_dump({"transport": transport}))
        try:
            _again()
            yield receiver
        finally:
            setting.unlink()
            _again()


def _again() -> None:
    stop([SCHEDULER])
    start([SCHEDULER])


def _events(heard: Heard, table: Table, task: str, kind: str) -> list[dict[str, Any]]:
    name = f"{table.dag_id}.{task}"
    return [e for e in heard.documents if e["job"]["name"] == name and e["eventType"] == kind]


def test_a_run_names_both_tables_with_rows_bytes_and_snapshot(
    heard: Heard, airflow: Driver, make_table: MakeTable
) -> None:
    table = make_table("lineage").create().insert(500)
    table.write_spec()
    airflow.discover(table.dag_id, limit_s=180)
    run = airflow.ask(table.dag_id)
    airflow.green(run)
    result = airflow.xcom(run, "offload", "return_value")
    lake = table.ctx.catalog.load_table((table.spec.target.namespace, table.spec.target.table))
    snapshot = lake.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None

    (told,) = poll(lambda: _events(heard, table, "offload", "COMPLETE"), 60, "OpenLineage heard of no offload")
    assert told["job"]["namespace"] == "offload"
    ((source,), (target,)) = told["inputs"], told["outputs"]
    assert source["namespace"] == f"clickhouse://127.0.0.1:{ports.port('CLICKHOUSE')}"
    assert source["name"] == table.identity

    # by location, as Spark's own OpenLineage listener names an Iceberg table
    assert f"{target['namespace']}/{target['name']}" == lake.location().rstrip("/")
    assert target["namespace"].startswith("s3://")
    figures = target["outputFacets"]["outputStatistics"]
    assert figures["rowCount"] == 500 == int(snapshot.summary["added-records"])
    assert figures["size"] == int(snapshot.summary["added-files-size"]) == result["bytes"]
    assert figures["fileCount"] == int(snapshot.summary["added-data-files"])
    facets = target["facets"]
    assert facets["version"]["datasetVersion"] == str(snapshot.snapshot_id)
    assert facets["storage"]["storageLayer"] == "iceberg"
    (known_as,) = facets["symlinks"]["identifiers"]
    assert (known_as["name"], known_as["type"]) == (table.identity, "TABLE")
    assert known_as["namespace"] == facets["catalog"]["metadataUri"]
    assert facets["catalog"]["type"] == "rest"
    assert {h["authorization"] for h in heard.headers} == {f"Bearer {SESSION}"}

    # the same plan once more: it is committed, so nothing moved and no figure is told twice
    airflow.clear_only(run, ["offload"])
    airflow.green(run)
    assert airflow.xcom(run, "offload", "return_value")["status"] == "already-committed"
    again = poll(lambda: _events(heard, table, "offload", "COMPLETE")[1:], 60, "OpenLineage heard of no second try")
    assert [(e["inputs"], e["outputs"]) for e in again] == [([], [])]

    _no_secret(heard, table)


def _no_secret(heard: Heard, table: Table) -> None:
    """No password of the stack is in any event."""
    text = repr(heard.documents)
    for name in ("clickhouse_password", "ledger_password", "s3_secret_key"):
        assert table.servers.secret(name) not in text, name
