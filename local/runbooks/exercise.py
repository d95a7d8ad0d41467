"""One scenario from a healthy stack to a healthy stack, step by step, each proved and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from local.runbooks import shell, watch
from local.runbooks.pages import KINDS, Scenario, Step, of_alert
from local.runbooks.proof import insist
from local.runbooks.shell import Ran


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest that each step may take, seconds. stays_s: how long the alert is watched without the resolution at
    least, several rounds of the fast rules, whose interval is 2 s; run_s: the longest until one more run has ended.
    diagnose_s: what a run says may be said by the next one only.
    """

    healthy_s: float = 200.0
    alert_s: float = 240.0
    diagnose_s: float = 120.0
    stays_s: float = 5.0
    run_s: float = 200.0
    clear_s: float = 240.0


AS_THE_STAGE = Limits()
OTHERS_LIMIT_S = 45.0
"""How long a question of another scenario's diagnosis may take; its own may take longer."""
OF_THE_LAST_RUNS = frozenset(
    f"IcebergOffload{name}" for name in ("ConsecutiveFailures", "CycleTooSlow", "RowsMismatch")
)
"""Alerts that speak of runs that have ended: they go on firing for a while after a fault that healed at once."""
REFUSED = frozenset({"IcebergOffloadConsecutiveFailures"})
"""What may fire while a page that pauses the DAG repairs: a run that stood between two of its tasks is refused when it
goes on (OFL-402), and the next one is green. The page says so; in production it takes three failures in a row."""
DATA = frozenset({"IcebergOffloadRowsMismatch", "IcebergOffloadWatermarkRegressed"})
"""What says that rows are wrong: silent in every exercise but those that are about it."""
OneMoreRun = Callable[[datetime, datetime], bool | None]
"""Whether a run that began after the first instant has ended after the second one; None: no run can."""


FailedOtherwise = Callable[[datetime], list[str]]
"""What failed after an instant and was not a run refused for being passed, one text each."""


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
    """What one exercise showed; times in seconds. `commands`: how many ran; `steps`: how many of the page these are.

    diagnosed: what each command of its diagnosis, and of those that it may be taken for, printed meanwhile.
    """

    scenario: str
    page: str
    alert: str
    to_alert_s: float = 0.0
    to_diagnose_s: float = 0.0
    to_recover_s: float = 0.0
    commands: int = 0
    steps: int = 0
    diagnosed: dict[str, str] = field(default_factory=dict)

    @property
    def mttr_s(self) -> float:
        """From the alert to its clearing, with no time for reading: what a machine needs that follows the page."""
        return self.to_diagnose_s + self.to_recover_s


def exercise(
    scenario: Scenario,
    fault: Fault,
    prove_data: Callable[[], None],
    limits: Limits = AS_THE_STAGE,
    one_more_run: OneMoreRun = lambda _, __: None,
    leads_to: Callable[[str], str] = of_alert,
    failed_otherwise: FailedOtherwise = lambda _: [],
    others: Sequence[Scenario] = (),
) -> Result:
    """All eight steps. `prove_data`: both verifiers; raises when a row is lost or doubled.

    leads_to: the `file#heading` that an alert's address has to end with. others: scenarios that a reader could take it
    for; while the fault is there, none of their diagnoses may match.

    Raises NotAsWrittenError, watch.LateError or UnprovenError; the fault is then undone as far as `Fault.undo` can.
    """
    result = Result(scenario.name, scenario.page, scenario.alert)
    try:
        _healthy(scenario, result, limits)
        began, caused = time.monotonic(), datetime.now(UTC)
        fault.cause()
        insist(fault.proof(), f"{scenario.name}: the fault was caused and is not there")

        def fires() -> watch.Firing | None:
            _silent(scenario, only=DATA)
            return watch.fires(scenario.alert, scenario.labels)

        alert = watch.until(fires, limits.alert_s, f"{scenario.alert} of {scenario.name}")
        result.to_alert_s, fired = time.monotonic() - began, datetime.now(UTC)
        _well_told(scenario, alert, leads_to(alert.name))
        _silent(scenario)
        if scenario.symptoms:
            _until_matches(scenario, "symptom", limits.diagnose_s, result, lambda: _silent(scenario))
        began = time.monotonic()
        last = _until_matches(scenario, "diagnose", limits.diagnose_s, result, lambda: _silent(scenario))
        result.diagnosed = {one.step.command: one.output for one in last}
        result.to_diagnose_s = time.monotonic() - began
        _no_other_matches(scenario, others, result)
        _stays(scenario, fault, limits, lambda: one_more_run(caused, fired))
        began, mending = time.monotonic(), datetime.now(UTC)
        for step in scenario.steps("resolve"):
            _as_written(scenario, step, result)
        _until_matches(scenario, "verify", limits.clear_s, result, lambda: _silent_in_repair(scenario))
        verified = time.monotonic() - began
        result.to_recover_s = verified + watch.until_steady(
            lambda: watch.at_rest(scenario.alert, scenario.labels),
            limits.clear_s,
            f"{scenario.alert} clears after {scenario.name}",
        )
        _silent_at_the_end(scenario, limits)
        if _pauses(scenario) and REFUSED & set(scenario.silent):
            failed = failed_otherwise(mending)
            insist(not failed, f"{scenario.name}: failed while its page repaired: {'; '.join(failed)}")
        insist(not fault.proof(), f"{scenario.name}: the page is through, and the fault is still there")
        # before anything else is repaired: this is the page's work alone
        prove_data()
    except BaseException:
        # the next scenario shall find a healthy stack; what went wrong here is what is reported
        with suppress(Exception):
            fault.undo()
        raise
    fault.undo()
    result.steps = sum(len(scenario.steps(kind)) for kind in KINDS)
    return result


def _healthy(scenario: Scenario, result: Result, limits: Limits) -> None:
    watch.until(lambda: not watch.ailing(scenario.alert), limits.healthy_s, f"a healthy stack before {scenario.name}")
    ran, all_match = shell.run_until_odd(scenario.steps("diagnose"))
    result.commands += len(ran)
    if all_match:
        raise NotAsWrittenError(f"{scenario.name}: its diagnosis matches a healthy system:\n" + _told(ran))


def _well_told(scenario: Scenario, alert: watch.Firing, heading: str) -> None:
    """The alert says what it is about, and leads to the page that leads to this scenario."""
    wrong = alert.unfilled(watch.templates(alert.name))
    insist(not wrong, f"{scenario.name}: {wrong}")
    url = alert.annotations.get("runbook_url", "")
    insist(url.endswith(heading), f"{scenario.name}: {alert.name} leads to {url or 'no runbook'}")


def _silent(scenario: Scenario, but: frozenset[str] = frozenset(), only: frozenset[str] | None = None) -> None:
    forbidden = set(scenario.silent) | DATA - {scenario.alert} - set(scenario.also)
    loud = {one.name for one in watch.firing()} & (forbidden if only is None else forbidden & only) - but
    insist(not loud, f"{scenario.name}: {', '.join(sorted(loud))} fires and should be silent")


def _silent_in_repair(scenario: Scenario) -> None:
    # a server that the page stops is missed meanwhile, and that is right
    if not any("stack stop" in step.command for step in scenario.steps("resolve")):
        _silent(scenario, REFUSED if _pauses(scenario) else frozenset())


def _silent_at_the_end(scenario: Scenario, limits: Limits) -> None:
    if _pauses(scenario):
        late = REFUSED & set(scenario.silent)
        watch.until(
            lambda: not late & {one.name for one in watch.firing()},
            limits.run_s,
            f"an end of the alert on the run that {scenario.name} paused",
        )
    _silent(scenario)


def _pauses(scenario: Scenario) -> bool:
    return any("dag pause" in step.command for step in scenario.steps("resolve"))


def _stays(scenario: Scenario, fault: Fault, limits: Limits, one_more: Callable[[], bool | None]) -> None:
    """Without the resolution the alert stays: for a while, or until one more run has come that might have healed it."""
    began = time.monotonic()
    by_runs = scenario.alert in OF_THE_LAST_RUNS
    while (ended := one_more() if by_runs else None) is False or time.monotonic() - began < limits.stays_s:
        still = watch.fires(scenario.alert, scenario.labels)
        insist(still, f"{scenario.name}: {scenario.alert} cleared without its resolution")
        _silent(scenario)
        late = ended is False and time.monotonic() - began > limits.run_s
        insist(not late, f"{scenario.name}: no run ended within {limits.run_s:.0f} s that could have healed it")
        time.sleep(watch.EVERY_S)
    insist(fault.proof(), f"{scenario.name}: the fault went away without its resolution")


def _no_other_matches(scenario: Scenario, others: Sequence[Scenario], result: Result) -> None:
    """What was asked already is not asked again: the fault is the same. A question that this fault leaves without an
    answer, as one to a ledger that somebody has locked, does not match.
    """
    for other in others:
        for step in other.steps("diagnose"):
            if step.command not in result.diagnosed:
                result.diagnosed[step.command] = shell.run(step, OTHERS_LIMIT_S).output
                result.commands += 1
            if not step.matches(result.diagnosed[step.command]):
                break
        else:
            raise NotAsWrittenError(f"{scenario.name}: the diagnosis of {other.name} ({other.page}) matches as well")


def _as_written(scenario: Scenario, step: Step, result: Result) -> None:
    ran = shell.run(step)
    result.commands += 1
    if ran.code != 0 or not ran.matches:
        raise NotAsWrittenError(f"{scenario.name} ({scenario.page}), a step of its resolution: {ran}")


def _until_matches(
    scenario: Scenario, kind: str, limit_s: float, result: Result, meanwhile: Callable[[], None]
) -> list[Ran]:
    """Run the fences of a kind until every command prints what the page says; not all is there at once. Those of
    `verify` have to end with 0 too: what they print may be right by chance.

    What they printed then. `meanwhile` is asked after each round.
    """
    end = time.monotonic() + limit_s
    while True:
        ran, all_match = shell.run_until_odd(scenario.steps(kind))
        result.commands += len(ran)
        meanwhile()
        if all_match and not (kind == "verify" and any(one.code for one in ran)):
            return ran
        if time.monotonic() > end:
            raise NotAsWrittenError(f"{scenario.name} ({scenario.page}), {kind}, after {limit_s:.0f} s:\n{_told(ran)}")
        time.sleep(watch.EVERY_S)


def _told(ran: list[Ran]) -> str:
    return "\n".join(str(one) for one in ran)
