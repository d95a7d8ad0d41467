"""Every scenario of every runbook: caused, alerted, diagnosed, resolved and cleared by what its page says."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from include.offload.airflow_rest import AirflowRestError
from local.runbooks import record, shell, watch
from local.runbooks.exercise import Result, exercise
from local.runbooks.faults import FAULTS
from local.runbooks.pages import Page, Scenario, Step, pages
from local.runbooks.stage import Stage

pytestmark = pytest.mark.timeout(900)
ALWAYS = {
    "wrong-spec",
    "lag-watermark-not-updating",
    "performance-resource-exhaustion",
    "watermark-corruption",
    "scheduler-not-started",
    "broken-metrics-pipeline",
}
"""One scenario of each runbook, the quickest: `make test` runs these, `make test-runbooks` all."""
LOOK_S = 120.0
T = TypeVar("T")


def _marked(name: str, page: str, *, long: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.exercise(name, page), *([pytest.mark.long] if long else [])]


SCENARIOS = [
    pytest.param(one, id=one.name, marks=_marked(one.name, one.page, long=one.name not in ALWAYS))
    for page in pages()
    for one in page.scenarios
]
LOOKS = [
    pytest.param(
        page, id=page.path.stem, marks=_marked(f"other commands of {page.path.name}", page.path.name, long=True)
    )
    for page in pages()
]


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Callable[[Callable[[], Result]], None]:
    """Runs an exercise and, with `--record`, writes down what it showed, green or red."""
    wanted = bool(request.config.getoption("--record", default=False))
    mark = request.node.get_closest_marker("exercise")

    def run(act: Callable[[], Result]) -> None:
        entry, error = record.recorded(*mark.args, act)
        if wanted:
            record.write(entry)
        if error is not None:
            raise error

    return run


@pytest.mark.parametrize("page", LOOKS)
def test_the_other_commands_print_what_the_page_says(
    stage: Stage, page: Page, recorded: Callable[[Callable[[], Result]], None]
) -> None:
    """First aid, health checks, what to do after an incident: on a healthy stack, where each has an answer."""
    result = Result(f"other commands of {page.path.name}", page.path.name, "")

    def look() -> Result:
        # before any fault: budgets remember one for 20 minutes, and some pages show that no alert fires
        watch.until(lambda: not watch.firing(), LOOK_S, "a stage without any alert")
        for step in page.elsewhere:
            _until_it_prints(step, result)
        result.steps = len(page.elsewhere)
        return result

    assert page.elsewhere, "a page whose commands all stand in scenarios needs no such test"
    recorded(look)


def _until_it_prints(step: Step, result: Result) -> None:
    end = time.monotonic() + LOOK_S
    while True:
        ran = shell.run(step)
        result.commands += 1
        if ran.matches:
            return
        assert time.monotonic() < end, f"{result.page}, {ran}"
        time.sleep(watch.EVERY_S)


def played(stage: Stage, scenario: Scenario) -> Result:
    stage.settle()
    return exercise(
        scenario,
        FAULTS[scenario.fault](stage),
        stage.prove_data,
        one_more_run=stage.one_more_run,
        failed_otherwise=stage.failed_otherwise,
        others=rivals(scenario),
    )


def rivals(scenario: Scenario) -> list[Scenario]:
    """Those to which the same alert, or the same first question of the tree, leads."""
    return [
        one
        for page in pages()
        for one in page.scenarios
        if one.name != scenario.name and (one.alert == scenario.alert or one.tree[:1] == scenario.tree[:1])
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_page_repairs_the_fault(
    stage: Stage, scenario: Scenario, recorded: Callable[[Callable[[], Result]], None]
) -> None:
    try:
        recorded(lambda: played(stage, scenario))
    except BaseException:
        # the next scenario is not to fail for this one
        with suppress(AirflowRestError):
            stage.tidy()
        raise


def test_each_runbook_has_a_quick_scenario() -> None:
    quick = {one.page for page in pages() for one in page.scenarios if one.name in ALWAYS}
    assert quick == {page.path.name for page in pages() if page.scenarios}
