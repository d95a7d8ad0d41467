"""`bin/offload alerts`, and the health check's lines about them, against a real Prometheus and a real Alertmanager."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.offload import monitor
from include.offload.monitor import Alerts
from include.offload.settings import ROOT, Settings
from tests.support.prometheus import Monitoring, monitoring

LIMIT_S = 60
WATCHDOG = {"alert": "Watchdog", "expr": "vector(1)", "labels": {"severity": "none"}}
LATE = {
    "alert": "IcebergOffloadLagElevated",
    "expr": 'label_replace(vector(33), "table", "k2.trades", "", "")',
    "labels": {"severity": "warning", "symptom": "lag"},
    "annotations": {
        "summary": "{{ $labels.table }} lags",
        "description": "{{ $labels.table }} is {{ $value }} minutes behind",
        "runbook_url": "docs/operations/runbooks/iceberg-offload-lag.md#icebergoffloadlagelevated",
    },
}
LOST = {
    "alert": "IcebergOffloadTTLHeadroomCritical",
    "expr": 'label_replace(vector(1), "table", "k2.quotes", "", "")',
    "labels": {"severity": "critical"},
    "annotations": {"summary": "rows expire"},
}
SOON = {"alert": "Soon", "expr": "vector(1)", "for": "1h", "labels": {"severity": "warning"}}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    with monitoring(tmp_path_factory.mktemp("monitoring")) as found:
        yield found


@pytest.fixture
def addresses(servers: Monitoring, tmp_path: Path) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("OFFLOAD_")}
    return env | {
        "OFFLOAD_HOME": str(tmp_path),
        "OFFLOAD_PROMETHEUS_URL": servers.prometheus,
        "OFFLOAD_ALERTMANAGER_URL": f"{servers.alertmanager}/",
        "COLUMNS": "250",
    }


def offload(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "bin" / "offload"), *words], env=env, capture_output=True, text=True, timeout=100, check=False
    )


def told(env: dict[str, str], *words: str) -> tuple[int, dict[str, Any]]:
    done = offload(env, "alerts", "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def until(env: dict[str, str], holds: Callable[[Alerts], bool], *words: str) -> tuple[int, dict[str, Any]]:
    """Waits until the alerts are so, asking in this process; then what the command says."""
    settings = Settings(prometheus_url=env["OFFLOAD_PROMETHEUS_URL"], alertmanager_url=env["OFFLOAD_ALERTMANAGER_URL"])
    end = time.monotonic() + LIMIT_S
    while not holds(found := monitor.alerts(settings)):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return told(env, *words)


def names(document: dict[str, Any]) -> list[str]:
    return [a["name"] for a in document["alerts"]]


def health(env: dict[str, str]) -> dict[str, dict[str, Any]]:
    lines = json.loads(offload(env, "health", "--json").stdout)["lines"]
    return {line["name"]: line for line in lines}


def test_nothing_fires_and_that_is_known(servers: Monitoring, addresses: dict[str, str]) -> None:
    servers.reload(WATCHDOG, SOON)
    code, document = until(addresses, lambda a: a.watchdog and bool(a.delivered) and len(a.pending) == 1)
    assert (code, document["ok"], document["alerts"]) == (0, True, [])
    _, document = told(addresses, "--pending")
    assert names(document) == ["Soon"]
    assert document["alerts"][0]["state"] == "pending"
    done = offload(addresses, "alerts")
    assert (done.returncode, done.stdout) == (0, "no alert fires\n")
    lines = health(addresses)
    assert lines["Alertmanager"]["state"] == lines["alerts"]["state"] == "ok"
    # this Prometheus has no targets, but alerts
    assert lines["Prometheus"]["state"] == "ok"


def test_what_fires_is_shown_the_worst_first_with_its_runbook(servers: Monitoring, addresses: dict[str, str]) -> None:
    servers.reload(WATCHDOG, LATE, LOST)
    code, document = until(addresses, lambda a: len(a.firing) == 2 and bool(a.delivered))
    assert (code, document["ok"]) == (1, False)
    assert names(document) == [LOST["alert"], LATE["alert"]]
    lost, late = document["alerts"]
    assert (late["severity"], late["table"], late["state"]) == ("warning", "k2.trades", "firing")
    assert late["description"] == "k2.trades is 33 minutes behind"
    assert late["runbook"].endswith("iceberg-offload-lag.md#icebergoffloadlagelevated")
    assert lost["runbook"] is None
    since = datetime.fromisoformat(late["since"])
    assert timedelta() <= datetime.now(UTC) - since < timedelta(minutes=5)
    shown = offload(addresses, "alerts")
    assert shown.returncode == 1
    for part in ("warning", "IcebergOffloadLagElevated", "k2.trades", "33 minutes behind", "runbook docs/operations"):
        assert part in shown.stdout
    line = health(addresses)["alerts"]
    assert line["state"] == "fail"
    assert (
        line["text"] == "2 fire: IcebergOffloadTTLHeadroomCritical (k2.quotes), IcebergOffloadLagElevated (k2.trades)"
    )


def test_a_silenced_alert_is_marked_and_counts(servers: Monitoring, addresses: dict[str, str]) -> None:
    servers.reload(WATCHDOG, LATE)
    until(addresses, lambda a: [f.name for f in a.firing] == [LATE["alert"]] and bool(a.delivered))
    now = datetime.now(UTC)
    body = {
        "matchers": [{"name": "alertname", "value": LATE["alert"], "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(minutes=5)).isoformat(),
        "createdBy": "a test",
        "comment": "quiet",
    }
    request = urllib.request.Request(  # noqa: S310
        f"{servers.alertmanager}/api/v2/silences", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass
    code, document = until(addresses, lambda a: [f.muted for f in a.firing] == ["silenced"])
    assert (code, document["alerts"][0]["muted"]) == (1, "silenced")


def test_without_the_watchdog_nobody_knows(servers: Monitoring, addresses: dict[str, str]) -> None:
    servers.reload()
    code, document = until(addresses, lambda a: not a.watchdog)
    assert (code, document["ok"], document["alerts"]) == (1, False, [])
    said = offload(addresses, "alerts")
    assert said.returncode == 1
    assert "Watchdog does not fire" in said.stdout
    assert "no alert fires" not in said.stdout
    lines = health(addresses)
    assert lines["alerts"]["state"] == "fail"
    assert (lines["Prometheus"]["state"], lines["Prometheus"]["text"]) == ("fail", "no alert is loaded")


def test_alerts_that_reach_nobody_are_no_health(servers: Monitoring, addresses: dict[str, str]) -> None:
    servers.reload(WATCHDOG)
    away = addresses | {"OFFLOAD_ALERTMANAGER_URL": "http://127.0.0.1:1"}
    code, document = until(away, lambda a: a.watchdog)
    assert (code, document["ok"], document["delivered"]) == (1, False, False)
    assert "OFL-505" in document["problems"][0]
    # without any Alertmanager it is not known, and not asked
    code, document = told(addresses | {"OFFLOAD_ALERTMANAGER_URL": ""})
    assert (code, document["delivered"]) == (0, None)


@pytest.mark.parametrize(("url", "id"), [("http://u:never-seen@127.0.0.1:1", "OFL-505"), ("", "OFL-102")])
def test_a_prometheus_that_does_not_answer_is_a_refusal(addresses: dict[str, str], url: str, id: str) -> None:
    code, document = told(addresses | {"OFFLOAD_PROMETHEUS_URL": url})
    assert (code, document["error"]["id"]) == (1, id)
    done = offload(addresses | {"OFFLOAD_PROMETHEUS_URL": url}, "alerts")
    assert (done.returncode, done.stdout) == (1, "")
    assert id in done.stderr
    assert "never-seen" not in done.stderr + json.dumps(document)


def test_a_server_that_is_no_prometheus_is_said(servers: Monitoring, addresses: dict[str, str]) -> None:
    code, document = told(addresses | {"OFFLOAD_PROMETHEUS_URL": servers.alertmanager})
    assert (code, document["error"]["id"]) == (1, "OFL-505")
