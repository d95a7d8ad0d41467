"""The driver ships a small plan itself: it starts neither a Spark context nor Python workers.

They cost two thirds of the time of a run that ships a few thousand rows (docs/performance.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from spark_jobs.lanes import files_of, lanes_of, ship_lane
from spark_jobs.progress import Progress

if TYPE_CHECKING:
    from include.offload.errors import OffloadError
    from include.offload.lake.shipping import SliceTask
    from include.offload.model import ShippedFile


class Sum:
    """A number that threads add to."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, term: int) -> None:
        with self._lock:
            self.value += term


class InDriver:
    """Runs a thread a lane, here."""

    application_id: str | None = None
    """No history server knows of this job."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ready(self) -> None:
        """At once."""

    def run(self, tasks: Sequence[SliceTask]) -> Iterable[ShippedFile]:
        """Ship every lane of slices; yields the files, then raises the first refusal."""
        if not tasks:
            return
        done, rows, size = Sum(), Sum(), Sum()
        lanes = lanes_of(tasks)
        results: list[ShippedFile | OffloadError] = []
        with Progress(tasks, done, rows, size), ThreadPoolExecutor(len(lanes)) as threads:
            for shipped in threads.map(lambda lane: ship_lane(lane, done, rows, size), lanes):
                results += shipped
        yield from files_of(results)
