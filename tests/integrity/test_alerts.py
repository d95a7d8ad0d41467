"""The alerts: promtool runs their unit tests, and what the rules, the values and the registry must agree on.

`monitoring/prometheus/tests/*.yaml` prove the rules at production durations, from raw series to rendered annotations.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.offload.metrics import REGISTRY
from monitoring import values
from monitoring.alerts import RUNBOOKS, alerts
from monitoring.conditions import UNSCRAPED
from monitoring.generate import RULES, files
from monitoring.records import records

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted((ROOT / "monitoring" / "prometheus" / "tests").glob("*.yaml"))
PROMTOOL = ROOT / ".venv" / "tools" / "bin" / "promtool"
AMTOOL = ROOT / ".venv" / "tools" / "bin" / "amtool"
ROUTES = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"
PRODUCTION = values.load("production")
ALERTS = {one.name: one for one in alerts(PRODUCTION)}
SEEDS = {
    "ConsecutiveFailures",
    "LagCritical",
    "LagElevated",
    "CycleTooSlow",
    "CycleSlow",
    "WatermarkStale",
    "SchedulerDown",
    "SuccessRateLow",
    "ThroughputLow",
}
OURS = {
    "WatermarkRegressed",
    "FallingBehind",
    "TTLHeadroomCritical",
    "TTLHeadroomWarning",
    "HasNotOffloadedSinceStart",
    "RowsMismatch",
    "LateRowsUnknown",
    "TTLGuardStopped",
    "TTLGuardRefused",
    "DagImportErrors",
    "DagProcessorDown",
    "MetricsPipelineBroken",
    "FreshnessBurnFast",
    "FreshnessBurnSlow",
    "SuccessBurnFast",
    "SuccessBurnSlow",
    "MaintenanceOverdue",
}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, timeout=240)


def cases() -> list[dict[str, Any]]:
    return [case for path in TESTS for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]


def checks(case: dict[str, Any], alert: str) -> list[tuple[int, int]]:
    """Minute and number of expected alerts of a case's checks of one alert."""
    return sorted(
        (int(c["eval_time"].removesuffix("m")), len(c["exp_alerts"]))
        for c in case.get("alert_rule_test", ())
        if c["alertname"] == alert
    )


@pytest.fixture(scope="module")
def promtool() -> Iterator[dict[Path, subprocess.Popen[str]]]:
    """A promtool for each file of unit tests, all at once: each of them uses one core."""
    running = {
        path: subprocess.Popen(
            [str(PROMTOOL), "test", "rules", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for path in TESTS
    }
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("path", TESTS, ids=[p.stem for p in TESTS])
def test_the_rules_do_what_their_unit_tests_say(path: Path, promtool: dict[Path, subprocess.Popen[str]]) -> None:
    said, _ = promtool[path].communicate(timeout=240)
    assert promtool[path].returncode == 0, said


def test_promtool_notices_a_wrong_expectation(tmp_path: Path) -> None:
    text = (TESTS[0].parent / "platform.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("../rules", str(RULES)).replace("Airflow's scheduler is down", "All is well"))
    done = run(PROMTOOL, "test", "rules", wrong)
    assert done.returncode != 0
    assert "SchedulerDown" in done.stdout + done.stderr


@pytest.mark.parametrize("name", [n for n in ALERTS if n != "Watchdog"])
def test_every_alert_is_shown_to_fire_to_clear_and_to_stay_silent(name: str) -> None:
    found = [f for f in (checks(case, name) for case in cases()) if f]
    fires = [f for f in found if any(n for _, n in f)]
    assert fires, "never shown to fire"
    assert any(min(m for m, n in f if n) < m and not k for f in fires for m, k in f), "never shown to clear"
    assert any(not any(n for _, n in f) for f in found), "never shown to stay silent below its limit"


def test_the_watchdog_is_shown_to_fire() -> None:
    assert any(n for case in cases() for _, n in checks(case, "Watchdog"))


def test_every_expected_alert_has_all_its_annotations() -> None:
    for case in cases():
        for check in case.get("alert_rule_test", ()):
            for expected in check["exp_alerts"]:
                assert set(expected["exp_annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
                assert "<no value>" not in str(expected)


def test_the_alerts_have_the_names_of_the_seeds_and_ours() -> None:
    assert set(ALERTS) == {f"IcebergOffload{n}" for n in SEEDS | OURS} | {"Watchdog"}


def test_the_series_of_the_seeds_that_are_no_longer_sent_are_recorded() -> None:
    recorded = {(one.name, tuple(one.labels.values())) for one in records(PRODUCTION)}
    assert {("offload_lag_minutes", ()), ("up", ("iceberg-scheduler",))} <= recorded


def test_the_written_rules_are_the_generated_ones() -> None:
    assert {p: p.read_text(encoding="utf-8") for p in files()} == files()
    assert set(RULES.rglob("*.yaml")) == set(files())


@pytest.mark.parametrize("profile", values.PROFILES)
def test_prometheus_accepts_the_rules(profile: str) -> None:
    done = run(PROMTOOL, "check", "rules", *sorted((RULES / profile).glob("*.yaml")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_fast_has_the_same_alerts_and_may_not_invent_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {one.name for one in alerts(values.load("fast"))} == set(ALERTS)
    own = tmp_path / "values.yaml"
    own.write_text("production: {a: 1s}\nfast: {b: 1s}\n")
    monkeypatch.setattr(values, "FILE", own)
    with pytest.raises(ValueError, match="fast sets b"):
        values.load("fast")


def test_every_series_of_a_rule_is_sent_or_recorded() -> None:
    """A rule over a name that nobody sends would be silent for ever."""
    mapped = {
        m["name"] for m in yaml.safe_load((ROOT / "monitoring/statsd-mapping.yaml").read_text("utf-8"))["mappings"]
    }
    known = {r.name for r in records(PRODUCTION)} | mapped
    known |= {f"{name}{end}" for name in REGISTRY for end in ("_sum", "_count")}
    text = " ".join([*(r.expr for r in records(PRODUCTION)), *(a.expr for a in ALERTS.values())])
    used = set(re.findall(r"\b(?:offload_|offload:|airflow_|watermark_)[A-Za-z0-9_:]+", text))
    assert used
    assert not used - known


def test_every_alert_leads_to_one_heading() -> None:
    assert set(RUNBOOKS) == set(ALERTS)
    for one in ALERTS.values():
        url = one.rule(PRODUCTION)["annotations"]["runbook_url"]  # type: ignore[index]
        assert url == f"docs/operations/runbooks/{RUNBOOKS[one.name]}#{one.name.lower()}"


def test_no_alert_on_one_failed_run_is_as_long_as_its_window() -> None:
    """Healthy lag is a sawtooth of 20 minutes; one failed run lifts its peak to 35, for 5 minutes over 30."""
    interval, peak = 15, 35
    assert PRODUCTION.minutes("lag_critical_trough") > peak - PRODUCTION.minutes("lag_critical")
    assert PRODUCTION.minutes("lag_elevated_trough") >= 2 * interval


# ----- who hears what


def receiver(**labels: str) -> str:
    done = run(AMTOOL, "config", "routes", "test", f"--config.file={ROUTES}", *(f"{k}={v}" for k, v in labels.items()))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_alertmanager_accepts_its_configuration() -> None:
    done = run(AMTOOL, "check-config", ROUTES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("one", ALERTS.values(), ids=list(ALERTS))
def test_every_alert_has_its_receiver(one: Any) -> None:
    wanted = {"critical": "critical", "warning": "warning", "none": "watchdog"}[one.severity]
    assert receiver(alertname=one.name, severity=one.severity, symptom=one.symptom, table="k2.t") == wanted


def test_rows_in_danger_are_never_silenced() -> None:
    """No inhibition may name symptom `data`, by value or by a pattern that it matches."""
    data = {one.name for one in ALERTS.values() if one.symptom == "data"}
    assert {n.removeprefix("IcebergOffload") for n in data} == {
        "TTLHeadroomCritical",
        "TTLHeadroomWarning",
        "RowsMismatch",
        "LateRowsUnknown",
        "TTLGuardStopped",
        "TTLGuardRefused",
        "WatermarkRegressed",
    }
    symptoms = {one.symptom for one in ALERTS.values()}
    for rule in yaml.safe_load(ROUTES.read_text(encoding="utf-8"))["inhibit_rules"]:
        named = [m for m in rule["target_matchers"] if m.startswith("symptom =~ ")]
        assert len(named) == 1, "a target without a symptom silences everything"
        targets = set(named[0].removeprefix('symptom =~ "').removesuffix('"').split("|"))
        assert targets <= symptoms - {"data", "watchdog", "metrics"}


def test_only_metrics_that_nobody_can_read_silence_another_alert() -> None:
    """While lines are refused or a notification is lost, a dead scheduler is still a dead scheduler."""
    assert f'"part", "{UNSCRAPED}"' in ALERTS["IcebergOffloadMetricsPipelineBroken"].expr
    rules = yaml.safe_load(ROUTES.read_text(encoding="utf-8"))["inhibit_rules"]
    by_pipeline = [r for r in rules if "MetricsPipelineBroken" in str(r["source_matchers"])]
    assert [r["source_matchers"] for r in by_pipeline] == [
        ['alertname = "IcebergOffloadMetricsPipelineBroken"', f'part = "{UNSCRAPED}"']
    ]
