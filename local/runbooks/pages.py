"""Reads the runbooks of `docs/operations/runbooks`: scenarios, their commands, and what each command prints.

A scenario is a heading followed by a hidden comment, `<!-- scenario: NAME` with YAML lines in it: `alert` (the alert
that it fires), `fault` (a function of `local.runbooks.faults`), `silent` (alerts that must not fire), `tree` (the
questions of the index's decision tree that lead to it) and, where scenarios share an alert, its `labels`. `also`:
alerts about wrong rows that belong to the fault; all others of that kind are silent in every exercise.
Its commands stand in fences ```` ```console KIND ````, where KIND is one of `KINDS`; `$ ` begins a command, `> `
goes on with it, and what follows is its output, in which `...` stands for anything. Where the output has a question
and its answer, `[y/N]: y`, the reader gives that answer.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from sybil import Document
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

from include.offload.runbooks import FOLDER, INDEX, anchor
from local.paths import ROOT

PAGES = ROOT / FOLDER
KINDS = ("symptom", "diagnose", "resolve", "verify")
FENCE = re.compile(r"(?P<language>\w*)[ \t]*(?P<kind>[^\n]*)\n")
MTTR = re.compile(r"^MTTR: best (\d+) min, typical (\d+) min, worst (\d+) min", re.MULTILINE)
HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
ASKED = re.compile(r"(\[y/N\]: |recursively\? )")
"""The end of a question that waits for yes or no."""
NEEDED = {"alert", "fault", "silent", "tree"}
KNOWN = NEEDED | {"labels", "also"}


class PageError(ValueError):
    """A page that does not keep the form. The message begins with file and line."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `expected`: what it prints, with `...` for anything; empty when the page does not say."""

    command: str
    expected: str
    line: int

    @property
    def answers(self) -> str:
        """What the page has its reader type, a line a question."""
        return "y\n" * len(re.findall(ASKED.pattern + "y$", self.expected, re.MULTILINE))

    def matches(self, output: str) -> bool:
        """Whether this output is what the page says. Blanks at the ends of lines do not count."""
        wanted, got = (_tidy(text) for text in (self.expected, output))
        return doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


@dataclass(frozen=True, slots=True)
class Fence:
    """Commands that belong together. `kind`: one of `KINDS`."""

    kind: str
    steps: tuple[Step, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that goes wrong, as its page tells it. `silent`: alerts that must not fire meanwhile.

    tree: the questions that lead to it, the first one left out; labels: those of its alert that tell it from others.
    also: alerts about wrong rows that belong to its fault.
    symptoms: what the page shows outside of its scenarios, tried in the first of them. mttr: best, typical and worst.
    """

    name: str
    page: str
    heading: str
    alert: str
    fault: str
    silent: tuple[str, ...]
    fences: tuple[Fence, ...]
    line: int
    mttr: tuple[int, int, int]
    tree: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    symptoms: tuple[Fence, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Where its heading is found on its page."""
        return anchor(self.heading)

    def steps(self, kind: str) -> tuple[Step, ...]:
        """All commands of a kind, in the order of the page."""
        fences = (*self.symptoms, *self.fences)
        return tuple(step for fence in fences if fence.kind == kind for step in fence.steps)


@dataclass(frozen=True)
class Page:
    """One runbook. `fences`: every fence with commands, those outside of scenarios too."""

    path: Path
    text: str
    scenarios: tuple[Scenario, ...]
    fences: tuple[Fence, ...] = field(repr=False)

    @cached_property
    def headings(self) -> tuple[str, ...]:
        """The text of all headings outside of fences."""
        return tuple(match[2] for match in HEADING.finditer(without_fences(self.text)))

    @property
    def elsewhere(self) -> tuple[Step, ...]:
        """The commands outside of scenarios that a healthy system answers as the page says: all but the symptoms."""
        own = {id(fence) for scenario in self.scenarios for fence in scenario.fences}
        outside = (fence for fence in self.fences if id(fence) not in own and fence.kind != KINDS[0])
        return tuple(step for fence in outside for step in fence.steps)

    @property
    def commands(self) -> tuple[Step, ...]:
        """Every command of the page."""
        return tuple(step for fence in self.fences for step in fence.steps)


def pages(folder: Path = PAGES) -> tuple[Page, ...]:
    """All runbooks, the index last. Raises PageError."""
    found = sorted(folder.glob("iceberg-*.md"))
    index = folder / INDEX
    return tuple(read(path) for path in (*found, *([index] if index.exists() else [])))


def scenarios(folder: Path = PAGES) -> tuple[Scenario, ...]:
    """The scenarios of all runbooks. Raises PageError for a form that is not kept, or a name that stands twice."""
    found = tuple(scenario for page in pages(folder) for scenario in page.scenarios)
    names = [scenario.name for scenario in found]
    for scenario in found:
        if names.count(scenario.name) > 1:
            raise PageError(f"{scenario.page}:{scenario.line}: the scenario {scenario.name} stands twice")
    return found


@cache
def of_alert(alert: str, folder: Path = PAGES) -> str:
    """`file#heading` of an alert: where its reader begins. Raises PageError unless there is one such heading."""
    found = [page.path.name for page in pages(folder) if alert in page.headings]
    if len(found) != 1:
        raise PageError(f"{len(found)} headings are called {alert}")
    return f"{found[0]}#{anchor(alert)}"


def read(path: Path) -> Page:
    """One page. Raises PageError."""
    document = Document.parse(
        str(path),
        RawFencedCodeBlockLexer(FENCE),
        DirectiveInHTMLCommentLexer("scenario"),
    )
    fences: list[tuple[int, Fence]] = []
    marks: list[tuple[int, str, dict[str, Any], int]] = []
    for example in document.examples():
        lexemes = example.region.lexemes
        if "directive" in lexemes:
            marks.append((example.region.start, lexemes["arguments"].strip(), _metadata(path, example), example.line))
        elif lexemes["language"] == "console":
            fences.append(
                (example.region.start, _fence(path, lexemes["kind"].strip(), lexemes["source"], example.line))
            )
    found = tuple(_scenarios(path, document.text, marks, fences))
    own = {id(fence) for scenario in found for fence in scenario.fences}
    symptoms = tuple(fence for _, fence in fences if fence.kind == KINDS[0] and id(fence) not in own)
    first = tuple(replace(one, symptoms=symptoms) for one in found[:1])
    return Page(path, document.text, (*first, *found[1:]), tuple(fence for _, fence in fences))


def _metadata(path: Path, example: Any) -> dict[str, Any]:
    found = yaml.safe_load(str(example.region.lexemes["source"]))
    if not isinstance(found, dict) or not NEEDED <= set(found) <= KNOWN or not found["silent"]:
        raise PageError(
            f"{path.name}:{example.line}: a scenario names its alert and fault, silent alerts, its way through the tree"
        )
    return found


def _fence(path: Path, kind: str, source: str, line: int) -> Fence:
    if kind not in KINDS:
        raise PageError(f"{path.name}:{line}: a console is one of {', '.join(KINDS)}, not {kind!r}")
    steps: list[Step] = []
    for number, text in enumerate(source.splitlines(), line + 1):
        if text.startswith("$ "):
            steps.append(Step(text[2:], "", number))
        elif not steps:
            raise PageError(f"{path.name}:{number}: a console begins with a command, `$ …`")
        elif text.startswith("> ") and not steps[-1].expected:
            steps[-1] = Step(f"{steps[-1].command}\n{text[2:]}", "", steps[-1].line)
        else:
            steps[-1] = Step(steps[-1].command, f"{steps[-1].expected}{text}\n", steps[-1].line)
    if not steps:
        raise PageError(f"{path.name}:{line}: a console without a command")
    return Fence(kind, tuple(steps), line)


def _scenarios(
    path: Path,
    text: str,
    marks: list[tuple[int, str, dict[str, Any], int]],
    fences: list[tuple[int, Fence]],
) -> Iterator[Scenario]:
    headings = [(m.start(), len(m[1]), m[2]) for m in HEADING.finditer(without_fences(text))]
    for start, name, metadata, line in marks:
        before = [heading for heading in headings if heading[0] < start]
        if not before:
            raise PageError(f"{path.name}:{line}: the scenario {name} stands under no heading")
        _, level, heading = before[-1]
        end = next((at for at, depth, _ in headings if at > start and depth <= level), len(text))
        own = tuple(fence for at, fence in fences if start < at < end)
        missing = [kind for kind in KINDS[1:] if not any(fence.kind == kind for fence in own)]
        if missing:
            raise PageError(f"{path.name}:{line}: the scenario {name} has no {', '.join(missing)}")
        told = MTTR.search(text, start, end)
        if told is None:
            raise PageError(
                f"{path.name}:{line}: the scenario {name} says no MTTR: best N min, typical N min, worst N min"
            )
        yield Scenario(
            name,
            path.name,
            heading,
            str(metadata["alert"]),
            str(metadata["fault"]),
            tuple(metadata["silent"]),
            own,
            line,
            (int(told[1]), int(told[2]), int(told[3])),
            tuple(metadata["tree"]),
            tuple(sorted((str(k), str(v)) for k, v in (metadata.get("labels") or {}).items())),
            also=tuple(metadata.get("also") or ()),
        )


def without_fences(text: str) -> str:
    """The same text with blanks for fences: a comment in a shell looks like a heading."""
    return re.sub(r"^( *)(`{3,})[^\n]*\n.*?^\1\2 *$", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S | re.M)


def _tidy(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.strip().splitlines())
