"""Parquet files as the table wants them: field ids, exact statistics, dictionaries where they pay, no half files."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyiceberg.conversions import from_bytes
from pyiceberg.io import load_file_io
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DecimalType,
    DoubleType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestamptzType,
    UUIDType,
)

from include.offload.lake import files
from include.offload.lake.files import ParquetSink, Written, dictionary_columns

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=True),
    NestedField(2, "name", StringType(), required=False),
    NestedField(3, "at", TimestamptzType(), required=True),
    NestedField(4, "price", DecimalType(18, 8), required=False),
    NestedField(5, "ok", BooleanType(), required=True),
    NestedField(6, "key", UUIDType(), required=True),
    NestedField(7, "tags", ListType(20, StringType(), element_required=True), required=True),
    NestedField(8, "extra", MapType(21, StringType(), 22, IntegerType(), value_required=True), required=True),
    NestedField(9, "pair", StructType(NestedField(23, "x", DoubleType(), required=False)), required=False),
)
IDS = {1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 22, 23}
LEAVES = IDS - {7, 8, 9}
ROW = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "name": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        "at": st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001
        "price": st.none() | st.decimals(-(10**9), 10**9, places=8),
        "ok": st.booleans(),
        "key": st.uuids(),
        "tags": st.lists(st.text("ab", max_size=3), max_size=3),
        "extra": st.dictionaries(st.text("ab", max_size=3), st.integers(-(2**31), 2**31 - 1), max_size=3),
        "pair": st.none() | st.fixed_dictionaries({"x": st.none() | st.floats(allow_nan=False)}),
    }
)


def arrow_types() -> pa.Schema:
    """The columns as ClickHouse sends them: plain strings, 16 bytes for a UUID."""
    narrow = {pa.large_string(): pa.string(), pa.uuid(): pa.binary(16)}
    fields = [f.with_type(narrow.get(f.type, f.type)).remove_metadata() for f in schema_to_pyarrow(SCHEMA)]
    return pa.schema([pa.field(f.name, f.type, nullable=True) for f in fields])


ARROW = arrow_types()


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    plain = [{**r, "key": r["key"].bytes, "extra": list(r["extra"].items())} for r in rows]
    return pa.RecordBatch.from_pylist(plain, schema=ARROW)


DAY_ONE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def some(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": i, "name": f"n{i % 3}" if i % 4 else None, "at": DAY_ONE + dt.timedelta(i),
            "price": Decimal(i) / 8, "ok": i % 2 == 0, "key": uuid.UUID(int=i), "tags": ["a", "b"][: i % 3],
            "extra": {"k": i}, "pair": {"x": i / 2},
        }
        for i in range(count)
    ]  # fmt: skip


def write(path: Path, batches: list[pa.RecordBatch], properties: Mapping[str, str] | None = None) -> Written | None:
    with ParquetSink(load_file_io({}, str(path)), str(path), SCHEMA, properties or {}) as sink:
        for one in batches:
            sink.write(one)
        return sink.close()


@hypothesis_settings(max_examples=25)
@given(pieces=st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=3).filter(any))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, pieces: list[Any]) -> None:
    path = tmp_path_factory.mktemp("files") / "f.parquet"
    written = write(path, [batch(rows) for rows in pieces])
    assert written is not None
    expected = [row for rows in pieces for row in rows]
    assert written.rows == len(expected)
    assert written.bytes == path.stat().st_size
    found = pq.read_table(path).to_pylist()
    assert [
        {**r, "key": uuid.UUID(bytes=r["key"]) if isinstance(r["key"], bytes) else r["key"], "extra": dict(r["extra"])}
        for r in found
    ] == expected


@hypothesis_settings(max_examples=25)
@given(rows=st.lists(ROW, min_size=1, max_size=12))
def test_statistics_are_exact(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    """Readers skip files by them: a bound that is wrong hides rows."""
    path = tmp_path_factory.mktemp("files") / "f.parquet"
    written = write(path, [batch(rows)])
    assert written is not None
    statistics = written.statistics
    assert statistics["record_count"] == len(rows)
    for field_id, name in ((1, "id"), (3, "at"), (4, "price")):
        values = [r[name] for r in rows if r[name] is not None]
        assert statistics["value_counts"][field_id] == len(rows)
        assert statistics["null_value_counts"][field_id] == len(rows) - len(values)
        if values:
            kind = SCHEMA.find_type(name)
            assert isinstance(kind, PrimitiveType)
            low, high = (from_bytes(kind, statistics[b][field_id]) for b in ("lower_bounds", "upper_bounds"))
            if name == "at":
                epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
                values = [(v - epoch) // dt.timedelta(microseconds=1) for v in values]
            assert (low, high) == (min(values), max(values))
    names = [r["name"] for r in rows if r["name"] is not None]
    if names:
        # strings are cut to 16 characters: downwards below, upwards above
        low, high = (statistics[b].get(2) for b in ("lower_bounds", "upper_bounds"))
        assert low is None or low <= min(n.encode() for n in names)
        assert high is None or high >= max(n.encode() for n in names)
        assert low is not None


def test_statistics_are_what_pyiceberg_reads_from_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    written = write(path, [batch(some(50)), batch(some(7))])
    again = data_file_statistics_from_parquet_metadata(
        parquet_metadata=pq.read_metadata(path),
        stats_columns=compute_statistics_plan(SCHEMA, {}),
        parquet_column_mapping=parquet_path_to_id_mapping(SCHEMA),
    )
    assert written is not None
    assert written.statistics == again.to_serialized_dict()
    assert set(written.statistics["column_sizes"]) == LEAVES


def test_every_field_carries_its_id_and_its_nullability(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    write(path, [batch(some(3))])
    found: dict[int, tuple[str, bool]] = {}

    def walk(field: pa.Field) -> None:
        found[int(field.metadata[b"PARQUET:field_id"])] = (field.name, field.nullable)
        kind = field.type
        if pa.types.is_map(kind):
            walk(kind.key_field)
            walk(kind.item_field)
        else:
            for i in range(kind.num_fields if pa.types.is_nested(kind) else 0):
                walk(kind.field(i))

    for field in pq.read_schema(path):
        walk(field)
    assert set(found) == IDS
    assert {i: n for i, (_, n) in found.items() if i < 10} == {f.field_id: f.optional for f in SCHEMA.fields}


def test_a_null_in_a_required_column_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        write(path, [batch([{**some(1)[0], "id": None}])])
    assert not path.exists()


def test_without_rows_there_is_no_file(tmp_path: Path) -> None:
    assert write(tmp_path / "none.parquet", []) is None
    assert write(tmp_path / "empty.parquet", [batch([])]) is None
    assert not list(tmp_path.iterdir())


def test_a_batch_without_rows_among_others_does_no_harm(tmp_path: Path) -> None:
    written = write(tmp_path / "f.parquet", [batch([]), batch(some(3)), batch([])])
    assert written is not None
    assert written.rows == 3


def test_an_abandoned_file_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_BYTES", 1)
    path = tmp_path / "f.parquet"
    with ParquetSink(load_file_io({}, str(path)), str(path), SCHEMA, {}) as sink:
        sink.write(batch(some(5)))
        assert path.exists()
        sink.abandon()
    assert not path.exists()


def test_a_failure_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_BYTES", 1)
    path = tmp_path / "f.parquet"
    with (
        pytest.raises(RuntimeError, match="the stream broke"),
        ParquetSink(load_file_io({}, str(path)), str(path), SCHEMA, {}) as sink,
    ):
        sink.write(batch(some(5)))
        assert path.exists()
        raise RuntimeError("the stream broke")
    assert not path.exists()


def test_a_batch_with_another_number_of_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 columns for a table of 9"):
        write(tmp_path / "f.parquet", [batch(some(1)).drop_columns(["pair"])])


def test_row_groups_are_written_as_they_fill_so_that_memory_stays_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.parquet"
    size = batch(some(100)).nbytes
    monkeypatch.setattr(files, "ROW_GROUP_BYTES", 2 * size)
    write(path, [batch(some(100)) for _ in range(6)])
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [200, 200, 200]


@pytest.mark.parametrize(("properties", "codec"), [({}, "ZSTD"), ({"write.parquet.compression-codec": "gzip"}, "GZIP")])
def test_the_codec_is_the_table_s(tmp_path: Path, properties: dict[str, str], codec: str) -> None:
    path = tmp_path / "f.parquet"
    write(path, [batch(some(10))], properties)
    assert pq.read_metadata(path).row_group(0).column(0).compression == codec


# ---- dictionaries ----------------------------------------------------------------------------------------------------


def dictionaries(path: Path) -> set[str]:
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    return {c.path_in_schema for c in columns if c.has_dictionary_page}


def test_dictionaries_go_where_values_repeat_also_inside_lists_maps_and_structs(tmp_path: Path) -> None:
    rows = [{**r, "extra": {"k": r["id"]}, "pair": {"x": float(r["id"] % 2)}} for r in some(200)]
    path = tmp_path / "f.parquet"
    write(path, [batch(rows)])
    assert dictionaries(path) == {"name", "tags.list.element", "extra.key_value.key", "pair.x"}


def test_a_dictionary_path_is_the_path_of_a_parquet_column(tmp_path: Path) -> None:
    """ParquetWriter ignores a path that it does not know: a wrong one would go unseen."""
    rows = pa.Table.from_batches([batch([some(3)[2]] * 50)])
    path = tmp_path / "f.parquet"
    write(path, [batch(some(3))])
    known = set(parquet_path_to_id_mapping(SCHEMA))
    assert set(dictionary_columns(rows)) <= known
    assert set(dictionary_columns(rows)) == known - {"ok"}


@pytest.mark.parametrize(("distinct", "expected"), [(19, ["c"]), (20, [])])
def test_a_dictionary_pays_below_a_fifth_of_distinct_values(distinct: int, expected: list[str]) -> None:
    assert dictionary_columns(pa.table({"c": [i % distinct for i in range(100)]})) == expected


def test_only_the_first_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SAMPLE_ROWS", 10)
    assert dictionary_columns(pa.table({"c": [1] * 10 + list(range(1000))})) == ["c"]


@pytest.mark.parametrize(
    "column", [pa.array([], pa.string()), pa.array([[]] * 3, pa.list_(pa.int32())), pa.array([True] * 9)]
)
def test_no_values_no_dictionary(column: pa.Array) -> None:
    assert dictionary_columns(pa.table({"c": column})) == []
