"""ClickHouse stops under a running Airflow: its alert fires within its time, is delivered, and clears after a restart.

The rules are those of production with the durations of the fast profile (monitoring/values.yaml).
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from monitoring.values import load
from tests.support.airflow_driver import TASKS, Driver, poll
from tests.support.prometheus import ask
from tests.support.stack import Servers, start, stop
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(600)
GREEN = dict.fromkeys(TASKS, "success")
ALERT = "IcebergOffloadConsecutiveFailures"
FAST = load("fast")
REACTION_S = 20
"""To scrape, evaluate, group and deliver: each takes two seconds at most in the fast profile; the machine is shared."""


def value(query: str) -> float | None:
    """What Prometheus says; None without a series."""
    found = ask("PROMETHEUS", "/api/v1/query", query=query)["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def about(table: str) -> dict[str, dict[str, Any]]:
    """The alerts about a table that Prometheus has delivered and not taken back, by name."""
    found = ask("ALERTMANAGER", "/api/v2/alerts", filter=f'table="{table}"')
    return {one["labels"]["alertname"]: one for one in found}


def test_a_stopped_clickhouse_is_an_alert_that_clears_after_the_restart(
    airflow: Driver, make_table: MakeTable, full_stack: Servers
) -> None:
    table = make_table("source_away").create().insert(50).write_spec()
    airflow.discover(table.dag_id)
    assert airflow.green(airflow.ask(table.dag_id)) == GREEN
    shipped = time.monotonic()
    poll(lambda: value('up{job="iceberg-scheduler"}') == 1, 30, "the scheduler's heartbeat is not seen")
    poll(lambda: value(f'offload_lag_minutes{{table="{table.identity}"}}') is not None, 30, "its lag is not seen")
    assert about(table.identity) == {}

    stop(["clickhouse"])
    try:
        assert airflow.finished(airflow.ask(table.dag_id))["check_extent"] == "failed"
        waits = shipped + FAST.seconds("failures_no_success") - time.monotonic()
        fired = poll(lambda: about(table.identity).get(ALERT), max(0.0, waits) + REACTION_S, f"{ALERT} was not sent")
    finally:
        start(["clickhouse"])
    assert (fired["labels"]["severity"], fired["status"]["state"]) == ("critical", "active")
    assert fired["annotations"]["runbook_url"].endswith(f"iceberg-offload-failure.md#{ALERT.lower()}")

    table.insert(20, hours_ago=2)
    assert airflow.green(airflow.ask(table.dag_id)) == GREEN
    # alerts about the share of failed runs clear later: it was one of three
    poll(lambda: ALERT not in about(table.identity), REACTION_S, f"{ALERT} did not clear")
    table.whole()
