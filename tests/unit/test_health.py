"""The health check: bounded whatever hangs, never silent about what it does not know, exit codes for cron."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from include.offload.errors import SOURCE_UNREACHABLE, OffloadError
from include.offload.health import CHECKS, DEEP, Check, Line, State, check_health
from include.offload.settings import ROOT, Settings
from tests.support.receivers import black_hole

Offload = Callable[..., subprocess.CompletedProcess[str]]
MONITORED = {"Prometheus", "Alertmanager", "alerts", "statsd_exporter"}


@pytest.fixture
def offload(tmp_path: Path) -> Offload:
    """Runs `bin/offload` with an empty home."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OFFLOAD_", "PYICEBERG_", "SPARK_"))}
    env |= {"OFFLOAD_HOME": str(tmp_path / "home"), "COLUMNS": "200", "PYICEBERG_HOME": str(tmp_path)}

    def call(*args: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "bin" / "offload"), *args],
            env=env | extra, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return call


def nothing_answers(port: int, tmp_path: Path) -> dict[str, str]:
    """Every address leads to a port that takes connections and says nothing; Spark hangs."""
    (tmp_path / ".pyiceberg.yaml").write_text(
        f"catalog:\n  lake:\n    type: rest\n    uri: http://127.0.0.1:{port}\n    warehouse: s3://lake/\n"
    )
    spark = tmp_path / "spark" / "bin" / "spark-submit"
    spark.parent.mkdir(parents=True)
    spark.write_text(f"#!/bin/sh\nsleep 300 & echo $! > {tmp_path}/sleeper\nwait\n")
    spark.chmod(0o755)
    url = f"http://127.0.0.1:{port}"
    return {
        "OFFLOAD_AIRFLOW_URL": url,
        "OFFLOAD_METRICS_URL": url,
        "OFFLOAD_PROMETHEUS_URL": url,
        "OFFLOAD_ALERTMANAGER_URL": url,
        "OFFLOAD_CLICKHOUSE_URI": f"http://u:p@127.0.0.1:{port}/",
        "OFFLOAD_LEDGER_URI": f"postgresql://u:p@127.0.0.1:{port}/offload",
        "SPARK_HOME": str(tmp_path / "spark"),
    }


def names() -> list[str]:
    return [name for check in CHECKS for name in check.names]


def test_what_is_not_configured_is_not_set_up_and_what_the_offload_needs_fails(offload: Offload) -> None:
    done = offload("health", "--json")
    told = json.loads(done.stdout)
    lines = {line["name"]: line for line in told["lines"]}
    assert (done.returncode, told["ok"]) == (1, False)
    assert list(lines) == names()
    for name in (*MONITORED, "Airflow scheduler", "Airflow DAG processor", "Airflow triggerer", "Airflow database"):
        assert lines[name]["state"] == "not set up", lines[name]
    for name in ("ClickHouse", "PostgreSQL", "Iceberg catalog", "last cycles", "lag", "TTL headroom"):
        assert lines[name]["state"] == "fail", lines[name]
        assert lines[name]["text"].startswith("OFL-102 ")
        assert lines[name]["runbook"].endswith("#wrong-spec-setting-or-certificate")
    assert lines["table specs"]["state"] == "ok"
    assert {line["state"] for line in told["lines"] if line["next"]} <= {"warn", "fail"}
    assert all(line["next"] for line in told["lines"] if line["state"] in {"warn", "fail"})


def test_people_see_each_line_with_its_next_command_and_cron_only_what_is_wrong(offload: Offload) -> None:
    shown = offload("health").stdout
    assert "ok          table specs" in shown
    assert "not set up  Prometheus" in shown
    assert "next bin/offload stack status" in shown
    quiet = offload("health", "-q").stdout
    assert "ClickHouse" in quiet
    assert "not set up" not in quiet
    assert "table specs" not in quiet


def test_hung_servers_are_said_within_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same checks with a second each: none is waited for, none is left out."""
    with black_hole() as port:
        for name, value in nothing_answers(port, tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
        checks = [replace(check, limit_s=1.0) for check in CHECKS if check.names not in {("Spark",), ("table specs",)}]
        began = time.monotonic()
        report = check_health(Settings(), checks)
        assert time.monotonic() - began < 5
    assert [line.name for line in report.lines] == [name for check in checks for name in check.names]
    assert {line.state for line in report.lines} == {State.FAIL}
    assert report.hung
    assert all("no answer within 1 s" in line.text for line in report.lines)


@pytest.mark.long
def test_the_whole_command_ends_within_30_seconds_when_everything_hangs(offload: Offload, tmp_path: Path) -> None:
    with black_hole() as port:
        began = time.monotonic()
        done = offload("health", "--deep", "--json", **nothing_answers(port, tmp_path))
        seconds = time.monotonic() - began
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert seconds < 30, seconds
    states = {line["name"]: line["state"] for line in told["lines"]}
    assert states.pop("table specs") == "ok"
    assert set(states.values()) == {"fail"}, states
    assert "Spark start-up" in states
    # what hung is not left behind
    left = int((tmp_path / "sleeper").read_text())
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE


def test_a_check_that_breaks_is_a_line_of_its_own() -> None:
    def breaks(_: Settings) -> list[Line]:
        raise ZeroDivisionError("by design")

    def refuses(_: Settings) -> list[Line]:
        raise OffloadError(SOURCE_UNREACHABLE, "no answer from 127.0.0.1:1")

    def works(_: Settings) -> list[Line]:
        return [Line("works", State.OK, "well")]

    report = check_health(
        Settings(),
        [Check(("a", "b"), breaks, 5, "look"), Check(("c",), refuses, 5, "x"), Check(("works",), works, 5, "")],
    )
    a, b, c, good = report.lines
    assert a.state is b.state is c.state is State.FAIL
    assert "ZeroDivisionError: by design" in a.text
    assert (a.next, b.name) == ("look", "b")
    assert c.text.startswith("OFL-201 ")
    assert c.runbook == "docs/operations/runbooks/iceberg-offload-failure.md#clickhouse-connectivity"
    assert good.state is State.OK
    assert not report.ok
    assert not report.hung


def test_limits_leave_room_for_the_process_itself() -> None:
    assert max(check.limit_s for check in (*CHECKS, DEEP)) <= 21
