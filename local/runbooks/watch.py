"""What Prometheus says of the alerts of the one-machine stack."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
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
T = TypeVar("T")


class LateError(AssertionError):
    """Something did not come within its time; the message says what, and what was there instead."""


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that fires. `annotations`: as Prometheus rendered them."""

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def rendered(self) -> bool:
        """Whether every annotation has its values."""
        # Prometheus puts its own words in place of a template that it can not fill
        bad = ("{{", "no value", "error expanding template")
        return all(text and not any(word in text for word in bad) for text in self.annotations.values())


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


def fires(name: str) -> Firing | None:
    """This alert, if it fires."""
    return next((one for one in firing() if one.name == name), None)


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
