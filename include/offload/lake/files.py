"""Writing one Parquet file with the table's field ids, row group by row group, so that memory stays flat."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.schema import Schema

from include.offload.lake import fit

log = logging.getLogger(__name__)

ROW_GROUP_BYTES = 32 * 2**20
"""Arrow bytes collected before a row group is written: what a task holds in memory, measured flat in bench/."""
SAMPLE_ROWS = 65_536
DICTIONARY_BELOW = 0.2
"""A column gets a dictionary when its first rows hold fewer distinct values than this share: above it the
dictionary overflows and costs CPU for nothing: the writer falls back to plain values."""
ZSTD_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Written:
    """A closed file. `statistics`: keyword arguments of PyIceberg's DataFile, by field id."""

    path: str
    bytes: int
    rows: int
    statistics: dict[str, Any]


class ParquetSink:
    """Writes record batches to one file. A file that is not closed well is deleted, never left half-written."""

    def __init__(self, io: FileIO, path: str, schema: Schema, properties: Mapping[str, str]) -> None:
        self._io = io
        self._path = path
        self._schema = schema
        self._properties = dict(properties)
        self._target: pa.Schema = schema_to_pyarrow(schema)
        self._arrow: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None
        self._stream: Any = None
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; the columns must be the schema's, in its order. Raises UnfitValueError for a value that
        would not arrive as it is."""
        if batch.num_columns != len(self._target):
            raise ValueError(f"{batch.num_columns} columns for a table of {len(self._target)}")
        if batch.num_rows == 0:
            # Parquet has no row group of 0 rows
            return
        if self._arrow is None:
            self._arrow = pa.schema([_field(t, batch.column(i).type) for i, t in enumerate(self._target)])
        columns = [
            column if column.type == field.type else column.cast(field.type)
            for column, field in zip(batch.columns, self._arrow, strict=True)
        ]
        for column, field in zip(columns, self._arrow, strict=True):
            fit.check(field.name, column)
        ready = pa.RecordBatch.from_arrays(columns, schema=self._arrow)
        self._pending.append(ready)
        self._pending_bytes += ready.nbytes
        self.rows += ready.num_rows
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.Table.from_batches(self._pending, self._arrow)
        self._pending, self._pending_bytes = [], 0
        if self._writer is None:
            self._stream = self._io.new_output(self._path).create(overwrite=True)
            self._writer = pq.ParquetWriter(
                self._stream,
                self._arrow,
                compression=self._properties.get("write.parquet.compression-codec", "zstd"),
                compression_level=int(self._properties.get("write.parquet.compression-level", ZSTD_LEVEL)),
                use_dictionary=dictionary_columns(table),
                store_schema=False,
                # the Iceberg specification stores decimals of up to 18 digits as integers
                store_decimal_as_integer=True,
            )
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> Written | None:
        """Finish the file; None when no row came, and then there is no file."""
        self._flush()
        if self._writer is None:
            return None
        self._writer.close()
        # what was written; the store may hold less, and is asked before the commit
        size = int(self._stream.tell())
        self._stream.close()
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=self._writer.writer.metadata,
            stats_columns=compute_statistics_plan(self._schema, self._properties),
            parquet_column_mapping=parquet_path_to_id_mapping(self._schema),
        )
        return Written(self._path, size, self.rows, statistics.to_serialized_dict())

    def abandon(self) -> None:
        """Delete what was written so far."""
        if self._writer is not None:
            self._writer.is_open = False  # else its finaliser writes a footer into the closed stream
        if self._stream is not None:
            self._stream.close()
            self._io.delete(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            return
        try:
            self.abandon()
        except OSError as left:
            # a store that refused the file may refuse this too: the first error is the one to report
            log.warning("left for orphan removal: %s (%s)", self._path, left)


def _field(target: pa.Field, have: pa.DataType) -> pa.Field:
    """The field to write: the table's id and nullability; the type as it came where only its width differs."""
    narrow = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    kind = have if narrow.get(target.type) == have else target.type
    return target.with_type(kind)


def dictionary_columns(table: pa.Table) -> list[str]:
    """The Parquet paths whose first rows repeat often enough for a dictionary."""
    sample = table.slice(0, SAMPLE_ROWS)
    return [path for i, name in enumerate(sample.column_names) for path in _repeating(name, sample.column(i))]


def _repeating(path: str, values: pa.ChunkedArray) -> Iterator[str]:
    kind = values.type
    whole = values.combine_chunks()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _repeating(f"{path}.list.element", pa.chunked_array([whole.flatten()]))
    elif pa.types.is_map(kind):
        yield from _repeating(f"{path}.key_value.key", pa.chunked_array([whole.keys]))
        yield from _repeating(f"{path}.key_value.value", pa.chunked_array([whole.items]))
    elif pa.types.is_struct(kind):
        for field, child in zip(kind, whole.flatten(), strict=True):
            yield from _repeating(f"{path}.{field.name}", pa.chunked_array([child]))
    elif not pa.types.is_boolean(kind):
        storage = whole.storage if isinstance(whole, pa.ExtensionArray) else whole
        # a third of the cost of count_distinct
        if len(storage) and len(storage.unique()) < DICTIONARY_BELOW * len(storage):
            yield path
