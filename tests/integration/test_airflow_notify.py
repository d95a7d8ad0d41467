"""A task of a real DAG run fails, and a webhook hears of it; one that does not answer hides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.offload.windows import from_us
from tests.support.airflow_driver import Driver
from tests.support.fixtures import SESSION
from tests.support.receivers import Heard, webhook
from tests.support.stack import Servers
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def heard() -> Iterator[Heard]:
    with webhook() as receiver:
        yield receiver


@pytest.fixture
def channels(full_stack: Servers, airflow: Driver, heard: Heard) -> Iterator[None]:
    """A webhook that answers and one that does not, as a site would configure them: two connections and one setting."""
    made = {f"notify_{SESSION}": heard.port, f"notify_gone_{SESSION}": 1}
    for conn_id, port in made.items():
        airflow.connect(conn_id, conn_type="http", host="127.0.0.1", port=port, schema="http")
    setting: Path = full_stack.home / "secrets" / "offload_notify"
    setting.write_text(", ".join(reversed(made)))
    yield
    setting.unlink()
    for conn_id in made:
        airflow.disconnect(conn_id)


def test_a_failed_run_is_told_with_its_window_and_runbook(
    channels: None, heard: Heard, airflow: Driver, make_table: MakeTable
) -> None:
    """`check_extent` plans; `offload` finds no Spark connection, and fails for good."""
    table = make_table("notify").create().insert(100)
    table.write_spec(more="connections: {spark: there_is_none}")
    airflow.discover(table.dag_id, limit_s=180)
    run = airflow.ask(table.dag_id)
    assert airflow.finished(run)["offload"] == "failed"
    plan = airflow.plan(run)
    log = airflow.log(run, "offload")

    # one message: update_watermark did not run
    (told,) = heard.documents
    assert (told["table"], told["task"], told["id"]) == (table.identity, "offload", "OFL-102")
    assert told["title"] == f"{table.identity}: offload failed, OFL-102 a connection or setting is missing"
    assert told["window"] == f"{plan['from']} to {plan['to']}, {plan['windows']} windows, 100 rows"
    assert table.first_us is not None
    assert plan["from"] == f"{from_us(table.first_us):%Y-%m-%dT%H:%M:%SZ}"
    assert told["plan"] == plan["plan_id"]
    assert "there_is_none" in told["cause"]
    assert told["next"] == "bin/offload stack status"
    assert told["runbook"] == ("docs/operations/runbooks/iceberg-offload-failure.md#wrong-spec-setting-or-certificate")
    assert (told["dag"], told["run"], told["tries"]) == (table.dag_id, run.run_id, 1)
    assert f"/dags/{table.dag_id}/runs/" in told["log"]

    assert f"told notify_{SESSION} of the failure" in log
    assert f"not told of the failure: notify_gone_{SESSION} (ConnectError)" in log
    # the ledger heard of it, before any channel was asked
    (row,) = [r for r in table.ctx.ledger.watermark_rows() if r["table_name"] == table.identity]
    assert (row["status"], row["failure_count"]) == ("failed", 1)
