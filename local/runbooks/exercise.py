"""One scenario from a healthy stack to a healthy stack, step by step, each proved and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from local.runbooks import shell, watch
from local.runbooks.pages import Scenario, Step
from local.runbooks.proof import insist
from local.runbooks.shell import Ran

HEALTHY_S = 150.0
ALERT_S = 240.0
DIAGNOSE_S = 60.0
STAYS_S = 8.0
"""How long the alert is watched without the resolution: several rounds of the fast rules, whose interval is 2 s."""
CLEAR_S = 240.0


class NotAsWrittenError(AssertionError):
    """The page and the system disagree; the message shows the command, its output, and what the page says."""


@dataclass(frozen=True)
class Fault:
    """A real fault. `proof`: whether it is there, seen without any of the runbook's means.

    `undo`: only for what the resolution leaves behind by design, and for a test that broke off.
    """

    cause: Callable[[], None]
    proof: Callable[[], bool]
    undo: Callable[[], None] = field(default=lambda: None)


@dataclass
class Result:
    """What one exercise showed; times in seconds. `commands`: how many commands of the page ran."""

    scenario: str
    page: str
    alert: str
    to_alert_s: float = 0.0
    to_diagnose_s: float = 0.0
    to_recover_s: float = 0.0
    commands: int = 0

    @property
    def mttr_s(self) -> float:
        """From the alert to its clearing, with no time for reading: what a machine needs that follows the page."""
        return self.to_diagnose_s + self.to_recover_s


def exercise(scenario: Scenario, fault: Fault, prove_data: Callable[[], None]) -> Result:
    """All eight steps. `prove_data`: both verifiers; raises when a row is lost or doubled.

    Raises NotAsWrittenError, watch.LateError or UnprovenError; the fault is then undone as far as `Fault.undo` can.
    """
    result = Result(scenario.name, scenario.page, scenario.alert)
    try:
        _healthy(scenario, result)
        began = time.monotonic()
        fault.cause()
        insist(fault.proof(), f"{scenario.name}: the fault was caused and is not there")
        alert = watch.until(lambda: watch.fires(scenario.alert), ALERT_S, f"{scenario.alert} of {scenario.name}")
        result.to_alert_s = time.monotonic() - began
        insist(alert.rendered, f"annotations without values: {alert.annotations}")
        _silent(scenario)
        began = time.monotonic()
        _until_matches(scenario, "diagnose", DIAGNOSE_S, result)
        result.to_diagnose_s = time.monotonic() - began
        _stays(scenario, fault)
        began = time.monotonic()
        for step in scenario.steps("resolve"):
            _as_written(scenario, step, result)
        _until_matches(scenario, "verify", CLEAR_S, result)
        watch.until(lambda: not watch.fires(scenario.alert), CLEAR_S, f"{scenario.alert} clears after {scenario.name}")
        result.to_recover_s = time.monotonic() - began
        insist(not fault.proof(), f"{scenario.name}: the page is through, and the fault is still there")
    except BaseException:
        # the next scenario shall find a healthy stack; what went wrong here is what is reported
        with suppress(Exception):
            fault.undo()
        raise
    fault.undo()
    prove_data()
    return result


def _healthy(scenario: Scenario, result: Result) -> None:
    watch.until(lambda: not watch.firing(), HEALTHY_S, f"a healthy stack before {scenario.name}")
    ran, all_match = shell.run_until_odd(scenario.steps("diagnose"))
    result.commands += len(ran)
    if all_match:
        raise NotAsWrittenError(f"{scenario.name}: its diagnosis matches a healthy system:\n" + _told(ran))


def _silent(scenario: Scenario) -> None:
    loud = {one.name for one in watch.firing()} & set(scenario.silent)
    insist(not loud, f"{scenario.name}: {', '.join(sorted(loud))} fires and should be silent")


def _stays(scenario: Scenario, fault: Fault) -> None:
    end = time.monotonic() + STAYS_S
    while time.monotonic() < end:
        insist(watch.fires(scenario.alert), f"{scenario.name}: {scenario.alert} cleared without its resolution")
        time.sleep(watch.EVERY_S)
    insist(fault.proof(), f"{scenario.name}: the fault went away without its resolution")


def _as_written(scenario: Scenario, step: Step, result: Result) -> None:
    ran = shell.run(step)
    result.commands += 1
    if ran.code != 0 or not ran.matches:
        raise NotAsWrittenError(f"{scenario.name} ({scenario.page}), a step of its resolution: {ran}")


def _until_matches(scenario: Scenario, kind: str, limit_s: float, result: Result) -> None:
    """Run the fences of a kind until every command prints what the page says; not all is there at once."""
    end = time.monotonic() + limit_s
    while True:
        ran, all_match = shell.run_until_odd(scenario.steps(kind))
        result.commands += len(ran)
        if all_match:
            return
        if time.monotonic() > end:
            raise NotAsWrittenError(f"{scenario.name} ({scenario.page}), {kind}, after {limit_s:.0f} s:\n{_told(ran)}")
        time.sleep(watch.EVERY_S)


def _told(ran: list[Ran]) -> str:
    return "\n".join(str(one) for one in ran)
