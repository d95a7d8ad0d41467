"""`bin/offload dag connections`: Airflow's addresses beside the command line's, and how one is put right."""

from __future__ import annotations

import subprocess

import pytest

from include.offload.settings import ROOT
from local import ports
from tests.support.airflow_driver import Driver
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(300)


def offload(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "bin" / "offload"), *words], capture_output=True, text=True, timeout=100, check=False
    )


def test_a_connection_that_leads_elsewhere_is_shown_and_led_back(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("connections").write_spec()
    before = airflow.connection("offload_clickhouse")
    assert before is not None
    shown = offload("dag", "connections", table.identity)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("the same") == 2
    assert airflow.connection(f"no_such_{table.name}") is None

    airflow.move_connection("offload_clickhouse", "clickhouse", ports.HOST, 9)
    try:
        shown = offload("dag", "connections", table.identity)
        assert (shown.stdout.count("the same"), shown.stdout.count("another address")) == (1, 1)
        done = offload("dag", "connections", table.identity, "--reset", "offload_clickhouse", "--yes")
        assert f"offload_clickhouse leads to {ports.HOST}:{ports.port('CLICKHOUSE')}" in done.stdout
        # login, password and the rest of it are as before
        assert airflow.connection("offload_clickhouse") == before
    finally:
        airflow.move_connection("offload_clickhouse", "clickhouse", ports.HOST, ports.port("CLICKHOUSE"))
