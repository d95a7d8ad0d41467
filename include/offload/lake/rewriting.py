"""Replacing windows: which data files hold them, and what must stay of files that hold other windows too.

A replace deletes whole files only; the rows of a partly affected file that stay are written into a new file, in the
same snapshot (rule 15). Memory is bounded by one data file (rule 20).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, LessThan, Not, Or
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import FileScanTask, Table
from pyiceberg.typedef import Record
from pyiceberg.types import DateType, TimestampType, TimestamptzType

from include.offload.errors import TARGET_HAS_DELETES, OffloadError
from include.offload.lake.files import ParquetSink
from include.offload.windows import Span, from_us, merge

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Replacement:
    """The files that leave the table, the ones that keep their other rows, and the rows that go."""

    deleted: tuple[DataFile, ...] = ()
    remainders: tuple[DataFile, ...] = ()
    rows_removed: int = 0


def cursor_filter(table: Table, cursor: str, spans: Sequence[Span]) -> BooleanExpression:
    """The Iceberg expression that the cursor lies in one of the spans."""
    parts: list[BooleanExpression] = []
    for span in merge(spans):
        low, high = (_literal(table, cursor, us) for us in (span.lo, span.hi))
        parts.append(And(GreaterThanOrEqual(term=cursor, value=low), LessThan(term=cursor, value=high)))
    return Or(*parts) if len(parts) > 1 else parts[0]


def _literal(table: Table, cursor: str, us: int) -> str:
    kind = table.schema().find_type(cursor)
    moment = from_us(us)
    if isinstance(kind, DateType):
        return moment.date().isoformat()
    return moment.isoformat() if isinstance(kind, TimestamptzType) else moment.replace(tzinfo=None).isoformat()


def find_replacement(
    table: Table, identity: str, cursor: str, spans: Sequence[Span], attempt: uuid.UUID
) -> Replacement:
    """Find and prepare all that a replace of `spans` touches in the table's current snapshot.

    New files are written below the attempt's path and belong to it. Raises OFL-308 when a file carries row-level
    deletes.
    """
    inside = cursor_filter(table, cursor, spans)
    deleted: list[DataFile] = []
    remainders: list[DataFile] = []
    removed = 0
    for task in table.scan(row_filter=inside).plan_files():
        if task.delete_files:
            raise OffloadError(TARGET_HAS_DELETES, task.file.file_path, table=identity)
        if _wholly_inside(table, task, cursor, spans):
            deleted.append(task.file)
            removed += task.file.record_count
            continue
        write = _write_remainder if task.file.spec_id == table.spec().spec_id else _write_moved
        written, kept = write(table, task, Not(inside), attempt)
        # else the next file comes on top of what the allocator still holds of this one (rule 20)
        pa.default_memory_pool().release_unused()
        if kept == task.file.record_count:
            continue
        deleted.append(task.file)
        removed += task.file.record_count - kept
        remainders += written
    return Replacement(tuple(deleted), tuple(remainders), removed)


def _wholly_inside(table: Table, task: FileScanTask, cursor: str, spans: Sequence[Span]) -> bool:
    field = table.schema().find_field(cursor)
    low, high = (bounds.get(field.field_id) for bounds in (task.file.lower_bounds or {}, task.file.upper_bounds or {}))
    if low is None or high is None or not isinstance(field.field_type, DateType | TimestampType | TimestamptzType):
        return False
    scale = DAY_US if isinstance(field.field_type, DateType) else 1
    first, last = (int(from_bytes(field.field_type, bound)) * scale for bound in (low, high))
    return any(span.contains(first) and span.contains(last) for span in merge(spans))


def _write_remainder(
    table: Table, task: FileScanTask, keep: BooleanExpression, attempt: uuid.UUID
) -> tuple[list[DataFile], int]:
    """The rows of a file that stay, as a new file, and how many; no file when nothing stays or nothing goes."""
    scan = ArrowScan(table.metadata, table.io, table.schema(), keep)
    path = data_path(table, attempt, f"keep-{uuid.uuid4()}")
    with ParquetSink(table.io, path, table.schema(), table.properties) as sink:
        for batch in scan.to_record_batches([task]):
            sink.write(batch)
        kept = sink.rows
        if kept == task.file.record_count:
            sink.abandon()
            return [], kept
        written = sink.close()
    if written is None:
        return [], 0
    return [data_file(table, path, written.bytes, written.rows, task.file.partition, written.statistics)], kept


def _write_moved(
    table: Table, task: FileScanTask, keep: BooleanExpression, attempt: uuid.UUID
) -> tuple[list[DataFile], int]:
    """The same for a file of an older partition spec: its rows move to the partitions of the current one.

    A snapshot of PyIceberg adds files of one spec only, the current one. Holds one data file in memory (rule 20).
    """
    rows = ArrowScan(table.metadata, table.io, table.schema(), keep).to_table([task])
    kept = rows.num_rows
    if kept == task.file.record_count:
        return [], kept
    files = []
    for partition, part in _partitioned(table, rows):
        path = data_path(table, attempt, f"keep-{uuid.uuid4()}")
        with ParquetSink(table.io, path, table.schema(), table.properties) as sink:
            for batch in part.to_batches():
                sink.write(batch)
            written = sink.close()
        if written is not None:
            files.append(data_file(table, path, written.bytes, written.rows, partition, written.statistics))
    return files, kept


def _partitioned(table: Table, rows: pa.Table) -> Iterator[tuple[Record, pa.Table]]:
    """The rows of each partition of the table's current spec."""
    spec, schema = table.spec(), table.schema()
    if rows.num_rows == 0:
        return
    if not spec.fields:
        yield Record(), rows
        return
    values = []
    for f in spec.fields:
        source = schema.find_field(f.source_id)
        values.append(f.transform.pyarrow_transform(source.field_type)(rows.column(source.name)))
    names = [f"p{i}" for i in range(len(values))]
    numbered = pa.table([*values, pa.array(range(rows.num_rows))], names=[*names, "row"])
    for group in numbered.group_by(names, use_threads=False).aggregate([("row", "list")]).to_pylist():
        key = PartitionKey(
            [PartitionFieldValue(f, group[n]) for f, n in zip(spec.fields, names, strict=True)], spec, schema
        )
        yield key.partition, rows.take(group["row_list"])


def data_path(table: Table, attempt: uuid.UUID, name: str) -> str:
    """Where a data file of an attempt lives: below the table's own location, under the attempt (rule 13)."""
    return table.location_provider().new_data_location(f"offload-{attempt}/{name}.parquet")


def data_file(table: Table, path: str, size: int, rows: int, partition: Record, statistics: dict[str, Any]) -> DataFile:
    """The DataFile of a written Parquet file, under the table's current partition spec."""
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=size,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **(dict(statistics) | {"record_count": rows}),
    )
    file.spec_id = table.spec().spec_id
    return file
