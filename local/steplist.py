"""A list of steps with their times: a spinner where there is a terminal, one line a step where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

PIPE_WIDTH = 160


class Step:
    """A step in progress."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = task
        self.detail = ""

    def say(self, detail: str) -> None:
        """What is being done now; the last one stays in the finished line."""
        self.detail = detail
        self._progress.update(self._task, detail=detail)  # type: ignore[arg-type]

    def advance(self, done: int, total: int) -> None:
        """Shows a bar: `done` of `total`."""
        self._progress.update(self._task, completed=done, total=total)  # type: ignore[arg-type]


class StepList:
    """Prints each finished step with its time in seconds."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self.started = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step; an exception marks it as failed and goes on."""
        began = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            step = Step(progress, progress.add_task(name, total=None, detail=""))
            try:
                yield step
            except BaseException:
                self._line("[red]✗[/]", name, step.detail, began)
                raise
        self._line("[green]✓[/]", name, step.detail, began)

    def _line(self, mark: str, name: str, detail: str, began: float) -> None:
        took = f"{time.monotonic() - began:6.1f} s"
        self.console.print(f"{mark} {took}  {name}" + (f"  [dim]{detail}[/]" if detail else ""), highlight=False)

    def total(self) -> float:
        """Seconds since the list began."""
        return time.monotonic() - self.started


def make_console() -> Console:
    """A console that does not fold at 80 columns where there is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)
