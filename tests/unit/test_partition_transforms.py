"""The SQL of each partition transform against PyIceberg's own implementation, value by value."""

from __future__ import annotations

import uuid
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from pyiceberg.transforms import parse_transform
from pyiceberg.types import IcebergType

from include.offload.model import PartitionColumn
from include.offload.source.icetypes import parse, to_iceberg
from include.offload.source.projection import record_value, transform_sql
from include.offload.spec.fields import split_transform
from tests.support.chdb_engine import Engine

WIDE = Context(prec=76)
DATES = (-25567, -366, -365, -1, 0, 1, 30, 31, 59, 365, 11016, 17486, 19782, 47482, 120529)
TIMES = (
    -2208988800000000, -86400000001, -86400000000, -3600000001, -1, 0, 1, 3599999999, 3600000000,
    951782400000000, 1709164799999999, 1709251200000000, 4102444799999999, 10413791999999999,
)  # fmt: skip
INTS = (-(2**31), -1000, -17, -16, -1, 0, 1, 9, 10, 34, 2**31 - 1)
LONGS = (*INTS, -(2**63), 2**63 - 1, 2**40 + 7)
TEXTS = ("", "a", "iceberg", "héé€𝄞", "𝄞𝄞𝄞𝄞", "e\u0301e\u0301", "ab\0cd", "it's \\ `quoted`", "x" * 100)
UUIDS = (
    "f79c3e09-677c-4bbd-a479-3f349cb785e7",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
)
BYTES = (b"", b"\x00", b"\x00\x01\x02\x03", b"\xff\xfe", b"abcd", b"\x80" * 33)


def quoted(text: str) -> str:
    return "unhex('" + text.encode().hex() + "')"


def values(kind: str) -> list[tuple[Any, str]]:
    """Pairs of PyIceberg's internal value and the ClickHouse literal of the same value."""
    if kind == "date":
        return [(d, f"CAST({d} AS Date32)" if d >= 0 else f"(toDate32('1970-01-01') - {-d})") for d in DATES]
    if kind in ("timestamp", "timestamptz"):
        return [(t, f"fromUnixTimestamp64Micro(toInt64({t}), 'UTC')") for t in TIMES]
    if kind == "int":
        return [(i, f"toInt32({i})") for i in INTS]
    if kind == "long":
        return [(i, f"toInt64('{i}')") for i in LONGS]
    if kind == "string":
        return [(t, quoted(t)) for t in TEXTS]
    if kind == "uuid":
        return [(uuid.UUID(u), f"toUUID('{u}')") for u in UUIDS]
    if kind == "binary":
        return [(b, f"unhex('{b.hex()}')") for b in BYTES]
    if kind == "fixed[4]":
        return [(b, f"toFixedString(unhex('{b.hex()}'), 4)") for b in (b"abcd", b"\0\0\0\0", b"\xff\x80\x7f\x01")]
    if kind == "boolean":
        return [(True, "true"), (False, "false")]
    precision, scale = (int(n) for n in kind[len("decimal(") : -1].split(","))
    digits = [*(-10665, -1065, -51, -50, -49, -1, 0, 1, 49, 50, 1420)]
    # One digit of room below: truncating the lowest value of all would leave the type.
    digits += [10**precision - 1, -(10 ** (precision - 1))]
    steps = [Decimal(n).scaleb(-scale, WIDE) for n in digits if abs(n) < 10**precision]
    return [(d, f"CAST('{d:f}' AS Decimal({precision}, {scale}))") for d in steps]


CASES = [
    *((t, k) for t in ("year", "month", "day") for k in ("date", "timestamp", "timestamptz")),
    *(("hour", k) for k in ("timestamp", "timestamptz")),
    *(
        (t, k)
        for t in ("bucket[1]", "bucket[16]", "bucket[1000003]", "bucket[2147483647]")
        for k in (
            "int", "long", "date", "timestamp", "timestamptz", "string", "uuid", "binary", "fixed[4]",
            "decimal(9, 2)", "decimal(18, 8)", "decimal(38, 8)", "decimal(20, 0)", "decimal(38, 38)",
        )
    ),
    *(
        (t, k)
        for t in ("truncate[1]", "truncate[3]", "truncate[10]", "truncate[50]")
        for k in (
            "int", "string", "decimal(9, 2)", "decimal(18, 8)", "decimal(18, 0)",
        )
    ),
    *((t, "long") for t in ("truncate[1]", "truncate[8]")),
    *(
        ("identity", k)
        for k in (
            "int", "long", "date", "timestamp", "timestamptz", "string", "binary", "fixed[4]", "boolean",
            "decimal(9, 2)", "decimal(38, 8)",
        )
    ),
]  # fmt: skip


def expected(transform: str, kind: IcebergType, value: Any) -> Any:
    # PyIceberg computes under the caller's context, whose 28 digits would round a wide decimal.
    with localcontext(WIDE):
        return parse_transform(transform).transform(kind)(value)


@pytest.mark.parametrize(("transform", "kind"), CASES)
def test_clickhouse_computes_what_pyiceberg_computes(engine: Engine, transform: str, kind: str) -> None:
    iceberg = to_iceberg(kind, iter(range(2, 9)))
    name, size = split_transform(transform)
    sql = transform_sql("x", parse(kind), name, size)
    column = PartitionColumn("x", transform, "p", sql)
    rows = " UNION ALL ".join(f"SELECT {i} AS i, {literal} AS x" for i, (_, literal) in enumerate(values(kind)))
    found = engine.query(f"SELECT i, {sql} FROM ({rows}) ORDER BY i")
    got = {values(kind)[i][0]: record_value(column, kind, v) for i, v in found}
    wanted = {v: expected(transform, iceberg, v) for v, _ in values(kind)}
    assert got == wanted
    assert len(got) == len(values(kind))


@pytest.mark.parametrize(("transform", "kind"), [*CASES, ("void", "string")])
def test_null_stays_null(engine: Engine, transform: str, kind: str) -> None:
    name, size = split_transform(transform)
    ice = parse(kind)
    sql = transform_sql(f"CAST(NULL AS {ice.clickhouse_element()})", ice, name, size)
    assert engine.query(f"SELECT {sql} IS NULL") == [(1,)]


def test_a_row_is_found_by_its_partition_value(engine: Engine) -> None:
    """What `extent` groups by and `shipping` filters by must be one SQL type on both sides."""
    from include.offload.source.sql import partition_sql

    for transform, kind in CASES:
        name, size = split_transform(transform)
        sql = transform_sql("x", parse(kind), name, size)
        _, literal = values(kind)[1]
        ((value,),) = engine.query(f"SELECT {sql} FROM (SELECT {literal} AS x)")
        value = bool(value) if kind == "boolean" else value
        where = partition_sql([PartitionColumn("x", transform, "p", sql)], [value])
        assert engine.query(f"SELECT count() FROM (SELECT {literal} AS x) WHERE {where}") == [(1,)], (transform, kind)
