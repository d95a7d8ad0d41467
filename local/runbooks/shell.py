"""Runs the commands of a runbook as they are written, in the root of this repository, as its reader would."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from local.paths import ROOT
from local.runbooks.pages import ASKED, Step

LIMIT_S = 330.0
"""The longest that one command may take, seconds: a start of the whole stack on a busy machine."""


TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ran. `output`: both streams, in order; `seconds`: how long it took."""

    step: Step
    output: str
    code: int
    seconds: float

    @property
    def matches(self) -> bool:
        """Whether it printed what the page says. A command that is not there, or breaks off, never does."""
        return not self.broken and self.step.matches(self.output)

    @property
    def broken(self) -> bool:
        """Whether the command itself is wrong: unknown, not to be run, out of time, or ended by a traceback."""
        # a log that is shown may well hold one; showing it ends with 0
        return self.code in (124, 126, 127) or (self.code != 0 and TRACEBACK in self.output)

    def __str__(self) -> str:
        wanted = f"\n--- the page says\n{self.step.expected}" if not self.matches else ""
        return f"line {self.step.line}: $ {self.step.command}\n{self.output}(exit {self.code}){wanted}"


def run(step: Step, limit_s: float = LIMIT_S) -> Ran:
    """One command, with no terminal, and as input the answers that the page gives.

    The output shows the answers as a terminal would. A command that has no end within `limit_s` seconds exits with 124.
    """
    began = time.monotonic()
    with subprocess.Popen(
        ["bash", "-c", step.command],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(step.answers, limit_s)
            code = process.returncode
        except BaseException as error:
            # with all of a pipeline: what is left of one would hold its output open
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            output, _ = process.communicate()
            output, code = f"{output}\nno end within {limit_s:.0f} s\n", 124
    return Ran(step, _as_on_a_terminal(output, step.answers.count("\n")), code, time.monotonic() - began)


def _as_on_a_terminal(output: str, answers: int) -> str:
    """With what was typed behind each question that was answered."""
    return ASKED.sub(r"\1y\n", output, count=answers) if answers else output


def run_until_odd(steps: Iterable[Step]) -> tuple[list[Ran], bool]:
    """The commands in turn, up to the first whose output is not the page's; whether all were."""
    ran: list[Ran] = []
    for step in steps:
        ran.append(run(step))
        if not ran[-1].matches:
            return ran, False
    return ran, True
