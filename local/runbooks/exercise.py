"""One scenario from a healthy stack to a healthy stack, step by step, each proved and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from local.runbooks import shell, watch
from local.runbooks.pages import KINDS, Scenario, Step
from local.runbooks.proof import insist
from local.runbooks.shell import Ran


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest that each step may take, seconds. healthy_s: longer than the 2 minutes for which a watermark that
    went back is remembered. stays_s: how long the alert is watched without the resolution, several rounds of the fast
    rules, whose interval is 2 s. diagnose_s: what a run says may be said by the next one only.
    """

    healthy_s: float = 200.0
    alert_s: float = 240.0
    diagnose_s: float = 120.0
    stays_s: float = 5.0
    clear_s: float = 240.0


AS_THE_STAGE = Limits()


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
    """What one exercise showed; times in seconds. `commands`: how many ran; `steps`: how many of the page these are."""

    scenario: str
    page: str
    alert: str
    to_alert_s: float = 0.0
    to_diagnose_s: float = 0.0
    to_recover_s: float = 0.0
    commands: int = 0
    steps: int = 0

    @property
    def mttr_s(self) -> float:
        """From the alert to its clearing, with no time for reading: what a machine needs that follows the page."""
        return self.to_diagnose_s + self.to_recover_s


def exercise(scenario: Scenario, fault: Fault, prove_data: Callable[[], None], limits: Limits = AS_THE_STAGE) -> Result:
    """All eight steps. `prove_data`: both verifiers; raises when a row is lost or doubled.

    Raises NotAsWrittenError, watch.LateError or UnprovenError; the fault is then undone as far as `Fault.undo` can.
    """
    result = Result(scenario.name, scenario.page, scenario.alert)
    try:
        _healthy(scenario, result, limits)
        began = time.monotonic()
        fault.cause()
        insist(fault.proof(), f"{scenario.name}: the fault was caused and is not there")
        alert = watch.until(lambda: watch.fires(scenario.alert), limits.alert_s, f"{scenario.alert} of {scenario.name}")
        result.to_alert_s = time.monotonic() - began
        insist(alert.rendered, f"annotations without values: {alert.annotations}")
        _silent(scenario)
        if scenario.symptoms:
            _until_matches(scenario, "symptom", limits.diagnose_s, result)
        began = time.monotonic()
        _until_matches(scenario, "diagnose", limits.diagnose_s, result)
        result.to_diagnose_s = time.monotonic() - began
        _stays(scenario, fault, limits.stays_s)
        began = time.monotonic()
        for step in scenario.steps("resolve"):
            _as_written(scenario, step, result)
        _until_matches(scenario, "verify", limits.clear_s, result)
        watch.until(
            lambda: not watch.fires(scenario.alert), limits.clear_s, f"{scenario.alert} clears after {scenario.name}"
        )
        result.to_recover_s = time.monotonic() - began
        insist(not fault.proof(), f"{scenario.name}: the page is through, and the fault is still there")
    except BaseException:
        # the next scenario shall find a healthy stack; what went wrong here is what is reported
        with suppress(Exception):
            fault.undo()
        raise
    fault.undo()
    prove_data()
    result.steps = sum(len(scenario.steps(kind)) for kind in KINDS)
    return result


def _healthy(scenario: Scenario, result: Result, limits: Limits) -> None:
    watch.until(lambda: not watch.ailing(scenario.alert), limits.healthy_s, f"a healthy stack before {scenario.name}")
    ran, all_match = shell.run_until_odd(scenario.steps("diagnose"))
    result.commands += len(ran)
    if all_match:
        raise NotAsWrittenError(f"{scenario.name}: its diagnosis matches a healthy system:\n" + _told(ran))


def _silent(scenario: Scenario) -> None:
    loud = {one.name for one in watch.firing()} & set(scenario.silent)
    insist(not loud, f"{scenario.name}: {', '.join(sorted(loud))} fires and should be silent")


def _stays(scenario: Scenario, fault: Fault, stays_s: float) -> None:
    end = time.monotonic() + stays_s
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
