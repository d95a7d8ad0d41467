"""A real Alertmanager with the stack's own configuration, and a webhook that hears what it sends."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.offload.settings import ROOT
from local.monitoring import alertmanager_config
from monitoring.alerts import alerts
from monitoring.conditions import UNSCRAPED
from monitoring.values import load

ALERTMANAGER = ROOT / ".venv" / "tools" / "bin" / "alertmanager"
ALERTS = {one.name: one for one in alerts(load("production"))}
LIMIT_S = 20
Heard = queue.Queue[dict[str, Any]]


@pytest.fixture
def webhook() -> Iterator[tuple[str, Heard]]:
    """A listener on loopback: its URL, and every message as JSON."""
    heard: Heard = queue.Queue()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            heard.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/alerts", heard
    server.shutdown()
    thread.join(5)
    server.server_close()


@pytest.fixture
def alertmanager(webhook: tuple[str, Heard], tmp_path: Path) -> Iterator[str]:
    """An Alertmanager whose receivers are that webhook; its API's address."""
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(alertmanager_config(webhook[0], "fast")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            str(ALERTMANAGER),
            f"--config.file={tmp_path / 'alertmanager.yml'}",
            f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=error",
        ]
    )
    try:
        yield f"http://127.0.0.1:{port}/api/v2"
    finally:
        process.terminate()
        process.wait(10)


def call(url: str, body: object | None = None) -> Any:
    """The answer, once the server is up; a TimeoutError after the limit."""
    data = None if body is None else json.dumps(body).encode()
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        try:
            request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise TimeoutError(url)


def fire(api: str, *names: str, **more: str) -> None:
    """What Prometheus would send for these alerts of table k2.t. more: labels of their own."""
    body = []
    for name in names:
        one = ALERTS[f"IcebergOffload{name}"]
        labels = {"alertname": one.name, "severity": one.severity, "symptom": one.symptom} | more
        if one.symptom not in {"scheduler", "metrics"}:
            labels["table"] = "k2.t"
        annotations = one.rule(load("production"))["annotations"]
        body.append({"labels": labels, "annotations": annotations})
    call(f"{api}/alerts", body)


def hear(heard: Heard, *names: str) -> dict[str, dict[str, Any]]:
    """The alerts that were sent, by name, once all the wanted ones were."""
    found: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + LIMIT_S
    while not found.keys() >= {f"IcebergOffload{n}" for n in names}:
        left = end - time.monotonic()
        assert left > 0, f"heard only {sorted(found)}"
        try:
            message = heard.get(timeout=left)
        except queue.Empty:
            continue
        for one in message["alerts"]:
            found[one["labels"]["alertname"]] = one | {"receiver": message["receiver"]}
    return found


def states(api: str) -> dict[str, str]:
    found = call(f"{api}/alerts")
    return {one["labels"]["alertname"].removeprefix("IcebergOffload"): one["status"]["state"] for one in found}


def settled(api: str, wanted: dict[str, str]) -> dict[str, str]:
    """The states, once they are the wanted ones or the limit is over."""
    end = time.monotonic() + LIMIT_S
    while (found := states(api)) != wanted and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_a_dead_scheduler_silences_lag_and_failures_and_never_rows_in_danger(
    alertmanager: str, webhook: tuple[str, Heard]
) -> None:
    fire(alertmanager, "SchedulerDown")
    assert hear(webhook[1], "SchedulerDown")["IcebergOffloadSchedulerDown"]["receiver"] == "critical"
    fire(
        alertmanager, "LagCritical", "ConsecutiveFailures", "CycleTooSlow", "TTLHeadroomCritical", "TTLHeadroomWarning"
    )
    assert settled(
        alertmanager,
        wanted := {
            "SchedulerDown": "active",
            "LagCritical": "suppressed",
            "ConsecutiveFailures": "suppressed",
            "CycleTooSlow": "suppressed",
            "TTLHeadroomCritical": "active",
            "TTLHeadroomWarning": "active",
        },
    ) == (wanted)
    sent = hear(webhook[1], "TTLHeadroomCritical", "TTLHeadroomWarning")
    assert not {"IcebergOffloadLagCritical", "IcebergOffloadConsecutiveFailures"} & set(sent)
    critical = sent["IcebergOffloadTTLHeadroomCritical"]
    assert (critical["receiver"], critical["status"]) == ("critical", "firing")
    assert critical["annotations"]["runbook_url"].endswith("data-at-risk.md#icebergoffloadttlheadroomcritical")


def test_without_that_lag_is_sent_and_the_worse_alert_about_a_table_is_enough(
    alertmanager: str, webhook: tuple[str, Heard]
) -> None:
    fire(alertmanager, "LagCritical", "LagElevated", "SuccessRateLow")
    assert hear(webhook[1], "LagCritical", "SuccessRateLow")["IcebergOffloadSuccessRateLow"]["receiver"] == "warning"
    wanted = {"LagCritical": "active", "LagElevated": "suppressed", "SuccessRateLow": "active"}
    assert settled(alertmanager, wanted) == wanted


def test_a_broken_metrics_pipeline_silences_a_dead_scheduler_only_when_nobody_can_read_the_metrics(
    alertmanager: str, webhook: tuple[str, Heard]
) -> None:
    fire(alertmanager, "MetricsPipelineBroken", part="statsd_exporter refuses or drops lines")
    hear(webhook[1], "MetricsPipelineBroken")
    fire(alertmanager, "SchedulerDown")
    hear(webhook[1], "SchedulerDown")
    wanted = {"MetricsPipelineBroken": "active", "SchedulerDown": "active"}
    assert settled(alertmanager, wanted) == wanted
    fire(alertmanager, "MetricsPipelineBroken", part=UNSCRAPED)
    wanted = {"MetricsPipelineBroken": "active", "SchedulerDown": "suppressed"}
    assert settled(alertmanager, wanted) == wanted


def test_without_a_webhook_no_receiver_sends_anything() -> None:
    assert all(set(r) == {"name"} for r in alertmanager_config(None, "production")["receivers"])
