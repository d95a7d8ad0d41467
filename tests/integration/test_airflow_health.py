"""The health check and the alerts of the whole one-machine stack: nothing is `not set up`, all of it is asked."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from include.offload.health import CHECKS, State, check_health
from include.offload.settings import ROOT, load
from tests.support.airflow_driver import Driver, poll
from tests.support.stack import Servers

pytestmark = pytest.mark.timeout(600)
SERVERS = {
    "Airflow scheduler", "Airflow DAG processor", "Airflow triggerer", "Airflow database", "Prometheus", "Alertmanager",
    "ClickHouse", "PostgreSQL", "Iceberg catalog",
}  # fmt: skip


def command(*words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [str(ROOT / "bin" / "offload"), *words, "--json"],
        capture_output=True, text=True, timeout=100, check=False, env=os.environ,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


def test_every_server_of_the_stack_is_asked_and_answers(full_stack: Servers, airflow: Driver) -> None:
    def well() -> bool:
        lines = check_health(load(), [c for c in CHECKS if set(c.names) & SERVERS]).lines
        return all(line.state is State.OK for line in lines)

    # Prometheus needs a moment after its start to scrape all, and to tell Alertmanager
    poll(well, 90, "all servers are ok")
    _, told = command("health")
    states = {line["name"]: line["state"] for line in told["lines"]}
    assert {name: states[name] for name in SERVERS} == dict.fromkeys(SERVERS, "ok")
    # an alert may fire in a stack in which tests break things; that it can be told is what counts
    assert states["alerts"] != "not set up"
    code, alerts = command("alerts")
    assert alerts["watchdog"]
    assert alerts["delivered"]
    assert code == (1 if alerts["alerts"] else 0)
