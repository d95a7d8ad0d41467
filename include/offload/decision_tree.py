"""The decision tree of the runbooks, read from the diagram of their index: one source for GitHub and for the page.

The diagram is Mermaid's `flowchart TD`. A question is `name{"text"}`, a scenario `name["Page: Heading"]`, an answer
`from -->|"text"| to`. The index is the only place where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from include.offload import runbooks
from include.offload.runbooks import FOLDER, INDEX, SCENARIOS, Scenario

INDEX_FILE = Path(__file__).resolve().parents[2] / FOLDER / INDEX
ROOT = "alert"
"""The question that everybody begins with."""
NAMES = {
    "Failure": runbooks.FAILURE,
    "Lag": runbooks.LAG,
    "Performance": runbooks.PERFORMANCE,
    "Watermark": runbooks.WATERMARK,
    "Scheduler": runbooks.SCHEDULER,
    "Data": runbooks.DATA,
}
"""How the tree calls each runbook."""
_DIAGRAM = re.compile(r"^```mermaid\nflowchart TD\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NODE = re.compile(r'(?P<name>\w+)(?P<open>[{[])"(?P<text>[^"]+)"[]}]')
_EDGE = re.compile(r'^(?P<at>\w+) -->\|"(?P<answer>[^"]+)"\| (?P<to>\w+)(?:[{[]"[^"]+"[]}])?$')


class TreeError(ValueError):
    """A diagram that is no tree of questions; the message names the line or the node."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One way on from a question. `to`: the name of a question or of a scenario's node."""

    text: str
    to: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its answers, in the order of the diagram: more urgent first."""

    text: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """All questions by name, and the scenarios that they end at."""

    questions: dict[str, Question]
    leaves: dict[str, Scenario]

    def walk(self, choices: Sequence[int]) -> tuple[tuple[tuple[Question, Answer], ...], Question | Scenario]:
        """The questions answered so far, each by the number of its answer, and where that leads.

        Raises TreeError for a number that no question has, or one more than there are questions.
        """
        at, trail = ROOT, []
        for choice in choices:
            question = self.questions.get(at)
            if question is None or not 0 <= choice < len(question.answers):
                raise TreeError(f"{at} has no answer {choice}")
            answer = question.answers[choice]
            trail.append((question, answer))
            at = answer.to
        return tuple(trail), self.questions.get(at) or self.leaves[at]


def read(path: Path = INDEX_FILE) -> Tree | None:
    """The tree of the index; None on a machine without its page. Raises TreeError."""
    return parse(path.read_text(encoding="utf-8")) if path.is_file() else None


def parse(text: str) -> Tree:
    """The tree in a page's one diagram. Raises TreeError."""
    diagrams = _DIAGRAM.findall(text)
    if len(diagrams) != 1:
        raise TreeError(f"{len(diagrams)} diagrams that begin with `flowchart TD`, not one")
    texts: dict[str, str] = {}
    leaves: dict[str, Scenario] = {}
    answers: dict[str, list[Answer]] = {}
    for line in filter(None, map(str.strip, diagrams[0].splitlines())):
        for node in _NODE.finditer(line):
            if node["name"] in texts or node["name"] in leaves:
                raise TreeError(f"{node['name']} is described twice")
            if node["open"] == "{":
                texts[node["name"]] = node["text"]
            else:
                leaves[node["name"]] = _scenario(node["text"])
        if "-->" in line:
            edge = _EDGE.match(line)
            if edge is None:
                raise TreeError(f"an arrow that is not read: {line}")
            answers.setdefault(edge["at"], []).append(Answer(edge["answer"], edge["to"]))
    if answers.keys() != texts.keys():
        raise TreeError(f"a question without an answer, or a scenario with one: {answers.keys() ^ texts.keys()}")
    lost = {one.to for ways in answers.values() for one in ways} - texts.keys() - leaves.keys()
    if lost or ROOT not in texts:
        raise TreeError(f"nowhere described: {lost or ROOT}")
    return Tree({name: Question(text, tuple(answers[name])) for name, text in texts.items()}, leaves)


def _scenario(text: str) -> Scenario:
    name, _, heading = text.partition(": ")
    for one in SCENARIOS:
        if one.file == NAMES.get(name) and one.heading == heading:
            return one
    raise TreeError(f"no scenario is called {text!r}")
