"""The decision tree as it is read from a diagram, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.offload import decision_tree, runbooks
from include.offload.decision_tree import Answer, Question, TreeError
from include.offload.sections import Section, markdown

PAGE = """# Index

```mermaid
flowchart TD
    alert{"Which?"}
    alert -->|"lag"| lag
    alert -->|"failure"| out["Failure: Time-outs"]

    lag{"Paused?"}
    lag -->|"yes"| skipped["Lag: Skipped cycles"]
    lag -->|"no"| out
```
"""


def test_answers_lead_to_a_scenario() -> None:
    tree = decision_tree.parse(PAGE)
    assert tree.walk([]) == ((), Question("Which?", (Answer("lag", "lag"), Answer("failure", "out"))))
    trail, end = tree.walk([0, 1])
    assert [(asked.text, said.text) for asked, said in trail] == [("Which?", "lag"), ("Paused?", "no")]
    assert end == runbooks.TIME_OUTS


@pytest.mark.parametrize("choices", [[2], [-1], [1, 0], [0, 1, 0]])
def test_an_answer_that_is_none_is_refused(choices: list[int]) -> None:
    with pytest.raises(TreeError, match="has no answer"):
        decision_tree.parse(PAGE).walk(choices)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("flowchart TD", "flowchart LR", "0 diagrams"),
        ('lag{"Paused?"}', "", "a question without an answer, or a scenario with one: {'lag'}"),
        ('-->|"no"| out', '-->|"no"| nowhere', "nowhere described: {'nowhere'}"),
        ('-->|"no"| out', "--> out", "an arrow that is not read"),
        ("Lag: Skipped cycles", "Lag: Skipped", "no scenario is called 'Lag: Skipped'"),
        ("Lag: Skipped cycles", "Late: Skipped cycles", "no scenario"),
        ('lag{"Paused?"}', 'lag{"Paused?"}\n    lag{"Again?"}', "lag is described twice"),
    ],
)
def test_a_diagram_that_is_no_tree_is_refused(old: str, new: str, why: str) -> None:
    assert old in PAGE
    with pytest.raises(TreeError, match=why):
        decision_tree.parse(PAGE.replace(old, new, 1))


def test_the_index_has_one_and_a_machine_without_it_none(tmp_path: Path) -> None:
    tree = decision_tree.read()
    assert tree is not None
    assert len(tree.questions) > 5
    assert decision_tree.read(tmp_path / "README.md") is None


def test_every_leaf_has_its_text_without_the_comment_for_the_tests() -> None:
    tree = decision_tree.read()
    assert tree is not None
    for scenario in tree.leaves.values():
        file, _, anchor = scenario.path.partition("#")
        text = markdown(Section(f"{runbooks.FOLDER}/{file}", anchor))
        assert text
        assert "MTTR" in text
        assert "<!--" not in text
        assert "fault:" not in text
