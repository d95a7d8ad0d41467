"""Every mapped type through a real ClickHouse, Arrow, PyIceberg, Parquet and back through `icebergLocal`.

The content hash must be the same number on both sides, whatever the nullability: that is what `verify` rests on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from include.offload.model import ProjectedColumn, Projection
from include.offload.source.icetypes import text_of, to_iceberg
from include.offload.source.projection import reader_properties
from include.offload.source.typemap import Mapping, declared, map_override, map_type
from tests.support.chdb_engine import Engine, EngineError

CASES: dict[str, tuple[str, ...]] = {
    "Int8": ("-128", "127"),
    "UInt8": ("0", "255"),
    "Int16": ("-32768", "32767"),
    "UInt16": ("65535",),
    "Int32": ("-2147483648", "2147483647"),
    "UInt32": ("4294967295",),
    "Int64": ("-9223372036854775808", "9223372036854775807"),
    "UInt64": ("0", "18446744073709551615"),
    "Int128": ("'-170141183460469231731687303715884105728'", "'170141183460469231731687303715884105727'"),
    "UInt128": ("'340282366920938463463374607431768211455'",),
    "Int256": ("'-57896044618658097711785492504343953926634992332820282019728792003956564819968'",),
    "UInt256": ("'115792089237316195423570985008687907853269984665640564039457584007913129639935'",),
    "Float32": ("1.5", "-0.", "nan", "inf", "3.4028235e38"),
    "Float64": ("1.1", "-0.", "nan", "-inf", "5e-324"),
    "BFloat16": ("1.5", "-2"),
    "Decimal(9, 2)": ("'-9999999.99'", "'0.01'"),
    "Decimal(18, 8)": ("'9999999999.99999999'",),
    "Decimal(38, 0)": ("'99999999999999999999999999999999999999'",),
    "Decimal(38, 38)": ("'0.99999999999999999999999999999999999999'", "'-0.5'"),
    "Decimal64(8)": ("'1.5'",),
    "Bool": ("true", "false"),
    "String": ("''", "'héé€𝄞'", "'a\\0b'", "'it''s'"),
    "FixedString(4)": ("'ab'", "'abcd'"),
    "UUID": ("'61f0c404-5cb3-11e7-907b-a6006ad3dba0'", "'ffffffff-ffff-ffff-0000-000000000001'"),
    "Date": ("'1970-01-01'", "'2149-06-06'"),
    "Date32": ("'1900-01-01'", "'2299-12-31'"),
    "DateTime": ("'1970-01-01 00:00:00'", "'2106-02-07 06:28:15'"),
    "DateTime('Asia/Tokyo')": ("'2024-01-01 00:00:00'",),
    "DateTime64(0)": ("'1960-01-01 00:00:00'",),
    "DateTime64(3, 'America/New_York')": ("'2024-11-03 01:30:00.123'", "'1950-01-01 00:00:00.001'"),
    "DateTime64(6)": ("'2024-01-01 00:00:00.123456'",),
    "DateTime64(6, 'UTC')": ("'1900-01-01 00:00:00.000001'", "'2299-12-31 23:59:59.999999'"),
    "Enum8('BUY' = 1, 'SE''LL' = -2)": ("'BUY'", "'SE''LL'"),
    "Enum16('a' = 1000)": ("'a'",),
    "IPv4": ("'255.1.2.3'",),
    "IPv6": ("'::ffff:1.2.3.4'", "'2001:db8::1'"),
    "Time": ("'12:34:56'", "'-999:59:59'"),
    "IntervalDay": ("toIntervalDay(-4)",),
    "LowCardinality(String)": ("'a'", "''"),
    "LowCardinality(Nullable(String))": ("'a'", "NULL"),
    "Array(String)": ("['a', '']", "[]"),
    "Array(LowCardinality(String))": ("['a', 'a', 'b']",),
    "Array(Nullable(UInt64))": ("[1, NULL]", "[]"),
    "Array(Array(Int8))": ("[[1, 2], []]", "[]"),
    "Array(Enum8('x' = 1))": ("['x']",),
    "Array(DateTime)": ("['2024-01-01 00:00:00']",),
    "Array(FixedString(2))": ("['a']",),
    "Array(UUID)": ("['61f0c404-5cb3-11e7-907b-a6006ad3dba0']",),
    "Map(String, String)": ("map('k', 'v', 'l', '')", "map()", "CAST((['a', 'a'], ['1', '2']), 'Map(String, String)')"),
    "Map(LowCardinality(String), Array(UInt8))": ("map('k', [1, 2])",),
    "Map(UInt16, Nullable(DateTime))": ("map(7, NULL)", "map(8, '2024-01-01 00:00:00')"),
    "Map(Date, Map(String, Bool))": ("map('2024-01-01', map('a', true))",),
    "Tuple(a Int32, b String)": ("(1, 'x')",),
    "Tuple(UInt8, Nullable(String))": ("(1, NULL)", "(2, 'y')"),
    "Tuple(`a b` UInt8, `c``d` LowCardinality(String))": ("(1, 'z')",),
    "Array(Tuple(UInt8, LowCardinality(String)))": ("[(1, 'a'), (2, 'b')]",),
    "Array(Tuple(ts DateTime64(3), v Decimal(9, 2)))": ("[('2024-01-01 00:00:00.5', '1.5')]",),
    "Nested(a UInt8, b String)": ("[(1, 'a'), (2, 'b')]",),
    "SimpleAggregateFunction(max, DateTime64(3))": ("'2024-01-01 00:00:00.123'",),
    "SimpleAggregateFunction(sum, Decimal(38, 8))": ("'1.5'",),
    "Point": ("(1.5, -2)",),
    "Polygon": ("[[(0, 0), (1, 1)]]",),
}
NULLABLE = (
    "Int8", "UInt64", "Int128", "Float64", "Decimal(18, 8)", "Bool", "String", "FixedString(4)", "UUID", "Date",
    "Date32", "DateTime", "DateTime64(3, 'America/New_York')", "Enum16('a' = 1000)", "IPv4", "IPv6",
)  # fmt: skip
OVERRIDES: dict[tuple[str, str], tuple[str, ...]] = {
    ("String", "binary"): ("'abc'", "unhex('ff00fe')"),
    ("Nullable(String)", "binary"): ("'abc'", "NULL"),
    ("FixedString(4)", "binary"): ("'ab'",),
    ("FixedString(4)", "string"): ("'ab'",),
    ("UInt64", "long"): ("5",),
    ("Nullable(UInt64)", "long"): ("5", "NULL"),
    ("UInt64", "string"): ("18446744073709551615",),
    ("Int128", "decimal(38, 0)"): ("'-99999999999999999999999999999999999999'",),
    ("UInt8", "decimal(5, 2)"): ("7",),
    ("Decimal(76, 4)", "string"): ("'1.5'",),
    ("Decimal(76, 4)", "decimal(38, 4)"): ("'1234567890123456789012345678901234.5678'",),
    ("DateTime64(3)", "timestamp"): ("'2024-01-01 00:00:00.123'",),
    ("Nullable(DateTime)", "timestamp"): ("'2024-01-01 00:00:00'", "NULL"),
    ("Date", "timestamptz"): ("'2024-01-01'",),
    ("Float32", "double"): ("1.5",),
    ("UUID", "string"): ("'61f0c404-5cb3-11e7-907b-a6006ad3dba0'",),
    ("Bool", "int"): ("true",),
    ("JSON", "string"): ("'{\"a\": 1}'",),
    ("Variant(UInt8, String)", "string"): ("'x'::Variant(UInt8, String)", "NULL"),
    ("Dynamic", "string"): ("'x'",),
    ("Array(DateTime64(9))", "string"): ("['2024-01-01 00:00:00.123456789']",),
}
DECLARED: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("DateTime64(9)", "toUnixTimestamp64Nano(x)", "long"): ("'2024-01-01 00:00:00.123456789'",),
    ("DateTime64(7)", "toUnixTimestamp64Nano(toDateTime64(x, 9, 'UTC'))", "long"): ("'2024-01-01 00:00:00.1234567'",),
    ("DateTime64(9)", "toDateTime64(x, 6, 'UTC')", "timestamptz"): ("'2024-01-01 00:00:00.123456789'",),
    ("Time64(6)", "toInt64(CAST(x, 'Decimal(18, 6)') * 1000000)", "long"): ("'-12:34:56.123456'",),
    ("AggregateFunction(sum, UInt64)", "finalizeAggregation(x)", "decimal(20, 0)"): (
        "initializeAggregation('sumState', 7::UInt64)",
    ),
    ("String", "splitByChar(',', x)", "list<string>"): ("'a,b'",),
    ("String", "map(x, length(x))", "map<string, long>"): ("'ab'",),
    ("String", "(x, length(x))", "struct<a: string, b: int>"): ("'ab'",),
    ("DateTime", "x", "timestamp"): ("'2024-01-01 00:00:00'",),
}  # fmt: skip

_numbers = count()


@pytest.fixture(scope="module")
def catalog(engine: Engine) -> Iterator[SqlCatalog]:
    catalog = SqlCatalog("test", uri="sqlite:///:memory:", warehouse=f"file://{engine.home}/lake")
    catalog.create_namespace("n")
    yield catalog
    catalog.close()


def round_trip(
    engine: Engine, catalog: SqlCatalog, kind: str, values: tuple[str, ...], mapping: Mapping, x: str, required: bool
) -> None:
    """Write the values as the offload would, and compare the hash that ClickHouse computes on both sides."""
    number = next(_numbers)
    rows = " UNION ALL ".join(f"SELECT {v if 'Interval' in kind else f'CAST({v} AS {kind})'} AS x" for v in values)
    engine.raw(f"CREATE TABLE s{number} ENGINE = Memory AS {rows}")
    expr = mapping.expr(x)
    source = engine.text(f"SELECT count(), sum(cityHash64(tuple({expr}))) FROM s{number}")
    batch = engine.arrow(f"SELECT {expr} AS y FROM s{number}")
    schema = Schema(NestedField(1, "y", to_iceberg(mapping.iceberg_type, count(2)), required=required))
    assert text_of(schema.fields[0].field_type) == mapping.iceberg_type
    table = catalog.create_table(f"n.t{number}", schema)
    casted = batch.cast(schema_to_pyarrow(table.schema(), include_field_ids=False))
    casted.validate(full=True)
    table.append(casted)
    here = table.location().removeprefix(f"file://{engine.home}/")
    lake = engine.text(f"SELECT count(), sum(cityHash64(tuple(y))) FROM icebergLocal('{here}')")
    assert lake == source, f"{kind} as {mapping.iceberg_type}: {expr}"


@pytest.mark.parametrize("kind", CASES)
def test_a_column_comes_back_with_its_hash(engine: Engine, catalog: SqlCatalog, kind: str) -> None:
    mapping = map_type(kind)
    round_trip(engine, catalog, kind, CASES[kind], mapping, "x", mapping.required)


@pytest.mark.parametrize("kind", NULLABLE)
def test_null_comes_back_as_null(engine: Engine, catalog: SqlCatalog, kind: str) -> None:
    nullable = f"Nullable({kind})"
    mapping = map_type(nullable)
    assert not mapping.required
    round_trip(engine, catalog, nullable, (*CASES[kind], "NULL"), mapping, "x", required=False)


@pytest.mark.parametrize("kind", ("Int32", "UInt64", "UUID", "String", "DateTime", "Array(String)"))
def test_an_optional_field_does_not_change_the_hash(engine: Engine, catalog: SqlCatalog, kind: str) -> None:
    round_trip(engine, catalog, kind, CASES[kind], map_type(kind), "x", required=False)


@pytest.mark.parametrize(("kind", "wanted"), OVERRIDES)
def test_an_override_comes_back_with_its_hash(engine: Engine, catalog: SqlCatalog, kind: str, wanted: str) -> None:
    mapping = map_override(kind, wanted)
    assert mapping.iceberg_type == wanted
    round_trip(engine, catalog, kind, OVERRIDES[kind, wanted], mapping, "x", mapping.required)


@pytest.mark.parametrize(("kind", "expr", "wanted"), DECLARED)
def test_an_expression_comes_back_with_its_hash(
    engine: Engine, catalog: SqlCatalog, kind: str, expr: str, wanted: str
) -> None:
    mapping = declared(expr, wanted)
    round_trip(engine, catalog, kind, DECLARED[kind, expr, wanted], mapping, expr, mapping.required)


@pytest.mark.parametrize(
    ("kind", "wanted", "value"),
    (
        ("UInt64", "long", "18446744073709551615"),
        ("Int64", "int", "2147483648"),
        ("Int128", "decimal(38, 0)", "'170141183460469231731687303715884105727'"),
        ("Decimal(76, 0)", "decimal(38, 0)", "'100000000000000000000000000000000000000'"),
        ("UInt256", "decimal(38, 10)", "'99999999999999999999999999999999999999'"),
        ("Int256", "long", "'-9223372036854775809'"),
        ("Nullable(Int128)", "decimal(38, 0)", "'170141183460469231731687303715884105727'"),
        ("Nullable(Decimal(76, 0))", "decimal(38, 0)", "'100000000000000000000000000000000000000'"),
        ("LowCardinality(Nullable(UInt64))", "long", "18446744073709551615"),
    ),
)
def test_a_value_that_does_not_fit_fails_loudly(engine: Engine, kind: str, wanted: str, value: str) -> None:
    mapping = map_override(kind, wanted)
    with pytest.raises(EngineError):
        engine.text(f"SELECT {mapping.expr('x')} FROM (SELECT CAST({value} AS {kind}) AS x)")


@pytest.mark.parametrize(
    ("expr", "wanted"),
    (
        ("'abc'", "long"),
        ("'soon'", "date"),
        ("'abc'", "uuid"),
        ("'too long'", "fixed[3]"),
        ("toNullable('99999999999')", "decimal(9, 2)"),
        ("toLowCardinality('x')", "double"),
        ("['1', 'x']", "list<int>"),
        ("map('1', 'x')", "map<int, int>"),
        ("map('x', '1')", "map<int, int>"),
        ("('1', 'x')", "struct<a: int, b: int>"),
        ("[map('k', ('1', ['x']))]", "list<map<string, struct<a: int, b: list<date>>>>"),
    ),
)
def test_a_text_that_is_no_value_of_the_type_fails_and_is_not_null(engine: Engine, expr: str, wanted: str) -> None:
    with pytest.raises(EngineError):
        engine.text(f"SELECT {declared(expr, wanted).expr(expr)} FROM numbers(2)")


def test_null_stays_null_in_an_expression(engine: Engine) -> None:
    exprs = {
        "if(number = 0, '5', NULL)": ("long", "5"),
        "[if(number = 0, '5', NULL)]": ("list<int>", "[5]"),
        "map('7', if(number = 0, '5', NULL))": ("map<int, int>", "{7:5}"),
        "('7', if(number = 0, '5', NULL))": ("struct<a: int, b: long>", "(7,5)"),
    }
    for expr, (wanted, first) in exprs.items():
        rows = engine.text(f"SELECT {declared(expr, wanted).expr(expr)} FROM numbers(2)").splitlines()
        assert rows == [first, first.replace("5", "NULL" if first != "5" else "\\N")]


def test_texts_of_times_are_in_utc(engine: Engine) -> None:
    """In local time the two hours of one autumn night have one text."""
    for kind, x in (("DateTime('America/New_York')", "x"), ("Array(DateTime('America/New_York'))", "[x]")):
        sql = map_override(kind, "string").expr(f"CAST({x} AS {kind})")
        night = "SELECT toDateTime('2024-11-03 05:30:00', 'UTC') + 3600 * number AS x FROM numbers(2)"
        assert engine.text(f"SELECT uniqExact({sql}) FROM ({night})") == "2"
        assert "05:30:00" in engine.text(f"SELECT min({sql}) FROM ({night})")


def test_a_reader_finds_a_uuid_by_its_value(engine: Engine, catalog: SqlCatalog) -> None:
    """Two UUIDs whose order in ClickHouse is not that of their bytes; with bounds, ClickHouse finds neither."""
    ids = ("61f0c404-5cb3-11e7-907b-a6006ad3dba0", "ffffffff-5cb3-11e7-907b-a6006ad3dba0")
    projection = Projection((ProjectedColumn("y", "UUID", "`y`", "uuid", True),), "")
    found = {}
    for bounds, properties in ((True, {}), (False, reader_properties(projection))):
        number = next(_numbers)
        schema = Schema(NestedField(1, "y", to_iceberg("uuid", count(2)), required=True))
        table = catalog.create_table(f"n.t{number}", schema, properties=properties)
        batch = engine.arrow(" UNION ALL ".join(f"SELECT toUUID('{i}') AS y" for i in ids))
        table.append(batch.cast(schema_to_pyarrow(table.schema(), include_field_ids=False)))
        here = table.location().removeprefix(f"file://{engine.home}/")
        found[bounds] = [
            engine.text(f"SELECT count() FROM icebergLocal('{here}') WHERE y = toUUID('{i}')") for i in ids
        ]
    assert found[False] == ["1", "1"]
    assert found[True] != ["1", "1"], "ClickHouse reads UUID bounds right by now: reader_properties can go"


def test_the_hash_can_differ(engine: Engine) -> None:
    """The comparisons above can fail: a neighbouring value, NULL and the order of elements change the hash."""
    pairs = (
        ("toInt32(5)", "toInt32(6)"),
        ("NULL", "toNullable('')"),
        ("[1, 2]", "[2, 1]"),
        ("map('a', 1)", "map('a', 2)"),
        ("toDateTime64('2024-01-01 00:00:00.000001', 6, 'UTC')", "toDateTime64('2024-01-01 00:00:00', 6, 'UTC')"),
        ("toDecimal64('1.5', 8)", "toDecimal64('1.50000001', 8)"),
    )
    for one, other in pairs:
        assert engine.text(f"SELECT cityHash64(tuple({one})) = cityHash64(tuple({other}))") == "0", (one, other)


@pytest.mark.parametrize(
    ("value", "message"), (("unhex('61ff')", "UTF8"), ("CAST('99999.99' AS Decimal(5, 2))", "precision"))
)
def test_what_clickhouse_lets_through_is_seen_by_full_validation(engine: Engine, value: str, message: str) -> None:
    """Invalid UTF-8 and a decimal beyond its precision reach Arrow without an error; the writer must look."""
    batch = engine.arrow(f"SELECT {value} AS y")
    with pytest.raises(pa.ArrowInvalid, match=message):
        batch.validate(full=True)
