"""What Prometheus says of the alerts of the one-machine stack."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from local import ports

ALWAYS = "Watchdog"
REMEMBERS = frozenset(
    f"IcebergOffload{name}"
    for name in (
        "SuccessBurnFast",
        "SuccessBurnSlow",
        "SuccessRateLow",
        "FreshnessBurnFast",
        "FreshnessBurnSlow",
        "CycleSlow",
        "CycleTooSlow",
    )
)
"""Alerts that speak of the last minutes, not of now: budgets look back up to 20 minutes also in the fast profile, and
a cycle is slow whenever two cores start servers, or work for somebody else, beside it."""
EVERY_S = 0.5
STEADY_S = 5.0
"""Two rounds of the fast rules, which are computed every 2 seconds: what is silent for less may only be late."""
LABEL = re.compile(r"\$labels\.(\w+)")
T = TypeVar("T")


class LateError(AssertionError):
    """Something did not come within its time; the message says what, and what was there instead."""


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that fires. `annotations`: as Prometheus rendered them."""

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]

    def unfilled(self, templates: Mapping[str, str]) -> str:
        """What is wrong with the annotations, held against their templates; empty: each has all of its values.

        A label that does not exist is nothing to Prometheus, and the sentence about it is without its subject.
        """
        # Prometheus puts its own words in place of a template that it can not fill
        bad = ("{{", "no value", "error expanding template")
        for name, text in self.annotations.items():
            if not text.strip() or any(word in text for word in bad):
                return f"{name}: annotations without values: {text}"
        for name, template in templates.items():
            for label in LABEL.findall(template):
                if not self.labels.get(label):
                    return f"{name} names the label {label}, which the alert does not have: {template}"
                if self.labels[label] not in self.annotations.get(name, ""):
                    return f"{name} is without its {label}: {self.annotations.get(name)}"
        return ""


def firing() -> tuple[Firing, ...]:
    """All alerts that fire now, without the one that always does. Raises OSError when Prometheus does not answer."""
    found = get("/api/v1/alerts")["alerts"]
    return tuple(
        Firing(str(a["labels"]["alertname"]), dict(a["labels"]), dict(a["annotations"]))
        for a in found
        if a["state"] == "firing" and a["labels"]["alertname"] != ALWAYS
    )


def ailing(scenario_alert: str) -> tuple[Firing, ...]:
    """The alerts that say that the stack is ill now, or that a scenario could not tell from its own."""
    return tuple(one for one in firing() if one.name == scenario_alert or one.name not in REMEMBERS)


def fires(name: str, labels: Iterable[tuple[str, str]] = ()) -> Firing | None:
    """This alert, if it fires with these labels."""
    wanted = set(labels)
    return next((one for one in firing() if one.name == name and wanted <= set(one.labels.items())), None)


def templates(name: str) -> dict[str, str]:
    """The annotations of an alert's rule, as they are written."""
    groups = get("/api/v1/rules?type=alert")["groups"]
    found = [rule["annotations"] for group in groups for rule in group["rules"] if rule["name"] == name]
    return {str(key): str(text) for one in found for key, text in one.items()}


def at_rest(name: str, labels: Iterable[tuple[str, str]] = ()) -> bool:
    """Whether an alert neither fires nor is about to, while Prometheus sees everything that it watches.

    A Prometheus that has just been started, or cannot see the server in question, knows of no alert either.
    """
    wanted = set(labels)
    alerts = get("/api/v1/alerts")["alerts"]
    mine = [a for a in alerts if a["labels"]["alertname"] == name and wanted <= set(a["labels"].items())]
    targets = get("/api/v1/targets?state=active")["activeTargets"]
    return not mine and bool(targets) and all(one["health"] == "up" for one in targets)


def until_steady(look: Callable[[], bool], limit_s: float, what: str, steady_s: float = STEADY_S) -> float:
    """Waits until `look` has been true for `steady_s`; the seconds until that began. Raises LateError.

    What a server that comes back refuses, counts as no.
    """
    began, since = time.monotonic(), None
    while True:
        try:
            well = look()
        except OSError:
            well = False
        now = time.monotonic()
        since = (now if since is None else since) if well else None
        if since is not None and now - since >= steady_s:
            return since - began
        if now - began > limit_s and since is None:
            raise LateError(f"not within {limit_s:.0f} s: {what}; firing: {', '.join(sorted(_names())) or 'nothing'}")
        time.sleep(EVERY_S)


def until(look: Callable[[], T | None], limit_s: float, what: str, every_s: float = EVERY_S) -> T:
    """The first true answer of `look`. Raises LateError with what was waited for, and what fires instead."""
    end = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > end:
            raise LateError(f"not within {limit_s:.0f} s: {what}; firing: {', '.join(sorted(_names())) or 'nothing'}")
        time.sleep(every_s)
    return found


def _names() -> set[str]:
    try:
        return {one.name for one in firing()}
    except OSError as error:
        return {f"Prometheus does not answer: {error}"}


def get(path: str) -> Any:
    """What Prometheus' API answers. Raises OSError when it does not."""
    with urllib.request.urlopen(f"http://{ports.HOST}:{ports.port('PROMETHEUS')}{path}", timeout=5) as answer:  # noqa: S310
        return json.load(answer)["data"]
