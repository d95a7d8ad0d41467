"""The second reader sees every kind of value, wherever it lies: each is spoiled in the lake, once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from include.offload.verify import verify
from tests.support.domain import Domain, DomainTable

COLUMNS = """
    ts DateTime64(6, 'UTC'), id Int64, big UInt64, price Decimal(38, 10), size Float64, yes Bool, day Date32,
    at DateTime64(3, 'UTC'), name LowCardinality(String), note Nullable(String), code FixedString(3), key UUID,
    tags Array(Nullable(String)), keys Array(UUID), grid Array(Array(Int32)), attrs Map(String, Decimal(18, 4)),
    pair Tuple(left Int32, right Nullable(String)), pairs Array(Tuple(when DateTime64(6, 'UTC'), what Float32))
"""
DDL = "CREATE TABLE {table} (" + COLUMNS + ") ENGINE = MergeTree ORDER BY ts"
ROWS = 50
Change = Callable[[Any], Any]
SPOILED: dict[str, tuple[str, Change]] = {
    "big": ("big", lambda v: v + 1),
    "price": ("price", lambda v: v + Decimal("0.0000000001")),
    "size": ("size", lambda v: v + 0.5),
    "yes": ("yes", lambda v: not v),
    "day": ("day", lambda v: v + timedelta(days=1) if isinstance(v, date) else v),
    "at": ("at", lambda v: v + timedelta(milliseconds=1)),
    "name": ("name", lambda v: v[::-1] + "x"),
    "note": ("note", lambda v: "" if v is None else None),
    "code": ("code", lambda v: v[::-1]),
    "key": ("key", lambda v: v[:-1] + bytes([v[-1] ^ 1])),
    "tags.size": ("tags", lambda v: None),
    "tags[]": ("tags", lambda v: ["another", *v[1:]]),
    "keys[]": ("keys", lambda v: [uuid.UUID(int=5).bytes, *v[1:]]),
    "grid[].size": ("grid", lambda v: [[], *v[1:]]),
    "grid[][]": ("grid", lambda v: [[v[0][0] + 1, *v[0][1:]], *v[1:]]),
    "attrs.key": ("attrs", lambda v: [("another", v[0][1]), *v[1:]]),
    "attrs.value": ("attrs", lambda v: [(v[0][0], v[0][1] + 1), *v[1:]]),
    "pair.left": ("pair", lambda v: v | {"left": v["left"] + 1}),
    "pair.right": ("pair", lambda v: v | {"right": None}),
    "pairs[].when": ("pairs", lambda v: [v[0] | {"when": v[0]["when"] + timedelta(microseconds=1)}, *v[1:]]),
    "pairs[].what": ("pairs", lambda v: [v[0] | {"what": v[0]["what"] + 0.25}, *v[1:]]),
}
"""By the leaf that must be seen to differ: the column, and what becomes of the value in one row."""


Shipped = tuple[DomainTable, pa.Table]


@pytest.fixture(scope="module")
def shipped(domain: Domain) -> Iterator[Shipped]:
    """A table of every kind of leaf, and the lake's rows as they should be."""
    t = DomainTable(domain, f"leaves_{uuid.uuid4().hex[:8]}_{domain.session}", domain.context())
    t.create(DDL).write_spec()
    t.sql(
        "INSERT INTO {table} SELECT"
        f" fromUnixTimestamp64Micro(toInt64({t.at(0)} + number * 1000000), 'UTC'), number,"
        " 18446744073709551615 - number,"
        " toDecimal128(number, 10) / 7, number / 3, number % 2, toDate32('1969-12-20') + number,"
        f" fromUnixTimestamp64Milli(toInt64(number * 1001), 'UTC'), concat('n', toString(number % 4)),"
        " if(number % 3 = 0, NULL, toString(number)), leftPad(toString(number), 3, '0'), generateUUIDv4(),"
        " [toString(number), NULL, 'x'], [generateUUIDv4(), generateUUIDv4()], [[number, 2], [], [3]],"
        " map('a', toDecimal64(number, 4), 'b', toDecimal64(1, 4)), (number, toString(number)),"
        f" [(fromUnixTimestamp64Micro(toInt64(number), 'UTC'), number / 4)] FROM numbers({ROWS})"
    )
    assert t.run().rows == ROWS
    yield t, t.lake().scan().to_arrow()
    t.spec_file.unlink()
    t.ctx.close()
    t.sql("DROP TABLE {table} SYNC")


def spoiled(rows: pa.Table, column: str, change: Change) -> pa.Table:
    """The rows with the value of one of them changed."""
    at = rows.schema.get_field_index(column)
    kind = stored(rows.schema.field(at).type)
    values = [plain(v) for v in rows.column(at).to_pylist()]
    values[1] = change(values[1])
    return rows.set_column(at, rows.schema.field(at).with_type(kind), pa.array(values, kind))


def stored(kind: pa.DataType) -> pa.DataType:
    """The type without Arrow's own for UUIDs, which takes no Python values."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    return pa.list_(stored(kind.value_type)) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value.bytes if isinstance(value, uuid.UUID) else value


def test_what_was_shipped_is_equal_in_every_leaf(shipped: Shipped) -> None:
    t, _ = shipped
    report = verify(t.ctx, t.spec)
    assert report.ok, report.findings()
    assert {s.column for s in report.sums} >= set(SPOILED)


@pytest.mark.parametrize("leaf", SPOILED)
def test_a_value_that_was_changed_in_the_lake_is_seen(shipped: Shipped, leaf: str) -> None:
    t, rows = shipped
    column, change = SPOILED[leaf]
    t.lake().overwrite(spoiled(rows, column, change))
    try:
        report = verify(t.ctx, t.spec)
        assert leaf in [s.column for s in report.sums if not s.equal]
        assert {s.column.split("[")[0].split(".")[0] for s in report.sums if not s.equal} == {column}
        assert not report.ok
    finally:
        t.lake().overwrite(rows)
