"""The pure parts of the exercises: what a command printed, what an alert says, what was recorded of which code."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from docs import runbooks_page
from include.offload.cli.ledger import _back
from include.offload.ledger.history import PastPlan
from local.runbooks import record, shell
from local.runbooks.exercise import Result
from local.runbooks.pages import Scenario, Step, of_alert, pages, scenarios
from local.runbooks.record import GREEN, RED, Entry
from local.runbooks.watch import Firing

ASK = """printf 'End 5? [y/N]: '; read -r answer; [ "$answer" = y ] && echo done"""


def ran(command: str, expected: str) -> shell.Ran:
    return shell.run(Step(command, expected, 1))


def test_a_question_is_answered_as_the_page_answers_it_and_shown_as_on_a_terminal() -> None:
    done = ran(ASK, "End ...? [y/N]: y\ndone\n")
    assert (done.output, done.code, done.matches) == ("End 5? [y/N]: y\ndone\n", 0, True)


@pytest.mark.parametrize("expected", ["done\n", "End ...? [y/N]: ...\n", "End ...? [y/N]: n\n"])
def test_a_question_that_the_page_does_not_answer_gets_no_answer(expected: str) -> None:
    done = ran(ASK, expected)
    assert done.code == 1
    assert "done" not in done.output


@pytest.mark.parametrize(
    "command",
    [
        "no_such_command_here",
        "/etc/hostname",
        """python3 -c 'print("k2.silver_trades"); raise ValueError("k2.silver_trades")'""",
    ],
)
def test_a_command_that_does_not_work_never_prints_what_the_page_says(command: str) -> None:
    assert not ran(command, "...\n").matches


def test_a_log_that_holds_a_traceback_is_only_shown() -> None:
    assert ran("echo Traceback '(most recent call last):'", "Traceback...\n").matches


def firing(summary: str, **labels: str) -> Firing:
    return Firing("Lag", {"alertname": "Lag", **labels}, {"summary": summary})


@pytest.mark.parametrize(
    ("alert", "template", "why"),
    [
        (firing("k2.t lags", table="k2.t"), "{{ $labels.table }} lags", ""),
        (firing(" lags", table="k2.t"), "{{ $labels.tabel }} lags", "names the label tabel"),
        (firing("other lags", table="k2.t"), "{{ $labels.table }} lags", "is without its table"),
        (firing("<no value> lags", table="k2.t"), "{{ $labels.table }} lags", "without values"),
        (firing("  "), "", "without values"),
    ],
)
def test_an_alert_says_all_that_its_rule_names(alert: Firing, template: str, why: str) -> None:
    said = alert.unfilled({"summary": template})
    assert said == "" if not why else why in said


def test_each_alert_of_a_scenario_leads_to_the_page_that_has_its_heading() -> None:
    by_name = {one.name: one for one in scenarios()}
    assert of_alert(by_name["schema-drift"].alert).startswith("iceberg-offload-failure.md#")
    assert of_alert(by_name["metrics-endpoint-down"].alert).startswith("iceberg-offload-data-at-risk.md#")


ONE = scenarios()[0]


def act(scenario: Scenario) -> Result:
    return Result(scenario.name, scenario.page, scenario.alert, 1.0, 2.0, 3.0, 4, 5, {"cmd": "x" * 5_000})


def test_what_was_shown_is_recorded_with_its_code_and_its_page() -> None:
    entry, error = record.recorded(ONE.name, ONE.page, lambda: act(ONE))
    assert error is None
    assert (entry.outcome, entry.steps, entry.mttr_s) == (GREEN, 5, 5.0)
    assert (entry.code, entry.digest) == (record.fingerprint(), record.page_digest(ONE.page))
    assert len(entry.diagnosed["cmd"]) == record.KEPT


def test_a_record_says_nothing_of_the_machine_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLOAD_HOME", "/somewhere/of-mine")
    venv, checkout = (record.ROOT / ".venv").resolve(), record.ROOT
    shown = f"/somewhere/of-mine/spark-tmp {venv}/spark/bin {checkout}/tests {sys.base_prefix}/lib/python3.11/os.py"
    entry, _ = record.recorded(ONE.name, ONE.page, lambda: replace(act(ONE), diagnosed={"df": shown}))
    assert entry.diagnosed["df"] == "$OFFLOAD_HOME/spark-tmp .venv/spark/bin tests $PYTHON/lib/python3.11/os.py"


def test_what_was_red_is_recorded_with_its_first_line() -> None:
    def fails() -> Result:
        raise AssertionError("the alert is late\nmore")

    entry, error = record.recorded(ONE.name, ONE.page, fails)
    assert (entry.outcome, entry.why) == (RED, "the alert is late")
    assert str(error).endswith("more")


@pytest.mark.parametrize("changes", ["fingerprint", "page_digest"])
def test_code_or_a_page_that_changes_under_an_exercise_is_red(monkeypatch: pytest.MonkeyPatch, changes: str) -> None:
    digests = iter(["before", "after"])
    monkeypatch.setattr(record, changes, lambda *_: next(digests))
    entry, error = record.recorded(ONE.name, ONE.page, lambda: act(ONE))
    assert (entry.outcome, isinstance(error, record.ChangedError)) == (RED, True)


def test_only_what_was_green_on_this_code_and_this_page_is_done(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    entry, _ = record.recorded(ONE.name, ONE.page, lambda: act(ONE))
    record.write(entry, file)
    assert record.done(ONE.name, ONE.page, file)
    for change in ({"code": "old"}, {"digest": "old"}, {"outcome": RED}):
        record.write(replace(entry, **change), file)  # type: ignore[arg-type]
        assert not record.done(ONE.name, ONE.page, file), change


def test_the_report_says_what_is_older_than_the_rest() -> None:
    found = pages()
    a, b, c = scenarios()[:3]

    def entry(one: Scenario, at: str, code: str, digest: str = "") -> Entry:
        return Entry(one.name, one.page, GREEN, at, code, 2, digest=digest or record.page_digest(one.page))

    rows = [entry(a, "2026-01-01", "old"), entry(b, "2026-01-03", "new"), entry(c, "2026-01-02", "new", "of before")]
    told = {
        line.partition("]")[0][3:]: line
        for line in runbooks_page.text("", found, {r.name: r for r in rows}).splitlines()
    }
    assert "| green, older code |" in told[a.name]
    assert "| green |" in told[b.name]
    assert "| green, older page |" in told[c.name]
    assert "on the pages of today: no" in runbooks_page.text("", found, {r.name: r for r in rows})
    assert "on the pages of today: yes" in runbooks_page.text("", found, {b.name: rows[1]})


def past(run: str, watermark_us: int, status: str = "committed") -> PastPlan:
    now = datetime.now(UTC)
    return PastPlan(UUID(int=1), run, 1, status, 1, 1, 1, watermark_us, now, now)


def test_a_watermark_that_went_back_is_said_by_the_plan_that_took_it_back() -> None:
    hour = 3_600_000_000
    (said,) = _back(
        [past("cli__2", 9 * hour), past("open", 0, "open"), past("rebuild__1", 8 * hour), past("a", 10 * hour)]
    )
    assert said.startswith("the watermark went back with rebuild__1, from 1970-01-01 10:00")
    assert "to 1970-01-01 08:00" in said
    assert _back([past("b", 2 * hour), past("rebuild__1", 2 * hour), past("a", hour)]) == []


def test_a_pipeline_without_an_end_is_ended_with_all_its_parts() -> None:
    began = time.monotonic()
    late = shell.run(Step("echo begun; sleep 60 | cat", "begun", 1), 1.0)
    assert (late.code, late.output) == (124, "begun\n\nno end within 1 s\n")
    assert not late.matches
    assert time.monotonic() - began < 20
