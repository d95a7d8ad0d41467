"""One lag limit for all who say that a table is late: a healthy table with wide windows is not."""

from __future__ import annotations

import pytest

from include.offload.health.tables import lag_limits_s
from include.offload.limits import LAG_S, LAG_WINDOW_S, lag_limit_s
from include.offload.settings import ROOT
from include.offload.spec.load import load_specs
from include.offload.spec.model import TableSpec
from monitoring.values import load

MINUTE_US = 60_000_000
MINUTE_S = 60.0
EVERY_S = 15 * MINUTE_S
"""Between two runs."""


def spec(window_minutes: int, **alerts: object) -> TableSpec:
    known = load_specs(ROOT / "dags" / "tables").specs[0]
    return known.model_copy(
        update={"window_us": window_minutes * MINUTE_US, "alerts": known.alerts.model_copy(update=alerts)}
    )


@pytest.mark.parametrize("window", [1, 5, 15, 60, 24 * 60])
def test_the_peak_of_a_healthy_table_is_within_every_limit(window: int) -> None:
    """Its newest window settles just after a run, and goes with the next one."""
    peak = window * MINUTE_S + EVERY_S
    warns, fails = lag_limits_s(spec(window))
    assert peak < warns < fails
    assert peak < lag_limit_s(window * MINUTE_US)


@pytest.mark.parametrize("window", [5, 60])
def test_two_runs_that_did_not_land_are_beyond_them(window: int) -> None:
    assert window * MINUTE_S + 3 * EVERY_S > lag_limits_s(spec(window))[1]


def test_a_limit_of_the_table_s_own_wins() -> None:
    assert lag_limits_s(spec(60, lag_s=7200)) == (4800, 7200)
    assert lag_limit_s(60 * MINUTE_US, own_s=7200) == 7200


def test_the_limits_are_those_of_the_alerts() -> None:
    values = load("production")
    assert values.seconds("lag_critical") == LAG_S
    assert values.seconds("lag_window") == LAG_WINDOW_S
