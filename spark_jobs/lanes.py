"""A lane of slices, one after the other: what a Spark task runs, or a thread of the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from include.offload.errors import OffloadError

if TYPE_CHECKING:
    from include.offload.lake.shipping import SliceTask
    from include.offload.model import ShippedFile
    from spark_jobs.progress import Count


def lanes_of(tasks: Sequence[SliceTask]) -> list[list[SliceTask]]:
    """The tasks of each lane."""
    return [[t for t in tasks if t.lane == lane] for lane in sorted({t.lane for t in tasks})]


def ship_lane(lane: Iterable[SliceTask], done: Count, rows: Count, size: Count) -> list[ShippedFile | OffloadError]:
    """The files of a lane; a refusal ends it and is its last entry, so that the files before it can be deleted."""
    # slow to import, and needed only where slices are shipped
    from include.offload.lake.shipping import ship

    files: list[ShippedFile | OffloadError] = []
    for task in lane:
        try:
            file = ship(task)
        except OffloadError as error:
            return [*files, error]
        done.add(1)
        rows.add(file.rows)
        size.add(file.bytes)
        files.append(file)
    return files


def files_of(results: Sequence[ShippedFile | OffloadError]) -> Iterator[ShippedFile]:
    """All files, then the first refusal, raised."""
    yield from (r for r in results if not isinstance(r, OffloadError))
    for failure in (r for r in results if isinstance(r, OffloadError)):
        raise failure
