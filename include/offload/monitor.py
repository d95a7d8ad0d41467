"""Asks the servers that watch the offload: Airflow's health page, statsd_exporter, Prometheus, Alertmanager.

Every call has a short limit. A login in an address (`http://user:password@host`) is used and never shown.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from include.offload.errors import MONITORING_UNREACHABLE, OffloadError
from include.offload.settings import Settings

LIMIT_S = 5.0
WATCHDOG = "Watchdog"
"""The alert that always fires: without it nothing is known about the others."""
SEVERITIES = ("critical", "warning", "info", "none")


def address(url: str) -> str:
    """A URL as it may be shown: without login."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def ask(server: str, base: str, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
    """GET `base`/`path`. server: its name for people. Raises OFL-505 when there is no answer, or an error as answer.

    The environment's proxies are not used: these servers stand beside this one. `SSL_CERT_FILE` names another CA.
    """
    try:
        with httpx.Client(timeout=LIMIT_S, trust_env=False, verify=ssl.create_default_context()) as client:
            answer = client.get(f"{base}{path}", params=params)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # httpx puts the whole URL, and so a login, into some of its messages
        why = type(error).__name__ if "@" in base else (str(error) or type(error).__name__)
        raise OffloadError(MONITORING_UNREACHABLE, f"{server} at {address(base)}: {why}") from None
    if answer.status_code >= 400:
        raise OffloadError(MONITORING_UNREACHABLE, f"{server} at {address(base)}{path} answered {answer.status_code}")
    return answer


def ask_json(server: str, base: str, path: str, params: Mapping[str, str] | None = None) -> Any:
    """The same, as JSON."""
    answer = ask(server, base, path, params)
    try:
        return answer.json()
    except ValueError:
        raise OffloadError(MONITORING_UNREACHABLE, f"{server} at {address(base)}{path} sent no JSON") from None


def prometheus(base: str, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The `data` of an answer of Prometheus' API. Raises OFL-505."""
    answer = ask_json("Prometheus", base, f"/api/v1/{path}", params)
    if not isinstance(answer, dict) or answer.get("status") != "success" or not isinstance(answer.get("data"), dict):
        raise OffloadError(MONITORING_UNREACHABLE, f"what answers at {address(base)}/api/v1/{path} is no Prometheus")
    return cast("dict[str, Any]", answer["data"])


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that fires, or is about to (`pending`). since: UTC. muted: `silenced` or `inhibited`, None: neither."""

    name: str
    severity: str
    state: str
    table: str | None
    since: datetime
    summary: str
    description: str
    runbook: str | None
    labels: dict[str, str]
    muted: str | None = None


@dataclass(frozen=True, slots=True)
class Alerts:
    """What Prometheus says of its alerts. watchdog: whether the one that always fires does.

    delivered: whether Alertmanager has the watchdog too; None when no Alertmanager is set up.
    problems: what could not be asked.
    """

    firing: tuple[Alert, ...]
    pending: tuple[Alert, ...]
    watchdog: bool
    delivered: bool | None
    problems: tuple[str, ...] = ()

    @property
    def quiet(self) -> bool:
        """Nothing fires, and that is known: the alerts are evaluated and delivered."""
        return not self.firing and self.watchdog and self.delivered is not False


def alerts(settings: Settings) -> Alerts:
    """The alerts of now, the worst first. Raises OFL-102 without a Prometheus, OFL-505 when it does not answer."""
    data = prometheus(settings.required_server("prometheus"), "alerts")
    found = [_alert(a) for a in data.get("alerts", ())]
    watchdog = any(a.name == WATCHDOG and a.state == "firing" for a in found)
    delivered: bool | None = None
    problems: tuple[str, ...] = ()
    muted: dict[frozenset[tuple[str, str]], str] = {}
    if base := settings.server("alertmanager"):
        try:
            heard = ask_json("Alertmanager", base, "/api/v2/alerts")
            delivered = any(a["labels"].get("alertname") == WATCHDOG for a in heard)
            muted = {_key(a["labels"]): how for a in heard if (how := _muted(a.get("status", {})))}
        except OffloadError as error:
            delivered, problems = False, (str(error),)
    shown = sorted(
        (replace(a, muted=muted.get(_key(a.labels))) for a in found if a.name != WATCHDOG),
        key=lambda a: (_rank(a.severity), a.since, a.name, a.table or ""),
    )
    return Alerts(
        tuple(a for a in shown if a.state == "firing"),
        tuple(a for a in shown if a.state == "pending"),
        watchdog,
        delivered,
        problems,
    )


def _alert(said: Mapping[str, Any]) -> Alert:
    labels = {str(k): str(v) for k, v in said["labels"].items()}
    notes: Mapping[str, str] = said.get("annotations", {})
    return Alert(
        name=labels.get("alertname", ""),
        severity=labels.get("severity", "none"),
        state=str(said["state"]),
        table=labels.get("table"),
        since=instant(str(said["activeAt"])),
        summary=str(notes.get("summary", "")),
        description=str(notes.get("description", "")),
        runbook=notes.get("runbook_url"),
        labels=labels,
    )


def _muted(status: Mapping[str, Any]) -> str | None:
    if status.get("silencedBy"):
        return "silenced"
    return "inhibited" if status.get("inhibitedBy") else None


def _key(labels: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((str(k), str(v)) for k, v in labels.items())


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def instant(text: str) -> datetime:
    """An RFC 3339 instant in UTC; Prometheus writes nanoseconds."""
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[: min(digits, 6)]}{rest[digits:]}"
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def airflow_health(base: str) -> dict[str, dict[str, str | None]]:
    """What Airflow's API server says of each component; needs no login. Raises OFL-505."""
    answer = ask_json("Airflow", base, "/api/v2/monitor/health")
    if not isinstance(answer, dict) or "scheduler" not in answer:
        raise OffloadError(MONITORING_UNREACHABLE, f"what answers at {address(base)} is no Airflow")
    return {str(k): v for k, v in answer.items() if isinstance(v, dict)}


def metrics_page(settings: Settings) -> str:
    """What statsd_exporter serves to Prometheus. Raises OFL-102, OFL-505."""
    return ask("statsd_exporter", settings.required_server("metrics"), "/metrics").text
