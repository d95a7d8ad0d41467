"""What the metadata of an Iceberg table says of its files, snapshots and manifests. Reads no data file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.types import DateType, TimestampType, TimestamptzType

from include.offload.maintenance.model import Bounds, LakeState

DAY_US = 86_400_000_000
ICEBERG_SMALL = 0.75
"""Iceberg's default: a file below this share of the target is rewritten (`min-file-size-bytes`)."""
ICEBERG_LARGE = 1.8
"""Iceberg's default: a file above this many times the target is rewritten (`max-file-size-bytes`)."""
WRITTEN = 1 + (ICEBERG_LARGE - 1) / 2
"""Iceberg's writer closes a file half-way between target and the largest: a file has up to so many times the target."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """One data file. partition: anything that is equal for files of one Iceberg partition and spec.

    lo_us, hi_us: the first and last instant of the cursor in it, µs UTC; None when its statistics do not say.
    """

    bytes: int
    rows: int
    partition: str
    lo_us: int | None
    hi_us: int | None
    deletes: int


def bounds(files: Sequence[FileFact], file_size: int, slice_rows: int, slice_bytes: int) -> Bounds:
    """How large compacted files may get: a replace holds one in memory, so no larger than a slice (rule 20).

    A slice is bounded in rows, and in bytes of the source: rows become bytes by the table's own mean.
    """
    rows, size = sum(f.rows for f in files), sum(f.bytes for f in files)
    by_rows = slice_rows * size // rows if rows else file_size
    # below a mebibyte the footer is most of a file
    most = max(2**20, min(file_size, slice_bytes, by_rows))
    target = int(most / WRITTEN)
    return Bounds(most, target, int(target * ICEBERG_SMALL), int(target * ICEBERG_LARGE))


def facts(table: Table, cursor: str) -> list[FileFact]:
    """The data files of the current snapshot."""
    return list(_facts(table, cursor))


def _facts(table: Table, cursor: str) -> Iterator[FileFact]:
    for task in table.scan().plan_files():
        file = task.file
        lo, hi = (_instant(table, file, cursor, upper) for upper in (False, True))
        yield FileFact(
            bytes=file.file_size_in_bytes,
            rows=file.record_count,
            partition=f"{file.spec_id} {file.partition}",
            lo_us=lo,
            hi_us=hi,
            deletes=len(task.delete_files),
        )


def _instant(table: Table, file: DataFile, cursor: str, upper: bool) -> int | None:
    column = table.schema().find_field(cursor)
    if not isinstance(column.field_type, DateType | TimestampType | TimestamptzType):
        return None
    bound = ((file.upper_bounds if upper else file.lower_bounds) or {}).get(column.field_id)
    if bound is None:
        return None
    scale = DAY_US if isinstance(column.field_type, DateType) else 1
    return int(from_bytes(column.field_type, bound)) * scale


def measure(table: Table, files: Sequence[FileFact], small_below: int) -> LakeState:
    """The table in figures. small_below: bytes."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot is not None else []
    summary = snapshot.summary if snapshot is not None else None
    metadata = [table.metadata_location] + ([snapshot.manifest_list] if snapshot is not None else [])
    return LakeState(
        rows=sum(f.rows for f in files),
        files=len(files),
        small_files=sum(1 for f in files if f.bytes < small_below),
        bytes=sum(f.bytes for f in files),
        delete_files=int((summary["total-delete-files"] if summary is not None else None) or 0),
        snapshots=len(table.metadata.snapshots),
        manifests=len(manifests),
        metadata_bytes=sum(len(table.io.new_input(path)) for path in metadata)
        + sum(m.manifest_length for m in manifests),
    )
