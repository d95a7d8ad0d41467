"""The demo as a user starts it, with its ten tables: nothing fires, everything is green; ClickHouse away is said.

The first with production's rules, which must be silent; the second with the fast ones, which say within a minute what
production says after three runs of fifteen.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from include.offload.airflow_rest import AirflowRest
from include.offload.settings import ROOT
from local import ports, secrets
from local.runbooks import watch
from local.stack import Stack
from tests.support.dashboards import ANY, Prometheus, questions
from tests.ui.conftest import frame, log_in

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]
PORT_BASE = "27800"
HISTORY_ROWS = "50000"
READY_S = 600.0
"""From the start of the demo until the tenth table was offloaded, on a machine that does something else too."""
STEADY_S = 120.0
ALERT_S, CLEAR_S = 60.0, 150.0
"""Of the fast rules: a failure is looked for within two minutes."""
RUN_S = 300.0
"""A run that waits for nine others, on a machine that does something else too."""
STOP_S = 120.0
LIVE = "Ctrl-C stops everything"
TABLE, DAG = "k2.silver_trades", "offload__k2__silver_trades"
ALERT = "IcebergOffloadConsecutiveFailures"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home, ports and specs of its own: the shipped ones, but a task that fails is not tried again."""
    for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "AIRFLOW", "PYICEBERG_"))]:
        if name != "OFFLOAD_TEST_PORT_BASE":
            monkeypatch.delenv(name)
    # not pytest's directory: the path of a socket must be short
    home = Path(tempfile.mkdtemp(prefix="offload-demo-"))
    shutil.copytree(ROOT / "dags" / "tables", home / "tables")
    (home / "tables" / "_defaults.once.yaml").write_text("retries: 0\n")
    monkeypatch.setenv("OFFLOAD_HOME", str(home))
    monkeypatch.setenv("OFFLOAD_PORT_BASE", os.environ.get("OFFLOAD_TEST_PORT_BASE", PORT_BASE))
    monkeypatch.setenv("OFFLOAD_TABLES", str(home / "tables"))
    monkeypatch.setenv("OFFLOAD_ENV", "once")
    monkeypatch.setenv("OFFLOAD_DEMO_ROWS", HISTORY_ROWS)
    monkeypatch.setenv("PYICEBERG_HOME", str(home / "secrets"))
    try:
        yield home
    finally:
        Stack(home).stop()
        shutil.rmtree(home)


@contextmanager
def demo(home: Path, profile: str) -> Iterator[Callable[[], None]]:
    """`make demo` until SIGTERM, which must stop every server; yields what fails when it ended by itself."""
    said = home / f"demo-{profile}.log"
    with said.open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "local.demo"],
            cwd=ROOT,
            env={**os.environ, "OFFLOAD_ALERT_PROFILE": profile},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def goes_on() -> None:
        assert running.poll() is None, f"the demo ended: {said.read_text()[-3000:]}"

    try:
        # what it starts last needs what it started first, and would start that again
        wait(goes_on, lambda: LIVE not in said.read_text(), READY_S, "the live view")
        yield goes_on
        goes_on()
    finally:
        running.send_signal(signal.SIGTERM)
        code = running.wait(STOP_S)
    assert code == 0, said.read_text()[-3000:]
    assert {s.state for s in Stack(home).status()} == {"STOPPED"}


def wait(goes_on: Callable[[], None], look: Callable[[], object], limit_s: float, what: str) -> None:
    """Until `look` finds nothing any more, while the demo goes on; a server that still starts is something too."""
    end = time.monotonic() + limit_s
    while True:
        goes_on()
        try:
            left = look()
        except OSError as error:
            left = error
        if not left:
            return
        assert time.monotonic() < end, f"not within {limit_s:.0f} s: {what}; left: {left}"
        time.sleep(1)


def offload(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, ROOT / "bin" / "offload", *words]
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(argv, cwd=ROOT, env=wide, capture_output=True, text=True, timeout=300, check=False)


def not_shipped(*tables: str) -> object:
    """What keeps the ten tables, or these, from having been offloaded in time, as the command line tells it."""
    found = offload("status", "--json")
    if found.returncode != 0:
        return found.stdout + found.stderr
    states = {t["table"]: t["state"] for t in json.loads(found.stdout)["tables"]}
    left = {t: s for t, s in states.items() if s != "ok" and (not tables or t in tables)}
    return left if len(states) == 10 else states


def only_the_watchdog() -> bool:
    """Nothing fires or is about to but the Watchdog, and Prometheus reaches all of its targets."""
    alerts = {a["labels"]["alertname"] for a in watch.get("/api/v1/alerts")["alerts"]}
    targets = watch.get("/api/v1/targets?state=active")["activeTargets"]
    return alerts == {watch.ALWAYS} and bool(targets) and all(t["health"] == "up" for t in targets)


def ten_green_tables(chrome: Browser, home: Path) -> None:
    """In a browser: ten rows, each without any reason for anything but green."""
    url = f"http://127.0.0.1:{ports.port('AIRFLOW')}"
    page = chrome.new_page()
    log_in(page, url, secrets.read(Stack(home).home, "airflow_admin_password"))
    page.goto(f"{url}/plugin/offload")
    rows = frame(page).locator("tbody tr", has_text="k2.")
    expect(rows).to_have_count(10, timeout=60_000)
    for at in range(10):
        expect(rows.nth(at)).to_have_attribute("data-danger", "2", timeout=60_000)
    page.close()


def test_ten_tables_are_green_and_nothing_fires(home: Path, chrome: Browser) -> None:
    with demo(home, "production") as goes_on:
        wait(goes_on, not_shipped, READY_S, "ten tables without a lag")
        watch.until_steady(only_the_watchdog, READY_S, "no alert but the Watchdog", STEADY_S)
        prometheus = Prometheus(f"http://127.0.0.1:{ports.port('PROMETHEUS')}")
        loud = [one for one in questions(TABLE) if not one.query.quiet]
        assert loud and {one.table for one in loud} == {TABLE, ANY}
        silent = [str(one) for one in loud if not one.answered(prometheus)]
        assert not silent, "\n".join(silent)
        health = offload("health", "--json")
        assert not [line for line in json.loads(health.stdout)["lines"] if line["state"] == "fail"], health.stdout
        ten_green_tables(chrome, home)


def test_clickhouse_that_is_away_is_said_and_clears(home: Path) -> None:
    with demo(home, "fast") as goes_on:
        wait(goes_on, lambda: not_shipped(TABLE), READY_S, f"{TABLE} without a lag")
        wait(goes_on, lambda: not watch.at_rest(ALERT, [("table", TABLE)]), READY_S, "a Prometheus that sees all")
        password = secrets.read(Stack(home).home, "airflow_admin_password")
        with closing(AirflowRest(f"http://127.0.0.1:{ports.port('AIRFLOW')}", "admin", password)) as airflow:
            stopped = offload("stack", "stop", "clickhouse")
            assert stopped.returncode == 0, stopped.stderr
            assert airflow.ended(airflow.trigger(DAG), RUN_S).state == "failed"
            wait(goes_on, lambda: watch.fires(ALERT, [("table", TABLE)]) is None, ALERT_S, f"{ALERT} of {TABLE}")
            alert = watch.fires(ALERT, [("table", TABLE)])
            assert alert is not None and not alert.unfilled(watch.templates(ALERT))
            assert "iceberg-offload-failure.md#" in alert.annotations["runbook_url"]

            started = offload("stack", "start", "clickhouse")
            assert started.returncode == 0, started.stderr
            assert airflow.ended(airflow.trigger(DAG), RUN_S).state == "success"
            wait(goes_on, lambda: not watch.at_rest(ALERT, [("table", TABLE)]), CLEAR_S, f"an end of {ALERT}")
        verified = offload("verify", TABLE)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert "equal by both readers" in " ".join(verified.stdout.split())
