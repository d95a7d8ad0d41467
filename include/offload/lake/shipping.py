"""One slice: a ClickHouse query in, a Parquet file out, counted and hashed per window on the way (rules 12 and 13).

Runs inside a Spark executor; knows neither Spark nor the ledger.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import IncompleteRead
from typing import Any

import pyarrow as pa
from pyiceberg.io import load_file_io
from pyiceberg.schema import Schema
from urllib3.exceptions import HTTPError

from include.offload.crashpoint import reached
from include.offload.errors import SOURCE_STREAM_BROKEN, TYPE_NOT_LOSSLESS, OffloadError
from include.offload.lake.files import ParquetSink
from include.offload.lake.fit import UnfitValueError, advice
from include.offload.lake.reach import reaching
from include.offload.model import Plan, ShippedFile, Slice, WindowState
from include.offload.source.client import Client, Endpoint
from include.offload.source.icetypes import text_of
from include.offload.source.sql import partition_sql, quote, spans_sql, window_sql

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How an Arrow IPC stream ends; without it the sender broke off, and Arrow's reader would not say so."""
STREAM_SETTINGS = {
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_compression_method": "none",
}
EXCEPTION = re.compile(rb"__exception__\r\n\S+\r\n(.+?)\n\d+ \S+\r\n__exception__", re.DOTALL)
"""How ClickHouse appends the error of a query that fails after its first bytes were sent: tag, text, length and tag."""
TAIL_BYTES = 1 << 14
READ_BYTES = 1 << 20
COUNT_ROWS = 65_536
"""Rows whose hashes are summed at a time: a grouping costs more a call than a row. They stay in memory until then."""


@dataclass(frozen=True, slots=True)
class SliceTask:
    """All that a worker needs. The endpoint holds a password: neither it nor the file-io settings show in `repr`."""

    number: int
    table: str
    rows: int
    """As planned."""
    sql: str
    path: str
    """Below the attempt's own directory; every execution adds its own suffix, so that a retried or forgotten one
    never writes over another's file."""
    partition: tuple[Any, ...]
    schema_json: str
    comment: str
    limits: Mapping[str, object]
    table_properties: Mapping[str, str]
    source_types: Mapping[str, str]
    """Column to ClickHouse type, for the message when a value does not fit."""
    endpoint: Endpoint = field(repr=False)
    io_properties: Mapping[str, str] = field(repr=False)
    lane: int = 0
    """Tasks of one lane run one after the other: there are as many lanes as the spec allows queries at a time."""


def slice_sql(plan: Plan, slice_: Slice, source: str, final: bool) -> str:
    """The query of a slice: the projected columns by position, then row hash and window number."""
    columns = ", ".join(f"{c.expr} AS __offload_{i}" for i, c in enumerate(plan.projection.columns))
    where = f"{spans_sql(plan.cursor, slice_.spans)} AND {partition_sql(plan.partition, slice_.partition)}"
    order = f" ORDER BY {', '.join(plan.sort)}" if plan.sort else ""
    return (
        f"SELECT {columns}, {plan.projection.hash_sql} AS __offload_hash,"
        f" {window_sql(plan.cursor, plan.width_us)} AS __offload_window"
        f" FROM {source}{' FINAL' if final else ''} WHERE {where}{order}"
    )


def source_name(database: str, table: str) -> str:
    """`database`.`table`, quoted."""
    return f"{quote(database)}.{quote(table)}"


class _Tail:
    """Reads through to the response and remembers the last bytes: is it whole, and if not, what did ClickHouse say."""

    closed = False

    def __init__(self, response: Any) -> None:
        self._response = response
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        wanted = size if size >= 0 else READ_BYTES
        data: bytes = self._response.read(wanted)
        # Arrow takes a short read for the end
        while data and len(data) < wanted and (more := self._response.read(wanted - len(data))):
            data += more
        self.tail = (self.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        return data

    def why(self, error: Exception | None, otherwise: str) -> str:
        """ClickHouse's own words for the break; `otherwise` when there are none."""
        if error is None or isinstance(error, pa.ArrowException):
            try:
                # Arrow stops at the first byte that it does not expect
                self.read(TAIL_BYTES)
            except (HTTPError, OSError) as cut:
                error = cut
        # what came of a read that was cut short is with the error
        broken = next((a for a in error.args if isinstance(a, IncompleteRead)), None) if error is not None else None
        found = EXCEPTION.search(self.tail + (broken.partial[-TAIL_BYTES:] if broken is not None else b""))
        return (found[1].decode(errors="replace") if found else otherwise).replace("\n", " ")[:500]

    def readable(self) -> bool:
        return True


def batches(stream: Any, table: str) -> Iterator[pa.RecordBatch]:
    """The record batches of an ArrowStream. Raises OFL-208 unless the stream ends with its end-of-stream."""
    tail = _Tail(stream)
    try:
        with pa.ipc.open_stream(pa.PythonFile(tail, mode="r")) as reader:
            yield from reader
        while tail.read(READ_BYTES):
            pass
    except (pa.ArrowException, HTTPError, OSError) as error:
        raise OffloadError(SOURCE_STREAM_BROKEN, tail.why(error, str(error)), table=table) from error
    if not tail.tail.endswith(END_OF_STREAM):
        raise OffloadError(SOURCE_STREAM_BROKEN, tail.why(None, "the stream has no end-of-stream mark"), table=table)


def ship(task: SliceTask) -> ShippedFile:
    """Run one slice. The file is in the store when this returns; on any failure it is gone.

    Raises OFL-205 for a value that Iceberg can't hold, OFL-2xx when ClickHouse fails, OFL-307 when the store does.
    """
    started = time.monotonic()
    schema = Schema.model_validate_json(task.schema_json)
    path = f"{task.path.removesuffix('.parquet')}-{uuid.uuid4()}.parquet"
    io = load_file_io(dict(task.io_properties), path)
    windows: dict[int, WindowState] = {}
    width = len(schema.fields)
    with Client(task.endpoint, settings=task.limits, comment=task.comment, table=task.table) as client:
        stream = client.stream(task.sql, STREAM_SETTINGS)
        try:
            with reaching(task.table), ParquetSink(io, path, schema, task.table_properties) as sink:
                counted: list[pa.RecordBatch] = []
                for batch in batches(stream, task.table):
                    counted.append(_counters(batch, width))
                    if sum(b.num_rows for b in counted) >= COUNT_ROWS:
                        _count(windows, counted)
                        counted = []
                    sink.write(pa.RecordBatch.from_arrays(batch.columns[:width], names=batch.schema.names[:width]))
                    reached("mid-stream")
                _count(windows, counted)
                written = sink.close()
        except UnfitValueError as error:
            wanted = text_of(schema.find_field(error.column).field_type)
            cause = advice(error, task.source_types[error.column], wanted)
            raise OffloadError(TYPE_NOT_LOSSLESS, cause, table=task.table) from error
        finally:
            stream.close()
    reached("file-uploaded")
    return ShippedFile(
        slice_number=task.number,
        path=path,
        bytes=written.bytes if written else 0,
        rows=written.rows if written else 0,
        windows=tuple(windows[n] for n in sorted(windows)),
        seconds=time.monotonic() - started,
        partition=task.partition,
        statistics=written.statistics if written else {},
    )


def _counters(batch: pa.RecordBatch, width: int) -> pa.RecordBatch:
    """Row hash and window number of a batch, copied: its own columns keep the whole message that they came in."""
    columns = [pa.concat_arrays([c, c.slice(0, 0)]) for c in batch.columns[width : width + 2]]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names[width : width + 2])


def _count(windows: dict[int, WindowState], batches_: list[pa.RecordBatch]) -> None:
    """Add batches of row hash and window number, in this order."""
    if batches_:
        table = pa.Table.from_batches(batches_)
        _add(windows, table.column(0), table.column(1))


def _add(windows: dict[int, WindowState], hashes: pa.ChunkedArray, numbers: pa.ChunkedArray) -> None:
    """Sum count and hash per window; UInt64 sums wrap around, as ClickHouse's do."""
    # a handful of rows is no work to share between threads, and Spark runs one task a core
    grouped = pa.table([numbers, hashes], names=["w", "h"]).group_by("w", use_threads=False)
    for row in grouped.aggregate([("h", "sum"), ("h", "count")]).to_pylist():
        number = int(row["w"])
        added = WindowState(number, int(row["h_count"]), int(row["h_sum"]) % 2**64)
        windows[number] = windows[number] + added if number in windows else added
