"""Drills without a stage: what is drawn, what hints give away, how a result is told and kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from local.runbooks import drill
from local.runbooks.drill import DAMAGED, GIVEN_UP, SOLVED, Outcome
from local.runbooks.hints import hints
from local.runbooks.pages import scenarios

SOLVED_ONE = Outcome("wrong-spec", "2026-11-22T10:00:00Z", SOLVED, 200.0, (300, 600, 1800), 12.0, 1, True)


def test_a_scenario_is_drawn_from_all_or_from_one_runbook() -> None:
    seen: list[int] = []

    def last(found: list[drill.Scenario]) -> drill.Scenario:
        seen.append(len(found))
        return found[-1]

    assert drill.chosen(None, pick=last) == scenarios()[-1]
    assert "lag" in drill.chosen(None, "lag", pick=last).page
    assert seen[0] == len(scenarios()) > seen[1] >= 4
    assert drill.chosen("wrong-spec").name == "wrong-spec"


@pytest.mark.parametrize(("name", "page"), [("wrong", None), (None, "nonsense")])
def test_what_is_not_there_is_refused_by_name(name: str | None, page: str | None) -> None:
    with pytest.raises(ValueError, match=r"'(wrong|nonsense)'; `bin/offload drill list` shows all"):
        drill.chosen(name, page)


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda s: s.name)
def test_hints_give_away_a_little_more_each_time(scenario: drill.Scenario) -> None:
    told = hints(scenario)
    assert not told[0].endswith(f"#{scenario.anchor}")
    # what one looks at before and after may be the same command; what repairs it is not
    assert not set(told[-1].splitlines()) <= {line for text in told[:4] for line in text.splitlines()}
    first = next(fence.steps[0] for fence in scenario.fences if fence.kind == "resolve")
    assert first.command in told[-1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "as fast as the best"),
        ({"mttr_s": 301.0}, "within the typical time"),
        ({"mttr_s": 1800.0}, "within the worst"),
        ({"mttr_s": 1801.0}, "later than the target"),
        ({"outcome": GIVEN_UP}, "given up"),
        ({"outcome": DAMAGED}, "data not whole"),
    ],
)
def test_a_result_is_told_against_the_target(change: dict[str, float | str], told: str) -> None:
    assert dataclasses.replace(SOLVED_ONE, **change).told == told  # type: ignore[arg-type]


def test_results_are_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["drill", "results"])
    assert drill.main() == 0
    assert "bin/offload drill start" in capsys.readouterr().out
    drill.save(tmp_path / "drill", SOLVED_ONE)
    drill.save(tmp_path / "drill", dataclasses.replace(SOLVED_ONE, scenario="mismatch", outcome=GIVEN_UP))
    monkeypatch.setattr("sys.argv", ["drill", "results", "--json"])
    assert drill.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["scenario"], one["mttr_s"], one["told"]) for one in found] == [
        ("wrong-spec", 200.0, "as fast as the best"),
        ("mismatch", 200.0, "given up"),
    ]
