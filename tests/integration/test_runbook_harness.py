"""The exercises of the runbooks can fail: a page, a rule or a fault that is not as it says turns them red.

A real Prometheus watches a small server; a page with two scenarios says how to repair it. Each test spoils one thing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from local.ports import HOST
from local.runbooks import pages
from local.runbooks.drill import DAMAGED, GIVEN_UP, SOLVED, Drill
from local.runbooks.exercise import Fault, Limits, NotAsWrittenError, Result, exercise
from local.runbooks.hints import hints
from local.runbooks.pages import PageError, Scenario
from local.runbooks.proof import UnprovenError
from local.runbooks.watch import LateError
from tests.support import victim
from tests.support.prometheus import Monitoring, monitoring

pytestmark = pytest.mark.timeout(120)
LIMITS = Limits(healthy_s=30, alert_s=30, diagnose_s=2, stays_s=2, clear_s=30)
SHORT = replace(LIMITS, alert_s=5, clear_s=5, healthy_s=5)
DOWN: dict[str, Any] = {
    "alert": "VictimDown",
    "expr": 'up{job="victim"} == 0',
    "annotations": {
        "summary": "{{ $labels.job }} is down",
        "description": "{{ $value }}",
        "runbook_url": "https://pages/iceberg-victim.md#victimdown",
    },
}
VICTIM_S = "iceberg-victim.md#victimdown"
WATCHDOG: dict[str, Any] = {"alert": "Watchdog", "expr": "vector(1)"}
PAGE = """# A runbook

### Stopped
<!-- scenario: stopped
alert: VictimDown
fault: stopped
silent: [Other]
tree: [victim]
labels: {{job: victim}}
-->

```console diagnose
$ {victim} status
stopped
```

```console resolve
$ {victim} start
started
```

```console verify
$ {victim} status
running
```

MTTR: best 1 min, typical 2 min, worst 3 min.

### Hung
<!-- scenario: hung
alert: VictimDown
fault: hung
silent: [Other]
tree: [victim]
-->

```console diagnose
$ {victim} status
hung
```

```console resolve
$ {victim} go-on
goes on
```

```console verify
$ {victim} status
running
```

MTTR: best 1 min, typical 2 min, worst 3 min.
"""


@dataclass
class Scene:
    """A Prometheus that watches the victim, and the folder of the page about it."""

    prometheus: Monitoring
    folder: Path

    def write(self, *changes: tuple[str, str]) -> dict[str, Scenario]:
        """The page with these replacements, each of which must change something; its scenarios by name."""
        text = PAGE.format(victim=f"{sys.executable} {victim.__file__} {self.folder}")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        page = self.folder / "iceberg-victim.md"
        page.write_text(text)
        return {one.name: one for one in pages.read(page).scenarios}

    def stopped(self) -> Fault:
        return Fault(
            lambda: victim.send(self.folder, signal.SIGKILL),
            lambda: victim.status(self.folder) == "stopped",
            self.well,
        )

    def hung(self) -> Fault:
        return Fault(
            lambda: victim.send(self.folder, signal.SIGSTOP),
            lambda: victim.status(self.folder) == "hung",
            self.well,
        )

    def well(self) -> None:
        if victim.status(self.folder) == "hung":
            victim.send(self.folder, signal.SIGCONT)
        victim.start(self.folder)

    def play(self, scenario: Scenario, fault: Fault | None = None, limits: Limits = LIMITS) -> Result:
        return exercise(
            scenario, fault or getattr(self, scenario.fault)(), lambda: None, limits, leads_to=VICTIM_S.format
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("harness")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    (folder / "port").write_text(str(port))
    victim.start(folder)
    with monitoring(folder, {"victim": f"{HOST}:{port}"}) as prometheus, pytest.MonkeyPatch.context() as env:
        env.setenv("OFFLOAD_PORT_PROMETHEUS", prometheus.prometheus.rpartition(":")[2])
        yield Scene(prometheus, folder)
    victim.send(folder, signal.SIGKILL)


@pytest.fixture
def scene(running: Scene) -> Scene:
    """The same, well and with its rule."""
    running.well()
    running.prometheus.reload(DOWN, WATCHDOG)
    return running


@pytest.mark.parametrize("name", ["stopped", "hung"])
def test_what_is_as_written_is_green(scene: Scene, name: str) -> None:
    result = scene.play(scene.write()[name])
    assert result.to_alert_s > 0
    assert result.to_recover_s > 0
    assert (result.steps, result.commands >= 4) == (3, True)
    assert victim.status(scene.folder) == "running"


def test_a_broken_command_is_red(scene: Scene) -> None:
    scenario = scene.write((" start\nstarted", " strt\n..."))["stopped"]
    with pytest.raises(NotAsWrittenError, match=r"(?s)a step of its resolution.*no such command: strt.*exit 2"):
        scene.play(scenario)
    assert victim.status(scene.folder) == "running", "the fault was not undone"


def test_a_resolution_that_repairs_nothing_is_red(scene: Scene) -> None:
    scenario = scene.write((" start\nstarted", " status\nstopped"))["stopped"]
    with pytest.raises(NotAsWrittenError, match=r"(?s)verify, after 5 s.*stopped.*the page says.*running"):
        scene.play(scenario, limits=replace(LIMITS, clear_s=5))


def test_a_deleted_rule_is_red(scene: Scene) -> None:
    scene.prometheus.reload(WATCHDOG)
    with pytest.raises(LateError, match=r"not within 5 s: VictimDown of stopped; firing: nothing"):
        scene.play(scene.write()["stopped"], limits=SHORT)


def test_swapped_diagnoses_are_red(scene: Scene) -> None:
    told = scene.write()
    swapped = {"stopped": told["hung"].steps("diagnose"), "hung": told["stopped"].steps("diagnose")}
    for name, steps in swapped.items():
        fences = tuple(replace(one, steps=steps) if one.kind == "diagnose" else one for one in told[name].fences)
        with pytest.raises(NotAsWrittenError, match=r"diagnose, after 2 s"):
            scene.play(replace(told[name], fences=fences))


def test_a_diagnosis_of_everything_is_red(scene: Scene) -> None:
    scenario = scene.write((" status\nstopped\n", " status\n...\n"))["stopped"]
    with pytest.raises(NotAsWrittenError, match="its diagnosis matches a healthy system"):
        scene.play(scenario)


def test_a_verification_that_never_matches_is_red(scene: Scene) -> None:
    scenario = scene.write((" status\nrunning\n", " status\nRUNNING\n"))["stopped"]
    with pytest.raises(NotAsWrittenError, match="verify, after 5 s"):
        scene.play(scenario, limits=replace(LIMITS, clear_s=5))


def test_a_fault_that_does_not_happen_is_red(scene: Scene) -> None:
    nothing = Fault(lambda: None, lambda: victim.status(scene.folder) == "stopped")
    with pytest.raises(UnprovenError, match="the fault was caused and is not there"):
        scene.play(scene.write()["stopped"], nothing)


def test_an_alert_that_clears_by_itself_is_red(scene: Scene) -> None:
    brief = DOWN | {"expr": "changes(up{job='victim'}[3s]) > 0"}
    scene.prometheus.reload(brief, WATCHDOG)
    with pytest.raises(UnprovenError, match="cleared without its resolution"):
        scene.play(scene.write()["stopped"], limits=replace(LIMITS, stays_s=15))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (DOWN | {"annotations": {"summary": "{{ $labels.nothing.here }} is down"}}, "annotations without values"),
        (DOWN | {"annotations": {"summary": "{{ $labels.jbo }} is down"}}, "names the label jbo"),
        (DOWN | {"annotations": {"summary": "it is down", "runbook_url": "x.md#other"}}, "leads to x.md#other"),
        (DOWN | {"alert": "Other"}, "Other fires and should be silent"),
    ],
    ids=["annotation without its value", "a misspelt label", "another heading", "an alert that should be silent"],
)
def test_a_rule_that_says_something_else_is_red(scene: Scene, rule: dict[str, Any], why: str) -> None:
    scene.prometheus.reload(*([DOWN] if rule["alert"] != DOWN["alert"] else []), rule, WATCHDOG)
    with pytest.raises(UnprovenError, match=why):
        scene.play(scene.write()["stopped"])


def test_an_alert_that_should_be_silent_and_comes_a_little_later_is_red(scene: Scene) -> None:
    scene.prometheus.reload(DOWN, DOWN | {"alert": "Other", "for": "4s"}, WATCHDOG)
    with pytest.raises(UnprovenError, match="Other fires and should be silent"):
        scene.play(scene.write()["stopped"], limits=replace(LIMITS, stays_s=10))


def test_the_alert_of_another_server_is_not_the_scenario_s(scene: Scene) -> None:
    scenario = scene.write(("labels: {job: victim}", "labels: {job: another}"))["stopped"]
    with pytest.raises(LateError, match="VictimDown of stopped"):
        scene.play(scenario, limits=SHORT)


def test_a_diagnosis_that_fits_another_scenario_too_is_red(scene: Scene) -> None:
    told = scene.write()
    assert exercise(
        told["stopped"], scene.stopped(), lambda: None, LIMITS, leads_to=VICTIM_S.format, others=[told["hung"]]
    ).steps
    both = scene.write((" status\nhung", " status\n...ed"))["hung"]
    with pytest.raises(NotAsWrittenError, match=r"the diagnosis of hung \(iceberg-victim.md\) matches as well"):
        exercise(told["stopped"], scene.stopped(), lambda: None, LIMITS, leads_to=VICTIM_S.format, others=[both])


def test_an_alert_of_past_runs_is_watched_until_one_more_run_has_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run heals what the page should have healed, long after the shortest look."""
    monkeypatch.setattr("local.runbooks.exercise.OF_THE_LAST_RUNS", frozenset({"VictimDown"}))
    began: list[float] = []

    def healing_run(*_: object) -> bool:
        began.append(time.monotonic())
        if time.monotonic() - began[0] > 4:
            victim.start(scene.folder)
        return time.monotonic() - began[0] > 12

    fault = scene.stopped()
    with pytest.raises(UnprovenError, match="cleared without its resolution"):
        exercise(
            scene.write()["stopped"], fault, lambda: None, LIMITS, one_more_run=healing_run, leads_to=VICTIM_S.format
        )
    began.clear()
    with pytest.raises(UnprovenError, match="no run ended within 3 s"):
        exercise(
            scene.write()["stopped"],
            fault,
            lambda: None,
            replace(LIMITS, run_s=3),
            one_more_run=lambda _, __: False,
            leads_to=VICTIM_S.format,
        )


def test_a_run_that_fails_for_another_reason_while_the_page_pauses_is_red(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a run that was passed is excused: the alert alone does not say why it fires."""
    monkeypatch.setattr("local.runbooks.exercise.REFUSED", frozenset({"Other"}))
    scenario = scene.write((" start\nstarted", " start # dag pause\nstarted"))["stopped"]
    with pytest.raises(UnprovenError, match="failed while its page repaired: offload of one: OFL-201"):
        exercise(
            scenario,
            scene.stopped(),
            lambda: None,
            LIMITS,
            leads_to=VICTIM_S.format,
            failed_otherwise=lambda since: ["offload of one: OFL-201"] if since.tzinfo else [],
        )


@pytest.mark.parametrize("pauses", [True, False])
def test_only_a_page_that_pauses_may_leave_a_refused_run_behind(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, pauses: bool
) -> None:
    """Its alert comes with the repair and ends by itself; where nothing was paused it is another fault."""
    monkeypatch.setattr("local.runbooks.exercise.REFUSED", frozenset({"Other"}))
    up = 'up{job="victim"}'
    refused = DOWN | {"alert": "Other", "expr": f"{up} == 1 and min_over_time({up}[15s]) == 0"}
    scene.prometheus.reload(DOWN, refused, WATCHDOG)
    scenario = scene.write((" start\nstarted", f" start {'# dag pause' if pauses else ''}\nstarted"))["stopped"]
    if pauses:
        assert scene.play(scenario).steps == 3
    else:
        with pytest.raises(UnprovenError, match="Other fires and should be silent"):
            scene.play(scenario)


@pytest.mark.parametrize("typed", ["y", "n"])
def test_a_question_gets_the_answer_that_the_page_gives(scene: Scene, typed: str) -> None:
    asks = " ask-and-start\nStart it? [y/N]: " + typed + "\nstarted"
    scenario = scene.write((" start\nstarted", asks))["stopped"]
    if typed == "y":
        assert scene.play(scenario).steps == 3
    else:
        with pytest.raises(NotAsWrittenError, match="a step of its resolution"):
            scene.play(scenario)


def test_lost_rows_are_red(scene: Scene) -> None:
    def lost() -> None:
        raise UnprovenError("a row is lost")

    with pytest.raises(UnprovenError, match="a row is lost"):
        exercise(scene.write()["stopped"], scene.stopped(), lost, LIMITS, leads_to=VICTIM_S.format)


def test_a_drill_ends_when_the_learner_has_repaired_it(scene: Scene) -> None:
    """The learner asks for a hint, then types what the page says; the clock runs from the alert."""
    said: list[str] = []
    ours, theirs = os.pipe()
    scenario = scene.write()["stopped"]

    def learner(text: str) -> None:
        said.append(text)
        if text.startswith("ALERT"):
            assert text == "ALERT VictimDown\nvictim is down\n0"
            os.write(theirs, b"hint\nwhat?\n")
        if text.startswith("Hint 1"):
            assert text.endswith("iceberg-victim.md#victimdown")
            victim.start(scene.folder)

    with open(ours) as lines, closing(open(theirs, "w")):  # noqa: PTH123 - descriptors, not paths
        outcome = Drill(scenario, scene.stopped(), lambda: None, lines, learner, LIMITS, told).play()
    assert (outcome.outcome, outcome.hints, outcome.verified) == (SOLVED, 1, True)
    assert 0 < outcome.mttr_s < 30 and outcome.to_alert_s > 0
    assert outcome.told == "as fast as the best"


def told(scenario: Scenario) -> tuple[str, ...]:
    return hints(scenario, VICTIM_S.format)


def test_the_result_of_a_drill_survives_a_fault_that_can_not_be_undone(scene: Scene) -> None:
    def dead() -> None:
        raise ConnectionError("ClickHouse is still down")

    said: list[str] = []
    fault = replace(scene.stopped(), undo=dead)
    found = Drill(scene.write()["stopped"], fault, dead, StringIO("g\n"), said.append, LIMITS, told).play()
    assert (found.outcome, found.verified) == (GIVEN_UP, False)
    assert sum("ClickHouse is still down" in one for one in said) == 2


@pytest.mark.parametrize(("whole", "word", "outcome"), [(True, "g\n", GIVEN_UP), (False, "", DAMAGED)])
def test_a_drill_that_is_given_up_or_loses_rows_says_so(scene: Scene, whole: bool, word: str, outcome: str) -> None:
    def prove() -> None:
        if not whole:
            raise UnprovenError("a row is lost")

    def learner(text: str) -> None:
        if text.startswith("ALERT") and not word:
            victim.start(scene.folder)

    found = Drill(scene.write()["stopped"], scene.stopped(), prove, StringIO(word), learner, LIMITS, told).play()
    assert (found.outcome, found.verified) == (outcome, whole)
    assert victim.status(scene.folder) == "running", "the next drill would find the fault of this one"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("console verify", "console look", "a console is one of"),
        ("alert: VictimDown\nfault: hung", "fault: hung", "names its alert and fault"),
        ("silent: [Other]\ntree: [victim]\n-->", "silent: []\ntree: [victim]\n-->", "names its alert and fault"),
        ("scenario: hung", "scenario: hung\nskip: true", "names its alert and fault"),
        ("MTTR: best 1 min", "MTTR: 1 min", "says no MTTR"),
        ("```console diagnose\n$ ", "```console diagnose\n", "a console begins with a command"),
    ],
)
def test_a_page_that_does_not_keep_the_form_is_refused(running: Scene, old: str, new: str, why: str) -> None:
    """A block that is skipped fails too: there is no word for it."""
    with pytest.raises(PageError, match=rf"iceberg-victim\.md:\d+: .*{why}"):
        running.write((old, new))
