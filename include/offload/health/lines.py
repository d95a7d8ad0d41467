"""What the health check says: one line a thing, each with its state and the next command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from include.offload.errors import OffloadError
from include.offload.runbooks import link, path_of
from include.offload.settings import Settings


class State(StrEnum):
    """How a thing is. ABSENT: nothing is configured there, so nothing is known; it does not count as well."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    ABSENT = "not set up"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at. text: the facts; next: what to type; runbook: where to read on.

    seconds: how long its check took.
    """

    name: str
    state: State
    text: str
    next: str | None = None
    runbook: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """One question and the lines that answer it. limit_s: when it counts as unanswered; next: what to type then."""

    names: tuple[str, ...]
    look: Callable[[Settings], list[Line]]
    limit_s: float
    next: str


@dataclass(frozen=True, slots=True)
class Report:
    """All lines. `ok`: nothing failed; warnings and what is not set up do not count.

    hung: whether a check was left behind that may never end.
    """

    lines: tuple[Line, ...]
    seconds: float
    hung: bool = False

    def count(self, state: State) -> int:
        return sum(line.state is state for line in self.lines)

    @property
    def ok(self) -> bool:
        return self.count(State.FAIL) == 0


def good(name: str, text: str) -> Line:
    return Line(name, State.OK, text)


def absent(name: str, text: str) -> Line:
    return Line(name, State.ABSENT, text)


def refused(name: str, error: OffloadError, settings: Settings) -> Line:
    """The line of a refusal: its id, its cause, and where its runbook is."""
    runbook = link(path_of(error.id), settings.runbooks_url)
    return Line(name, State.FAIL, f"{error.id} {error.cause}", error.next_step, runbook)
