"""Prometheus and Alertmanager of the one-machine stack: a fault becomes an alert that is delivered, and clears."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from statsd import StatsClient

from include.offload.metrics import Metrics
from include.offload.settings import ROOT, Settings
from include.offload.spec.load import load_specs
from local import ports
from local.stack import Stack
from tests.support.prometheus import ask
from tests.support.stack import own_stack

LIMIT_S = 40
TABLE = "k2.silver_trades"


@pytest.fixture(scope="module")
def monitored() -> Iterator[Stack]:
    """The exporter, Prometheus and Alertmanager of a stack of their own, with the fast rules."""
    with own_stack(["monitoring"], "27800", OFFLOAD_ALERT_PROFILE="fast") as running:
        yield running


def firing() -> set[str]:
    found = ask("PROMETHEUS", "/api/v1/alerts")["data"]["alerts"]
    return {a["labels"]["alertname"] for a in found if a["state"] == "firing"}


def delivered() -> set[str]:
    return {a["labels"]["alertname"] for a in ask("ALERTMANAGER", "/api/v2/alerts", active="true")}


class Airflow:
    """Sends what a healthy Airflow would send."""

    def __init__(self) -> None:
        self.client = StatsClient("127.0.0.1", ports.port("STATSD"), prefix="airflow")

    def beat(self) -> None:
        for name in ("scheduler_heartbeat", "dag_processor_heartbeat", "triggerer_heartbeat"):
            self.client.incr(name)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, f"not within {LIMIT_S} s: {what}; firing: {firing()}"
            self.beat()
            time.sleep(0.5)


def test_a_fault_fires_is_delivered_and_clears(monitored: Stack) -> None:
    airflow = Airflow()
    emitter = Metrics(Settings(statsd_port=ports.port("STATSD")))
    specs = load_specs(ROOT / "dags" / "tables").specs
    try:
        airflow.beat()
        emitter.announce(specs, configured=len(specs))
        for spec in specs:
            emitter.check(spec.identity, settle_us=spec.settle_us, pending_windows=0, pending_rows=0)
            emitter.watermark(spec.identity, watermark_us=int((time.time() - 130) * 1e6), cycle_seconds=5.0)

        def lag() -> set[str]:
            found = ask("PROMETHEUS", "/api/v1/query", query="offload_lag_minutes < 5")["data"]["result"]
            return {one["metric"]["table"] for one in found}

        airflow.until(lambda: lag() == {s.identity for s in specs}, "every table has a lag")
        airflow.until(lambda: "Watchdog" in delivered(), "the watchdog is delivered")
        targets = ask("PROMETHEUS", "/api/v1/targets")["data"]["activeTargets"]
        assert {t["labels"]["job"] for t in targets} == {"statsd-exporter", "prometheus", "alertmanager"}
        airflow.until(
            lambda: all(t["health"] == "up" for t in ask("PROMETHEUS", "/api/v1/targets")["data"]["activeTargets"]),
            "all targets are up",
        )
        airflow.until(lambda: firing() == {"Watchdog"}, "nothing but the watchdog fires")
        groups = ask("PROMETHEUS", "/api/v1/rules")["data"]["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}

        emitter.verified(TABLE, 3)
        airflow.until(lambda: "IcebergOffloadRowsMismatch" in delivered(), "the mismatch is delivered")
        emitter.verified(TABLE, 0)
        airflow.until(lambda: firing() == {"Watchdog"}, "the mismatch clears")
    finally:
        emitter.close()
        airflow.client.close()


def test_the_servers_listen_on_loopback_only_and_their_configuration_is_private(monitored: Stack) -> None:
    for name in ("prometheus.yml", "alertmanager.yml"):
        assert (monitored.home.etc / name).stat().st_mode & 0o077 == 0
    for process in monitored.supervisor.marked():
        for connection in process.net_connections("inet"):
            if connection.laddr and not connection.raddr:
                assert connection.laddr.ip == "127.0.0.1", (process.cmdline(), connection)
