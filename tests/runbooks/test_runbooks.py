"""Every scenario of every runbook: caused, alerted, diagnosed, resolved and cleared by what its page says."""

from __future__ import annotations

import pytest

from local.runbooks.exercise import exercise
from local.runbooks.faults import FAULTS
from local.runbooks.pages import Scenario, scenarios
from local.runbooks.stage import Stage

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda s: s.name)
def test_the_page_repairs_the_fault(stage: Stage, scenario: Scenario) -> None:
    exercise(scenario, FAULTS[scenario.fault](stage), stage.prove_data)
