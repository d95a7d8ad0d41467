"""Streams: a whole one is read whole, a broken one is never taken for a whole one (OFL-208)."""

from __future__ import annotations

import io
import tracemalloc
import uuid
from typing import Any

import pyarrow as pa
import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from include.offload.errors import SOURCE_STREAM_BROKEN, OffloadError
from include.offload.lake.shipping import END_OF_STREAM, SliceTask, _add, _count, _counters, batches, slice_sql
from include.offload.model import PartitionColumn, Plan, ProjectedColumn, Projection, Slice, Target, WindowState
from include.offload.source.client import Endpoint
from include.offload.windows import Span

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string()), ("l", pa.list_(pa.int32()))])


def stream(*sizes: int) -> bytes:
    """An ArrowStream of batches of these sizes."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        for start, size in enumerate(sizes):
            rows = [{"n": start * 1000 + i, "s": "ä" * (i % 5), "l": list(range(i % 3))} for i in range(size)]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    return sink.getvalue()


class Trickle(io.RawIOBase):
    """A response that gives what it has when it has it, as sockets do."""

    def __init__(self, data: bytes, at_most: int) -> None:
        self._data, self._at, self._most = data, 0, at_most

    def read(self, size: int = -1) -> bytes:
        size = self._most if size < 0 else min(size, self._most)
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece


def read(data: bytes) -> list[pa.RecordBatch]:
    return list(batches(io.BytesIO(data), "k2.trades"))


def test_a_whole_stream_is_read_whole() -> None:
    assert [b.num_rows for b in read(stream(3, 0, 5))] == [3, 0, 5]
    assert read(stream()) == []
    assert stream(3)[-8:] == END_OF_STREAM


def test_what_is_kept_to_be_counted_does_not_keep_the_rows_it_came_with() -> None:
    """Rows may be wide: 40 MB pass here, of which 16 bytes a row are counted."""
    schema = pa.schema([("s", pa.string()), ("h", pa.uint64()), ("w", pa.int64())])
    batch = pa.record_batch([["x" * 10_000] * 400, list(range(400)), [7] * 400], schema=schema)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for _ in range(10):
            writer.write_batch(batch)
    data = io.BytesIO(sink.getvalue())
    tracemalloc.start()
    try:
        counted = [_counters(b, 1) for b in batches(data, "k2.trades")]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000_000, "one message may still be there, all ten not"
    assert sum(c.num_rows for c in counted) == 4_000
    windows: dict[int, WindowState] = {}
    _count(windows, counted)
    assert windows == {7: WindowState(7, 4_000, 10 * sum(range(400)))}


def test_a_stream_cut_at_any_byte_is_refused() -> None:
    whole = stream(3, 2)
    for cut in range(len(whole)):
        with pytest.raises(OffloadError) as refused:
            read(whole[:cut])
        assert refused.value.kind is SOURCE_STREAM_BROKEN, cut
        assert refused.value.table == "k2.trades"


@pytest.mark.parametrize("tail", [b"\0", b"__exception__\r\nCode: 241. DB::Exception: Memory limit", END_OF_STREAM[:4]])
def test_anything_after_the_end_of_the_stream_is_refused(tail: bytes) -> None:
    """ClickHouse appends the error of a query that fails after its first bytes were sent."""
    with pytest.raises(OffloadError) as refused:
        read(stream(3) + tail)
    assert refused.value.kind is SOURCE_STREAM_BROKEN


@pytest.mark.parametrize("cut", [0, 8, 50])
def test_what_clickhouse_says_after_its_first_rows_is_the_cause(cut: int) -> None:
    """As servers since 25.11 write it into the stream, wherever that breaks off."""
    said = b"Code: 241. DB::Exception: Memory limit exceeded:\nwould use 60 MiB. (MEMORY_LIMIT_EXCEEDED)"
    written = b"\r\n__exception__\r\nab12\r\n%b\n%d ab12\r\n__exception__\r\n" % (said, len(said) + 1)
    whole = stream(3, 4_000)
    with pytest.raises(OffloadError) as refused:
        read(whole[: len(whole) - cut] + written)
    assert refused.value.kind is SOURCE_STREAM_BROKEN
    assert refused.value.cause == said.decode().replace("\n", " ")


@given(sizes=st.lists(st.integers(0, 40), max_size=4), cut=st.integers(0, 200), text=st.binary(max_size=300))
def test_an_error_in_the_middle_of_a_stream_is_refused(sizes: list[int], cut: int, text: bytes) -> None:
    whole = stream(*sizes)
    broken = whole[: max(0, len(whole) - 8 - cut)] + text
    if broken == whole or broken.endswith(END_OF_STREAM):
        return
    with pytest.raises(OffloadError) as refused:
        read(broken)
    assert refused.value.kind is SOURCE_STREAM_BROKEN


@pytest.mark.parametrize("at_most", [1, 7, 8, 64])
def test_a_connection_that_trickles_is_no_broken_one(at_most: int) -> None:
    found = list(batches(Trickle(stream(30, 20), at_most), "k2.trades"))
    assert [b.num_rows for b in found] == [30, 20]


class Failing(io.RawIOBase):
    """Fails after its first bytes."""

    def __init__(self, data: bytes, error: Exception) -> None:
        self._inner, self._error = io.BytesIO(data), error

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(size)
        if not data:
            raise self._error
        return data


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset by peer"),
        TimeoutError("timed out"),
        urllib3.exceptions.ProtocolError("Connection broken: IncompleteRead"),
        urllib3.exceptions.ReadTimeoutError(None, "/", "Read timed out"),  # type: ignore[arg-type]
    ],
    ids=lambda e: type(e).__name__,
)
def test_a_connection_that_breaks_is_a_broken_stream(error: Exception) -> None:
    with pytest.raises(OffloadError) as refused:
        list(batches(Failing(stream(3)[:-8], error), "k2.trades"))
    assert refused.value.kind is SOURCE_STREAM_BROKEN


def test_a_fault_of_ours_is_not_taken_for_a_broken_stream() -> None:
    with pytest.raises(ZeroDivisionError):
        list(batches(Failing(stream(3)[:-8], ZeroDivisionError()), "k2.trades"))


# ---- counting --------------------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2**64 - 1)), max_size=30)


@given(st.lists(ROWS, max_size=4))
def test_rows_and_hashes_are_summed_per_window_and_wrap_around_as_clickhouse_s_do(
    pieces: list[list[tuple[int, int]]],
) -> None:
    found: dict[int, WindowState] = {}
    for piece in pieces:
        _add(found, pa.array([h for _, h in piece], pa.uint64()), pa.array([w for w, _ in piece], pa.int64()))
    rows = [row for piece in pieces for row in piece]
    assert found == {
        w: WindowState(w, sum(x == w for x, _ in rows), sum(h for x, h in rows if x == w) % 2**64)
        for w in {w for w, _ in rows}
    }


# ---- the query -------------------------------------------------------------------------------------------------------


def plan(**changes: Any) -> Plan:
    columns = (
        ProjectedColumn("ts", "DateTime", "toDateTime64(`ts`, 6, 'UTC')", "timestamptz", True),
        ProjectedColumn("n", "UInt8", "toInt32(`n`)", "int", True),
    )
    known: dict[str, Any] = {
        "plan_id": uuid.UUID(int=1), "pipeline": uuid.UUID(int=2), "table": "k2.trades", "run_id": "r", "generation": 1,
        "predecessor": None, "source_identity": "s", "replica": "h:1", "target": Target("k2", "t", None, None, None),
        "projection": Projection(columns, "f"), "partition": (PartitionColumn("n", "identity", "n", "toInt64(`n`)"),),
        "sort": ("`n` ASC",), "cursor": "ts", "cursor_type": "DateTime", "width_us": 10, "append": (),
        "scan": Span(0, 0), "windows": (), "slices": (), "origin_us": None, "watermark_before": None,
        "watermark_after": None, "max_sequence": None, "spec_json": "{}", "created_us": 0,
    }  # fmt: skip
    return Plan(**(known | changes))


def test_the_query_of_a_slice_selects_by_position_and_filters_on_the_raw_cursor() -> None:
    sql = slice_sql(plan(), Slice(0, (7,), (Span(0, 10), Span(20, 30)), 5), "`k2`.`trades`", True)
    us = "toUnixTimestamp64Micro(toDateTime64(`ts`, 6, 'UTC'))"
    instant = "fromUnixTimestamp64Micro(toInt64({}), 'UTC')"
    low, high, low2, high2 = (instant.format(us) for us in (0, 10, 20, 30))
    assert sql == (
        "SELECT toDateTime64(`ts`, 6, 'UTC') AS __offload_0, toInt32(`n`) AS __offload_1,"
        " cityHash64(tuple(toDateTime64(`ts`, 6, 'UTC'), toInt32(`n`))) AS __offload_hash,"
        f" (intDiv({us}, 10) - toInt64(({us} % 10) < 0)) AS __offload_window FROM `k2`.`trades` FINAL"
        f" WHERE ((`ts` >= {low} AND `ts` < {high}) OR (`ts` >= {low2} AND `ts` < {high2}))"
        " AND (toInt64(`n`)) = 7 ORDER BY `n` ASC"
    )


def test_without_sort_order_and_final_there_is_none_in_the_query() -> None:
    sql = slice_sql(plan(sort=(), partition=()), Slice(0, (), (Span(0, 10),), 5), "`k2`.`trades`", False)
    assert "ORDER BY" not in sql
    assert "FINAL" not in sql
    assert sql.endswith(" AND true")


def test_no_password_shows_in_a_task() -> None:
    """Spark prints tasks when they fail."""
    task = SliceTask(
        0, "k2.trades", 1, "SELECT 1", "s3://b/p.parquet", (), "{}", "c", {}, {}, {},
        Endpoint("h", 1, False, "u", "hunter2"), {"s3.secret-access-key": "hunter3"},
    )  # fmt: skip
    assert "hunter" not in repr(task)
    assert "hunter" not in str(task)
