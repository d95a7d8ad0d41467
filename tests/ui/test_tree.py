"""The decision tree in a browser: from "What is wrong?" by answers to the scenario, and one answer changed."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from include.offload import decision_tree
from include.offload.decision_tree import Question
from tests.support.ledger_story import Story
from tests.ui.conftest import OpenPage, frame

pytestmark = pytest.mark.timeout(300)


def test_answers_lead_to_the_scenario_and_can_be_changed(opened: OpenPage, ten: list[Story]) -> None:
    tree = decision_tree.read()
    assert tree is not None
    first = tree.questions[decision_tree.ROOT].answers[0]
    second = tree.questions[first.to].answers[0]
    page = frame(opened("/plugin/offload"))
    page.get_by_role("link", name="What is wrong?").click()
    page.get_by_role("link", name=first.text, exact=True).click()
    expect(page.get_by_role("listitem").filter(has_text=first.text)).to_be_visible()
    page.get_by_role("link", name=second.text, exact=True).click()
    scenario = tree.leaves[second.to]
    expect(page.get_by_role("heading", name=scenario.heading, exact=True)).to_be_visible()
    expect(page.get_by_text(f"{scenario.file}#")).to_be_visible()
    expect(page.locator("pre").first).to_contain_text("$ bin/offload")
    page.get_by_role("link", name="change").first.click()
    expect(page.get_by_role("link", name=first.text, exact=True)).to_be_visible()


def test_every_way_ends_at_a_scenario(opened: OpenPage, airflow_url: str) -> None:
    """Each address that the tree can make is answered; one that it can not is not."""
    tree = decision_tree.read()
    assert tree is not None
    requests = opened("/plugin/offload").request
    left: list[list[int]] = [[]]
    ends = set()
    while left:
        choices = left.pop()
        _, here = tree.walk(choices)
        if isinstance(here, Question):
            left += [[*choices, i] for i in range(len(here.answers))]
            continue
        if here not in ends:
            ends.add(here)
            answer = requests.get(f"{airflow_url}/offload/tree?at={'.'.join(map(str, choices))}")
            assert answer.status == 200
            assert f"<h2>{here.heading}</h2>" in answer.text()
    assert ends == set(tree.leaves.values())
    for wrong in ("99", "x", "0.0.0.0.0.0"):
        assert requests.get(f"{airflow_url}/offload/tree?at={wrong}").status == 404
