"""What a page gives away of a scenario, a little more each time."""

from __future__ import annotations

from collections.abc import Callable

from include.offload.runbooks import FOLDER
from local.runbooks.pages import Scenario, of_alert


def hints(scenario: Scenario, leads_to: Callable[[str], str] = of_alert) -> tuple[str, ...]:
    """From where to read to what to type. leads_to: the `file#heading` of an alert, often on another page."""
    page = f"{FOLDER}/{scenario.page}"
    return (
        f"The alert: {FOLDER}/{leads_to(scenario.alert)}",
        f"Tell the scenarios of the page apart: {page}#diagnosis",
        "This tells it from the others:\n" + _typed(scenario, "diagnose"),
        f"The scenario: {page}#{scenario.anchor}",
        "This repairs it:\n" + _typed(scenario, "resolve"),
    )


def _typed(scenario: Scenario, kind: str) -> str:
    fences = (fence for fence in scenario.fences if fence.kind == kind)
    return "\n".join(f"  $ {step.command}" for fence in fences for step in fence.steps)
