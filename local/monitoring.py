"""Prometheus and Alertmanager of one machine: the files of `monitoring/` with this stack's addresses.

`OFFLOAD_ALERT_PROFILE` chooses the rules: `production` (default) or `fast`, whose durations suit a test.
`OFFLOAD_ALERT_WEBHOOK` is the URL that every receiver of Alertmanager posts to; without it nothing is sent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from local import ports, secrets
from local.paths import ROOT, TOOLS, Home

PROFILES = ("production", "fast")
SCRAPE = {"production": "15s", "fast": "2s"}
"""How often metrics are fetched and rules evaluated."""
RESEND = {"production": "1m", "fast": "5s"}
"""How often a firing alert is sent again; the first is Prometheus' default."""
KEPT = "15d"
"""How long Prometheus keeps samples: the longest window of a rule is three days."""
CONFIG = ROOT / "monitoring" / "prometheus" / "prometheus.yml"
ROUTES = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
TARGETS = {"statsd-exporter": "STATSD_METRICS", "prometheus": "PROMETHEUS", "alertmanager": "ALERTMANAGER"}


def _program(name: str) -> str:
    found = TOOLS / "bin" / name
    if not found.exists():
        raise FileNotFoundError(f"{found} is missing: run `make setup`")
    return str(found)


def _address(name: str) -> str:
    return f"{ports.HOST}:{ports.port(name)}"


def profile() -> str:
    """`OFFLOAD_ALERT_PROFILE`. Raises ValueError for a name that is none."""
    name = os.environ.get("OFFLOAD_ALERT_PROFILE") or PROFILES[0]
    if name not in PROFILES:
        raise ValueError(f"OFFLOAD_ALERT_PROFILE={name!r} is none of {', '.join(PROFILES)}")
    return name


def prometheus_command(home: Home) -> list[str]:
    """The command line of Prometheus."""
    return [
        _program("prometheus"),
        f"--config.file={home.etc / 'prometheus.yml'}",
        f"--storage.tsdb.path={home.prometheus}",
        f"--storage.tsdb.retention.time={KEPT}",
        f"--web.listen-address={_address('PROMETHEUS')}",
        # what is sent before Alertmanager is found is lost until it is sent again
        f"--rules.alert.resend-delay={RESEND[profile()]}",
        "--log.level=warn",
    ]


def prepare_prometheus(home: Home) -> None:
    """Write its configuration for this stack."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    chosen = profile()
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), SCRAPE[chosen])
    config["rule_files"] = [str(CONFIG.parent / "rules" / chosen / "*.yaml")]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [_address(TARGETS[job["job_name"]])]}]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [_address("ALERTMANAGER")]}]}]
    _write(home.etc / "prometheus.yml", config)


def alertmanager_command(home: Home) -> list[str]:
    """The command line of Alertmanager, alone: no cluster port is opened."""
    return [
        _program("alertmanager"),
        f"--config.file={home.etc / 'alertmanager.yml'}",
        f"--storage.path={home.alertmanager}",
        f"--web.listen-address={_address('ALERTMANAGER')}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


def prepare_alertmanager(home: Home) -> None:
    """Write its configuration for this stack."""
    config = alertmanager_config(os.environ.get("OFFLOAD_ALERT_WEBHOOK"), profile())
    _write(home.etc / "alertmanager.yml", config)


def alertmanager_config(webhook: str | None, chosen: str) -> dict[str, Any]:
    """The routes with every receiver as a webhook of this URL, if there is one; waits of a second when `fast`."""
    config: dict[str, Any] = yaml.safe_load(ROUTES.read_text(encoding="utf-8"))
    if webhook:
        for receiver in config["receivers"]:
            receiver["webhook_configs"] = [{"url": webhook, "send_resolved": receiver["name"] != "watchdog"}]
    if chosen == "fast":
        for route in (config["route"], *config["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "2s"}
    return config


def _write(path: Path, config: dict[str, Any]) -> None:
    # a webhook's URL can hold a token
    secrets.write(path, yaml.safe_dump(config, sort_keys=False))
