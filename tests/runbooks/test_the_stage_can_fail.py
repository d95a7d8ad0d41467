"""On the real stage and real pages: a broken command, a deleted rule, swapped diagnoses, no resolution. Each is red.

tests/integration/test_runbook_harness.py has the same and more on a small server of its own, within seconds.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from local.paths import ROOT
from local.runbooks import watch
from local.runbooks.exercise import AS_THE_STAGE, NotAsWrittenError, exercise
from local.runbooks.faults import FAULTS
from local.runbooks.faults.common import pid_of
from local.runbooks.pages import Fence, Scenario, Step, scenarios
from local.runbooks.proof import UnprovenError
from local.runbooks.stage import Stage

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
BY_NAME = {one.name: one for one in scenarios()}
ONE, OTHER = BY_NAME["scheduler-not-started"], BY_NAME["dag-processor-down"]
SHORT = replace(AS_THE_STAGE, alert_s=60, diagnose_s=15)


def with_steps(scenario: Scenario, kind: str, steps: tuple[Step, ...]) -> Scenario:
    """The same scenario with these commands in place of its own of a kind."""
    others = tuple(fence for fence in scenario.fences if fence.kind != kind)
    return replace(scenario, fences=(*others, Fence(kind, steps, 1)), symptoms=())


def play(stage: Stage, scenario: Scenario) -> None:
    exercise(scenario, FAULTS[scenario.fault](stage), stage.prove_data, SHORT)


@contextmanager
def without_rule(stage: Stage, folder: Path, alert: str) -> Iterator[None]:
    """Prometheus with all rules of its profile but one."""
    config = stage.stack.home.etc / "prometheus.yml"
    before = config.read_text(encoding="utf-8")
    told = yaml.safe_load(before)
    shutil.copytree(ROOT / "monitoring" / "prometheus" / "rules" / "fast", folder)
    file = folder / "alerts.yaml"
    rules = yaml.safe_load(file.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != alert]
    file.write_text(yaml.safe_dump(rules), encoding="utf-8")
    told["rule_files"] = [str(folder / "*.yaml")]

    def load(text: str, there: bool) -> None:
        config.write_text(text, encoding="utf-8")
        psutil.Process(pid_of(stage, "prometheus") or 0).send_signal(signal.SIGHUP)
        watch.until(lambda: (alert in known()) is there, 60, f"Prometheus with other rules, {alert} in them: {there}")

    load(yaml.safe_dump(told), False)
    try:
        yield
    finally:
        load(before, True)


def known() -> set[str]:
    """The names of the rules that Prometheus has."""
    return {rule["name"] for group in watch.get("/api/v1/rules")["groups"] for rule in group["rules"]}


def test_a_broken_command_is_red(stage: Stage) -> None:
    first, *rest = ONE.steps("resolve")
    broken = replace(first, command=first.command.replace("start", "strat"))
    assert broken != first
    with pytest.raises(NotAsWrittenError, match=r"a step of its resolution"):
        play(stage, with_steps(ONE, "resolve", (broken, *rest)))


def test_a_deleted_rule_is_red(stage: Stage, tmp_path: Path) -> None:
    with (
        without_rule(stage, tmp_path / "rules", ONE.alert),
        pytest.raises(watch.LateError, match=rf"not within 60 s: {ONE.alert} of {ONE.name}"),
    ):
        play(stage, ONE)


@pytest.mark.needed
@pytest.mark.parametrize("scenario", BY_NAME.values(), ids=BY_NAME)
def test_a_resolution_that_does_nothing_is_red(stage: Stage, scenario: Scenario) -> None:
    """Nothing heals by itself within the time that a page's own commands need: what repairs it is the page."""
    nothing = with_steps(scenario, "resolve", (Step("true", "", 1),))
    limits = replace(AS_THE_STAGE, clear_s=75)
    stage.settle()
    with pytest.raises((NotAsWrittenError, watch.LateError, UnprovenError)) as red:
        exercise(nothing, FAULTS[scenario.fault](stage), stage.prove_data, limits, one_more_run=stage.one_more_run)
    late = "verify, after 75 s", f"{scenario.alert} clears after", "the fault is still there"
    assert any(one in str(red.value) for one in late), f"it was red for another reason: {red.value}"


def test_swapped_diagnoses_are_red(stage: Stage) -> None:
    for one, other in ((ONE, OTHER), (OTHER, ONE)):
        # what the fault before did to the metrics is not to be red here
        stage.settle()
        with pytest.raises(NotAsWrittenError, match="diagnose, after 15 s"):
            play(stage, with_steps(one, "diagnose", other.steps("diagnose")))
