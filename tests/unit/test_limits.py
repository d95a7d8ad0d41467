"""One limit for all who say that a table is late, silent or about to lose rows; the same numbers as the alerts'."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.offload import limits
from include.offload.limits import expires_us, headroom_limits_s, lag_limit_s, lag_limits_s, silent_before
from include.offload.spec.model import TableSpec
from monitoring.values import load

MINUTE_US = 60_000_000
HOUR_S = 3600.0
MINUTE_S = 60.0
EVERY_S = 15 * MINUTE_S
"""Between two runs."""


@pytest.mark.parametrize("window", [1, 5, 15, 60, 24 * 60])
def test_the_peak_of_a_healthy_table_is_within_every_limit(window: int) -> None:
    """Its newest window settles just after a run, and goes with the next one."""
    peak = window * MINUTE_S + EVERY_S
    warns, fails = lag_limits_s(window * MINUTE_US)
    assert peak < warns < fails
    assert peak < lag_limit_s(window * MINUTE_US)


@pytest.mark.parametrize("window", [5, 60])
def test_two_runs_that_did_not_land_are_beyond_them(window: int) -> None:
    assert window * MINUTE_S + 3 * EVERY_S > lag_limits_s(window * MINUTE_US)[1]


def test_a_limit_of_the_table_s_own_wins() -> None:
    assert lag_limits_s(60 * MINUTE_US, 7200, "0 * * * *") == (7200, 7200 + 15 * MINUTE_S)
    assert lag_limit_s(60 * MINUTE_US, own_s=7200) == 7200


def test_the_limit_of_all_written_into_a_spec_changes_nothing() -> None:
    """The alert judges the trough of the saw, what sees a moment its peak: 20 minutes are healthy, 31 one failure."""
    assert lag_limits_s(5 * MINUTE_US, limits.LAG_S) == lag_limits_s(5 * MINUTE_US)


def test_a_table_that_runs_once_an_hour_is_allowed_one_run_that_fails() -> None:
    """As the alerts' `interval`: its peak is 65 minutes, and 125 after one failed run."""
    assert lag_limit_s(5 * MINUTE_US, schedule="0 * * * *") == 2 * HOUR_S
    warns, fails = lag_limits_s(5 * MINUTE_US, schedule="0 * * * *")
    assert 65 * MINUTE_S < warns < fails
    assert fails > 125 * MINUTE_S
    assert lag_limit_s(5 * MINUTE_US, schedule="*/5 * * * *") == lag_limit_s(5 * MINUTE_US)


def test_the_limits_are_those_of_the_alerts() -> None:
    values = load("production")
    assert values.seconds("lag_critical") == limits.LAG_S
    # all through this time no less: its peak is that much higher
    assert values.seconds("lag_critical") + values.seconds("lag_critical_trough") == limits.LAG_FAILED_S
    assert values.seconds("lag_window") == limits.LAG_WINDOW_S
    assert values.seconds("interval") == limits.INTERVAL_S
    assert values.seconds("lag_critical_trough") == limits.PEAK_S
    assert values.seconds("ttl_headroom_critical") == limits.HEADROOM_S
    assert values.seconds("ttl_headroom_warning") == limits.HEADROOM_S * limits.HEADROOM_WARN_TIMES
    assert int(values.number("failures")) == limits.FAILURES
    assert values.seconds("not_since_start") == limits.SILENT_S
    assert TableSpec.model_fields["schedule"].default == limits.SCHEDULE


def test_rows_that_came_after_the_last_look_expire_too() -> None:
    """The first of them no earlier than the watermark and the time that a row lives."""
    assert expires_us(None, 1000, 500) == 1500
    assert expires_us(1400, 1000, 500) == 1400
    assert expires_us(9000, 1000, 500) == 1500
    assert expires_us(9000, None, 500) == 9000
    assert expires_us(9000, 1000, None) == 9000
    assert expires_us(None, 1000, None) is None


def test_a_limit_of_headroom_of_the_table_s_own_wins() -> None:
    assert headroom_limits_s() == (6 * HOUR_S, 24 * HOUR_S)
    assert headroom_limits_s(7200) == (2 * HOUR_S, 8 * HOUR_S)


@pytest.mark.parametrize(
    ("schedule", "silent", "heard"),
    [
        ("*/15 * * * *", 60, 44),
        ("*/5 * * * *", 46, 44),
        # the fourth last one is of 07:00: three whole intervals ago
        ("0 * * * *", 3 * 60 + 8, 3 * 60 + 6),
        ("30 3 * * *", 3 * 24 * 60 + 398, 3 * 24 * 60 + 396),
        ("0 0 30 2 *", None, 10**6),
    ],
)
def test_a_table_is_silent_by_its_own_schedule(schedule: str, silent: int | None, heard: int) -> None:
    """Minutes before a Thursday, 10:07."""
    now = datetime(2026, 3, 5, 10, 7, tzinfo=UTC)
    limit = silent_before(schedule, now)
    assert now - timedelta(minutes=heard) >= limit
    assert silent is None or now - timedelta(minutes=silent) < limit


def test_the_same_rule_at_the_second_of_a_run() -> None:
    at = datetime(2026, 3, 5, 10, 15, tzinfo=UTC)
    assert silent_before("*/15 * * * *", at) == at - timedelta(minutes=45)
    assert silent_before("*/15 * * * *", at + timedelta(seconds=30)) == at - timedelta(minutes=45)
