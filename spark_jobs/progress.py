"""How far a job is, in the lines of its contract."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from include.offload.jobwords import PROGRESS

if TYPE_CHECKING:
    from include.offload.lake.shipping import SliceTask

EVERY_S = 2.0


def say(word: str, document: object) -> None:
    """One line of the contract."""
    sys.stdout.write(f"{word}{json.dumps(document, default=str)}\n")
    sys.stdout.flush()


class Count(Protocol):
    """A number that tasks add to from wherever they run, as Spark's accumulators."""

    @property
    def value(self) -> int: ...

    def add(self, term: int) -> None: ...


class Progress:
    """Says how far the tasks are, from a thread, while they run. The counts are for people, not for the audit."""

    def __init__(self, tasks: Sequence[SliceTask], done: Count, rows: Count, size: Count) -> None:
        self._total = len(tasks)
        self._planned = sum(t.rows for t in tasks)
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._done, self._rows, self._bytes = done, rows, size
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._say()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._say()

    def _say(self) -> None:
        seconds = time.monotonic() - self._started
        rows = self._rows.value
        rate = rows / seconds if seconds else 0.0
        say(
            PROGRESS,
            {
                "slices_done": self._done.value,
                "slices": self._total,
                "rows": rows,
                "rows_planned": self._planned,
                "bytes": self._bytes.value,
                "seconds": round(seconds, 1),
                "rows_per_second": round(rate),
                "eta_seconds": round(max(0, self._planned - rows) / rate) if rate else None,
            },
        )
