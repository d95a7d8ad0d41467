"""`python -m local.runbooks.drill start|list|results`: an incident to practise on, with a clock.

The stage is that of the exercises: the servers of the demo with one table of live trades and the fast alert rules, in
a home of its own (`$OFFLOAD_HOME/drill`, ports from `OFFLOAD_DRILL_PORT_BASE`, 18400), so that the demo's data stays
as it is. The fault is real; the learner repairs it in a second terminal, by whatever means.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import shlex
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table

from include.offload.runbooks import FOLDER
from include.offload.settings import home
from local.runbooks import watch
from local.runbooks.exercise import AS_THE_STAGE, Fault, Limits
from local.runbooks.faults import FAULTS
from local.runbooks.hints import hints
from local.runbooks.pages import Scenario, scenarios
from local.runbooks.proof import UnprovenError, insist
from local.runbooks.stage import environment, staged

PORT_BASE = "18400"
RESULTS = "results.jsonl"
LOOK_S = 1.0
KEYS = "h: a hint   t: the time   g: give up"
SOLVED, GIVEN_UP, DAMAGED = "solved", "given up", "data not whole"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One drill. mttr_s: from the alert to the end; target_s: best, typical and worst of the page. at: ISO 8601, UTC.

    verified: both readers found nothing lost and nothing doubled at the end.
    """

    scenario: str
    at: str
    outcome: str
    mttr_s: float
    target_s: tuple[int, int, int]
    to_alert_s: float
    hints: int
    verified: bool

    @property
    def told(self) -> str:
        """How it went, against the target."""
        best, typical, worst = self.target_s
        if self.outcome != SOLVED:
            return self.outcome
        for limit, word in (
            (best, "as fast as the best"),
            (typical, "within the typical time"),
            (worst, "within the worst"),
        ):
            if self.mttr_s <= limit:
                return word
        return "later than the target"


class Drill:
    """One incident on a running stage. `lines`: where the learner types; `say`: where the drill answers.

    prove_data: both verifiers; raises UnprovenError when a row is lost or doubled.
    """

    def __init__(
        self,
        scenario: Scenario,
        fault: Fault,
        prove_data: Callable[[], None],
        lines: TextIO,
        say: Callable[[str], None],
        limits: Limits = AS_THE_STAGE,
        told: Callable[[Scenario], tuple[str, ...]] = hints,
    ) -> None:
        self._scenario, self._fault, self._prove_data = scenario, fault, prove_data
        self._limits = limits
        self._say = say
        self._hints = told(scenario)
        self._shown = 0
        self._told: set[str] = set()
        self._typed: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(lines,), name="typed", daemon=True).start()

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            self._typed.put(line)

    def play(self) -> Outcome:
        """From the fault to its end.

        Raises watch.LateError when the stage is not healthy or the alert does not come.
        """
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        limits = self._limits
        watch.until(
            lambda: not watch.ailing(self._scenario.alert), limits.healthy_s, "a healthy stage before the drill"
        )
        began = time.monotonic()
        outcome, to_alert_s = GIVEN_UP, 0.0
        try:
            self._fault.cause()
            insist(self._fault.proof(), "the fault was caused and is not there")
            self._say("Something is wrong from now on. You will hear of it by an alert.")
            alert = watch.until(self._fires, limits.alert_s, self._scenario.alert)
            to_alert_s = time.monotonic() - began
            self._say(f"ALERT {alert.name}\n{alert.annotations['summary']}\n{alert.annotations['description']}")
            self._say(f"The clock runs. In the second terminal: bin/offload alerts\n{KEYS}")
            began = time.monotonic()
            if self._until_over(began):
                outcome = SOLVED
        except KeyboardInterrupt:
            self._say("given up")
        finally:
            mttr_s = time.monotonic() - began
            # before anything is tidied: it is the learner's work that is proved. Who gave up may have left servers down
            verified = outcome == SOLVED and self._data_is_whole()
            undone = self._undone()
        if outcome != SOLVED:
            verified = self._data_is_whole()
        if not undone:
            self._say("The stage is still ill: end it without --keep, and begin the next drill on a new one.")
        if outcome == SOLVED and not verified:
            outcome = DAMAGED
        best, typical, worst = (60 * minutes for minutes in self._scenario.mttr)
        return Outcome(
            self._scenario.name,
            at,
            outcome,
            round(mttr_s, 1),
            (best, typical, worst),
            round(to_alert_s, 1),
            self._shown,
            verified,
        )

    def _until_over(self, began: float) -> bool:
        """True when the fault is gone and its alert has cleared; False when the learner gives up."""
        while True:
            word = self._word()
            if word == "g":
                return False
            if word == "h":
                self._hint()
            elif word == "t":
                self._say(f"{time.monotonic() - began:.0f} s since the alert; {self._shown} hints")
            elif word:
                self._say(KEYS)
            with suppress(OSError):
                # Prometheus may be what is repaired just now
                if not self._there() and not self._fires():
                    return True

    def _fires(self) -> watch.Firing | None:
        return watch.fires(self._scenario.alert, self._scenario.labels)

    def _there(self) -> bool:
        try:
            return self._fault.proof()
        except Exception as error:  # noqa: BLE001 - a server that is being repaired refuses in its own words
            if (name := type(error).__name__) not in self._told:
                self._told.add(name)
                self._say(f"(whether the fault is still there can not be seen now: {name})")
            return True

    def _word(self) -> str:
        """The first letter of a line that was typed within `LOOK_S`; empty without one."""
        try:
            return self._typed.get(timeout=LOOK_S).strip()[:1].lower()
        except queue.Empty:
            return ""

    def _hint(self) -> None:
        if self._shown < len(self._hints):
            self._shown += 1
            self._say(f"Hint {self._shown} of {len(self._hints)}. {self._hints[self._shown - 1]}")
        else:
            self._say("There is no other hint.")

    def _undone(self) -> bool:
        """Put right what the learner left behind, for the next drill; whether that went well."""
        try:
            self._fault.undo()
        except Exception as error:  # noqa: BLE001 - whatever it is, the result of the drill is not to be lost for it
            self._say(f"what was left of the fault could not be undone: {type(error).__name__}: {error}")
            return False
        return True

    def _data_is_whole(self) -> bool:
        try:
            self._prove_data()
        except UnprovenError as error:
            self._say(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - ClickHouse may still be down for somebody who gave up
            self._say(f"the data could not be verified: {type(error).__name__}: {error}")
            return False
        return True


def chosen(
    name: str | None, page: str | None = None, pick: Callable[[list[Scenario]], Scenario] = random.choice
) -> Scenario:
    """The named scenario, else one by chance, of one runbook if it is named. Raises ValueError for an unknown name."""
    found = scenarios()
    if name is not None:
        for one in found:
            if one.name == name:
                return one
        raise ValueError(f"there is no scenario {name!r}; `bin/offload drill list` shows all")
    fitting = [one for one in found if page is None or page in one.page]
    if not fitting:
        raise ValueError(f"there is no runbook {page!r}; `bin/offload drill list` shows all")
    return pick(fitting)


def save(folder: Path, outcome: Outcome) -> Path:
    """Add an outcome to the results; their file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RESULTS
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(outcome) | {"told": outcome.told}) + "\n")
    return file


def saved(folder: Path) -> list[dict[str, object]]:
    """All outcomes, the oldest first."""
    file = folder / RESULTS
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def second_terminal(root: Path) -> str:
    """What a shell needs to work on the stage of the drill."""
    names = (*environment(root), "OFFLOAD_PORT_BASE")
    return "".join(f"export {name}={shlex.quote(os.environ[name])}\n" for name in names)


def main() -> int:
    """Exit code 0: solved, or shown; 1: given up, or the data is not whole; 2: an unknown name."""
    parser = argparse.ArgumentParser(prog="bin/offload drill", description=__doc__)
    parser.add_argument("action", choices=("start", "list", "results"))
    parser.add_argument("name", nargs="?", help="a scenario of `list`; one by chance when left out")
    parser.add_argument("--page", help="by chance, but of this runbook: failure, lag, performance, …")
    parser.add_argument("--keep", action="store_true", help="leave the servers running for the next drill")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    root = home() / "drill"
    out = Console(highlight=False)
    if options.action == "list":
        _show_list(out, as_json=options.json)
        return 0
    if options.action == "results":
        _show_results(out, saved(root), as_json=options.json)
        return 0
    try:
        scenario = chosen(options.name, options.page)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return _start(root, scenario, out, keep=options.keep)


def _start(root: Path, scenario: Scenario, out: Console, *, keep: bool) -> int:
    for name in [n for n in os.environ if n.startswith("OFFLOAD_PORT_")]:
        del os.environ[name]
    os.environ |= environment(root) | {"OFFLOAD_PORT_BASE": os.environ.get("OFFLOAD_DRILL_PORT_BASE", PORT_BASE)}
    root.mkdir(parents=True, exist_ok=True)
    file = root / "env"
    file.write_text(second_terminal(root), encoding="utf-8")

    def say(text: str) -> None:
        out.print(f"[{datetime.now(UTC):%H:%M:%S}] {text}", markup=False, soft_wrap=True)

    say(f"The stage is set up, one to three minutes. Meanwhile, in a second terminal:  source {file}")
    with staged(keep=keep) as stage:
        drill = Drill(scenario, FAULTS[scenario.fault](stage), stage.prove_data, sys.stdin, say)
        outcome = drill.play()
    kept = save(root, outcome)
    whole = "verified by both readers" if outcome.verified else "NOT whole"
    say(
        f"{scenario.name}: {outcome.told}. {outcome.mttr_s:.0f} s since the alert, {outcome.hints} hints, data {whole}."
    )
    say(f"The page: {FOLDER}/{scenario.page}#{scenario.anchor}")
    say(f"saved in {kept}")
    return 0 if outcome.outcome == SOLVED else 1


def _show_list(out: Console, *, as_json: bool) -> None:
    rows = [(one.page, one.name, one.alert, one.mttr) for one in scenarios()]
    if as_json:
        sys.stdout.write(
            json.dumps([dict(zip(("page", "name", "alert", "mttr_min"), row, strict=True)) for row in rows]) + "\n"
        )
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("scenario", "alert", "MTTR"):
        table.add_column(heading, no_wrap=True)
    before = ""
    for page, name, alert, mttr in rows:
        if page != before:
            table.add_row(f"[bold]{page}[/bold]")
            before = page
        table.add_row(f"  {name}", alert.removeprefix("IcebergOffload"), " / ".join(map(str, mttr)) + " min")
    out.print(table)


def _show_results(out: Console, found: list[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    if not found:
        out.print("no drill yet. Next: bin/offload drill start")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("when (UTC)", "scenario", "MTTR", "hints", "data", "how"):
        table.add_column(heading, overflow="fold")
    for one in found:
        data = "whole" if one["verified"] else "NOT whole"
        table.add_row(
            str(one["at"]), str(one["scenario"]), f"{one['mttr_s']} s", str(one["hints"]), data, str(one["told"])
        )
    out.print(table)


if __name__ == "__main__":
    sys.exit(main())
