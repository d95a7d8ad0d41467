"""A newcomer's own table: create it in ClickHouse, draft the spec, watch its DAG turn green. Under three minutes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.support.airflow_bag import ROOT
from tests.support.airflow_driver import TASKS, Driver
from tests.support.tables import MakeTable

pytestmark = pytest.mark.timeout(1500)
LIMIT_S = 180

SENSORS = """
CREATE TABLE {name} (
    measured_at DateTime('UTC'), sensor_id UInt32, reading Float64, unit LowCardinality(String),
    location Tuple(lat Float64, lon Float64), labels Map(String, String), raw Nullable(String)
) ENGINE = MergeTree ORDER BY (sensor_id, measured_at) PARTITION BY toYYYYMMDD(measured_at)
TTL measured_at + INTERVAL 7 DAY
"""
READINGS = """
INSERT INTO {name} SELECT toDateTime(now() - 7200 + number, 'UTC'), number % 20, number * 0.5, 'C',
    (number / 10, -number / 10), map('n', toString(number)), if(number % 2, 'x', NULL) FROM numbers(5000)
"""


def test_from_create_table_to_verified(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("sensors").create(SENSORS)
    table.command(READINGS)
    table.expected = 5_000
    started = time.monotonic()
    drafted = subprocess.run(
        [sys.executable, ROOT / "bin" / "offload", "spec", "new", table.identity, "--write"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert drafted.returncode == 0, drafted.stdout + drafted.stderr
    assert table.spec_file.exists()
    airflow.discover(table.dag_id)
    # unpausing a */15 schedule starts a run of its own; the one asked for follows it
    run = airflow.ask(table.dag_id)
    states = airflow.green(run)
    assert states["check_extent"] == states["update_watermark"] == "success"
    report = table.verified()
    assert 0 < report.lake_rows <= 5_000
    seconds = time.monotonic() - started
    assert seconds < LIMIT_S, f"{seconds:.0f} s"
    assert set(states) == set(TASKS)
