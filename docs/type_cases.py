"""Every ClickHouse type with its edge values: as what Iceberg type it arrives, or why it is refused and what to write.

The values stand here as SQL and as the Python value that every reader must give, written down, not computed.
docs/types.md is made from these cases, and tests/integration/test_types_lossless.py offloads all of them and reads them
with Spark, PyIceberg and ClickHouse. A struct is a dict here, a map a list of pairs.
"""

# ruff: noqa: E501 -- one line a case
from __future__ import annotations

import datetime as dt
import math
import struct
import uuid
from dataclasses import dataclass
from decimal import Decimal

Value = tuple[str, object]
"""SQL and the Python value; the SQL is cast to the case's type."""


@dataclass(frozen=True)
class Case:
    """A type that arrives losslessly as `iceberg`, `required` unless it may hold NULL or is nested."""

    name: str
    type: str
    iceberg: str
    values: tuple[Value, ...]
    note: str = ""


@dataclass(frozen=True)
class Refused:
    """A type or a value that is refused with OFL-205, and the override under which `values` arrive.

    `stops`: SQL of a value that is stopped when it is read, although its type is offloaded; None: the type is refused.
    """

    name: str
    type: str
    why: str
    override: str
    iceberg: str
    values: tuple[Value, ...]
    stops: str | None = None


def at(text: str) -> dt.datetime:
    """An instant, UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def f32(bits: int) -> float:
    """The 32-bit float of this bit pattern."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


D = Decimal
DAY = dt.date.fromisoformat
INF, NAN = math.inf, math.nan
NUL, MAX_CHAR = "\0", "\U0010ffff" * 20
"""Text whose upper bound can't be cut and counted up, as column statistics want it."""
ID = uuid.UUID


def _range(bits: int, signed: bool) -> tuple[Value, ...]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = (low, high, 0, 1, *((-1,) if signed else ()))
    return tuple((f"'{v}'", str(v) if bits > 64 else D(v) if bits == 64 and not signed else v) for v in values)


def _interval(unit: str) -> Case:
    return Case(
        f"interval_{unit.lower()}",
        f"Interval{unit}",
        "long",
        ((f"toInterval{unit}(-4)", -4), (f"toInterval{unit}(9223372036854775807)", 2**63 - 1)),
        "the count; the unit is in the type",
    )


LOSSLESS: tuple[Case, ...] = (
    Case("int8", "Int8", "int", _range(8, True)),
    Case("int16", "Int16", "int", _range(16, True)),
    Case("int32", "Int32", "int", _range(32, True)),
    Case("int64", "Int64", "long", _range(64, True)),
    Case("int128", "Int128", "string", _range(128, True), "`type: decimal(38, 0)` instead fails on more than 38 digits"),
    Case("int256", "Int256", "string", _range(256, True), "as Int128"),
    Case("uint8", "UInt8", "int", _range(8, False)),
    Case("uint16", "UInt16", "int", _range(16, False)),
    Case("uint32", "UInt32", "long", _range(32, False)),
    Case("uint64", "UInt64", "decimal(20, 0)", _range(64, False), "`type: long` instead fails on a value beyond 2^63-1"),
    Case("uint128", "UInt128", "string", _range(128, False), "as Int128"),
    Case("uint256", "UInt256", "string", _range(256, False), "as Int128"),
    Case("n_uint64", "Nullable(UInt64)", "decimal(20, 0)", (*_range(64, False), ("NULL", None))),
    Case("float32", "Float32", "float", (("'nan'", NAN), ("'inf'", INF), ("'-inf'", -INF), ("-0.", -0.0), ("3.4028235e38", f32(0x7F7FFFFF)), ("1e-45", f32(1)), ("0.1", f32(0x3DCCCCCD)))),
    Case("float64", "Float64", "double", (("'nan'", NAN), ("'inf'", INF), ("'-inf'", -INF), ("-0.", -0.0), ("1.7976931348623157e308", 1.7976931348623157e308), ("5e-324", 5e-324), ("0.1", 0.1))),
    Case("n_float64", "Nullable(Float64)", "double", (("NULL", None), ("'nan'", NAN), ("0.", 0.0))),
    Case("bfloat16", "BFloat16", "float", (("'nan'", NAN), ("'-inf'", -INF), ("-0.", -0.0), ("1.5", 1.5), ("3.3895314e38", f32(0x7F7F0000)))),
    Case("bool", "Bool", "boolean", (("true", True), ("false", False))),
    Case("n_bool", "Nullable(Bool)", "boolean", (("NULL", None), ("true", True), ("false", False))),
    Case("decimal32", "Decimal32(2)", "decimal(9, 2)", (("'-9999999.99'", D("-9999999.99")), ("'9999999.99'", D("9999999.99")), ("'0.01'", D("0.01")))),
    Case("decimal64", "Decimal64(8)", "decimal(18, 8)", (("'9999999999.99999999'", D("9999999999.99999999")), ("'-9999999999.99999999'", D("-9999999999.99999999")))),
    Case("decimal128", "Decimal128(0)", "decimal(38, 0)", (("'99999999999999999999999999999999999999'", D(10**38 - 1)), ("'-99999999999999999999999999999999999999'", D(1 - 10**38)), ("0", D(0)))),
    Case("decimal38", "Decimal(38, 38)", "decimal(38, 38)", (("'0.99999999999999999999999999999999999999'", D("0.99999999999999999999999999999999999999")), ("'-0.00000000000000000000000000000000000001'", D("-1e-38")))),
    Case("n_decimal", "Nullable(Decimal(20, 4))", "decimal(20, 4)", (("NULL", None), ("'-1.5'", D("-1.5")))),
    Case("string", "String", "string", (("''", ""), ("'héé€𝄞'", "héé€𝄞"), ("'a\\0b'", f"a{NUL}b"), ("'it''s \"q\" \\\\ \\n'", 'it\'s "q" \\ \n'), (f"'{MAX_CHAR}'", MAX_CHAR), ("'NULL'", "NULL")), "must be UTF-8"),
    Case("n_string", "Nullable(String)", "string", (("NULL", None), ("''", ""), ("'NULL'", "NULL"))),
    Case("fixed_string", "FixedString(4)", "fixed[4]", (("'ab'", b"ab\0\0"), ("''", b"\0\0\0\0"), ("unhex('ff00fe80')", b"\xff\x00\xfe\x80")), "all bytes; `type: string` for text padded with zero bytes"),
    Case("n_fixed_string", "Nullable(FixedString(2))", "fixed[2]", (("NULL", None), ("'ab'", b"ab"))),
    Case("enum8", "Enum8('' = -128, 'it''s' = 0, 'ü' = 127)", "string", (("''", ""), ("'it''s'", "it's"), ("'ü'", "ü")), "the name"),
    Case("enum16", "Enum16('low' = -32768, 'high' = 32767)", "string", (("'low'", "low"), ("'high'", "high")), "the name"),
    Case("enum", "Enum('a', 'b')", "string", (("'a'", "a"), ("'b'", "b")), "the name"),
    Case("uuid", "UUID", "uuid", (("'00000000-0000-0000-0000-000000000000'", ID(int=0)), ("'ffffffff-ffff-ffff-ffff-ffffffffffff'", ID(int=2**128 - 1)), ("'61f0c404-5cb3-11e7-907b-a6006ad3dba0'", ID("61f0c404-5cb3-11e7-907b-a6006ad3dba0")))),
    Case("n_uuid", "Nullable(UUID)", "uuid", (("NULL", None), ("'61f0c404-5cb3-11e7-907b-a6006ad3dba0'", ID("61f0c404-5cb3-11e7-907b-a6006ad3dba0")))),
    Case("ipv4", "IPv4", "string", (("'0.0.0.0'", ".".join("0000")), ("'255.255.255.255'", "255.255.255.255"))),
    Case("ipv6", "IPv6", "string", (("'::'", "::"), ("'::ffff:1.2.3.4'", "::ffff:1.2.3.4"), ("'2001:db8::1'", "2001:db8::1"))),
    Case("date", "Date", "date", (("'1970-01-01'", DAY("1970-01-01")), ("'2149-06-06'", DAY("2149-06-06")))),
    Case("date32", "Date32", "date", (("'1900-01-01'", DAY("1900-01-01")), ("'2299-12-31'", DAY("2299-12-31")), ("'1969-12-31'", DAY("1969-12-31")))),
    Case("n_date32", "Nullable(Date32)", "date", (("NULL", None), ("'1900-01-01'", DAY("1900-01-01")))),
    Case("datetime", "DateTime('UTC')", "timestamptz", (("'1970-01-01 00:00:00'", at("1970-01-01 00:00:00")), ("'2106-02-07 06:28:15'", at("2106-02-07 06:28:15"))), "`type: timestamp` instead for one without time zone"),
    Case("datetime_dst", "DateTime('America/New_York')", "timestamptz", (("toDateTime('2024-11-03 05:30:00', 'UTC')", at("2024-11-03 05:30:00")), ("toDateTime('2024-11-03 06:30:00', 'UTC')", at("2024-11-03 06:30:00")), ("toDateTime('2024-03-10 07:30:00', 'UTC')", at("2024-03-10 07:30:00"))), "both of the two hours with one name in autumn"),
    Case("datetime32", "DateTime32('Asia/Tokyo')", "timestamptz", (("'2024-01-01 00:00:00'", at("2023-12-31 15:00:00")),)),
    *(
        Case(f"datetime64_{p}", f"DateTime64({p}, 'UTC')", "timestamptz", (
            ("'1900-01-01 00:00:00'", at("1900-01-01 00:00:00")),
            ("'2299-12-31 23:59:59.999999'", at(f"2299-12-31 23:59:59.{'999999'[:p]:0<6}")),
            ("'1969-12-31 23:59:59.999999'", at(f"1969-12-31 23:59:59.{'999999'[:p]:0<6}")),
            ("'2024-01-01 00:00:00.123456'", at(f"2024-01-01 00:00:00.{'123456'[:p]:0<6}")),
        ))
        for p in range(7)
    ),
    Case("datetime64_dst", "DateTime64(3, 'America/New_York')", "timestamptz", (("toDateTime64('2024-11-03 05:30:00.123', 3, 'UTC')", at("2024-11-03 05:30:00.123")), ("toDateTime64('2024-11-03 06:30:00.123', 3, 'UTC')", at("2024-11-03 06:30:00.123")), ("toDateTime64('1950-07-01 12:00:00.001', 3, 'UTC')", at("1950-07-01 12:00:00.001")))),
    Case("datetime64_far", "DateTime64(3, 'UTC')", "timestamptz", (("fromUnixTimestamp64Milli(toInt64(99999999999999), 'UTC')", at("5138-11-16 09:46:39.999")),), "what its 64 bits hold, also after 2299"),
    Case("n_datetime64", "Nullable(DateTime64(3, 'UTC'))", "timestamptz", (("NULL", None), ("'1960-01-01 00:00:00.5'", at("1960-01-01 00:00:00.5")))),
    Case("time", "Time", "int", (("'-999:59:59'", -3599999), ("'999:59:59'", 3599999), ("'12:34:56'", 45296)), "seconds"),
    *(_interval(u) for u in ("Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour", "Day", "Week", "Month", "Quarter", "Year")),
    Case("low", "LowCardinality(String)", "string", (("''", ""), ("'ä'", "ä"))),
    Case("low_null", "LowCardinality(Nullable(String))", "string", (("NULL", None), ("''", ""), ("'ä'", "ä"))),
    Case("low_fixed", "LowCardinality(FixedString(2))", "fixed[2]", (("'a'", b"a\0"),)),
    Case("array", "Array(String)", "list<string>", (("[]", []), ("['', 'ä']", ["", "ä"]))),
    Case("array_null", "Array(Nullable(UInt64))", "list<decimal(20, 0)>", (("[]", []), ("[NULL, 18446744073709551615]", [None, D(2**64 - 1)]), ("[NULL]", [None]))),
    Case("array_nested", "Array(Array(Int8))", "list<list<int>>", (("[]", []), ("[[], [1, -128]]", [[], [1, -128]]), ("[[]]", [[]]))),
    Case("array_time", "Array(DateTime64(3, 'Asia/Tokyo'))", "list<timestamptz>", (("['1960-01-01 00:00:00.5']", [at("1959-12-31 15:00:00.5")]),)),
    Case("array_uuid", "Array(UUID)", "list<uuid>", (("['61f0c404-5cb3-11e7-907b-a6006ad3dba0']", [ID("61f0c404-5cb3-11e7-907b-a6006ad3dba0")]),)),
    Case("array_float", "Array(Float32)", "list<float>", (("['-0', 'nan', '-inf']", [-0.0, NAN, -INF]),)),
    Case("map", "Map(String, String)", "map<string, string>", (("map()", []), ("map('k', '', '', 'ä')", [("k", ""), ("", "ä")])), "a key that stands twice is refused"),
    Case("map_low", "Map(LowCardinality(String), Array(UInt8))", "map<string, list<int>>", (("map('k', [1, 255], 'l', [])", [("k", [1, 255]), ("l", [])]),)),
    Case("map_null", "Map(UInt16, Nullable(Date32))", "map<int, date>", (("map(7, NULL, 65535, '1900-01-01')", [(7, None), (65535, DAY("1900-01-01"))]),)),
    Case("map_map", "Map(Date, Map(String, Bool))", "map<date, map<string, boolean>>", (("map('2024-01-01', map('a', true))", [(DAY("2024-01-01"), [("a", True)])]),)),
    Case("tuple", "Tuple(a Int32, b Nullable(String))", "struct<a: int, b: string>", (("(-1, NULL)", {"a": -1, "b": None}), ("(1, '')", {"a": 1, "b": ""}))),
    Case("tuple_unnamed", "Tuple(UInt8, Decimal(38, 2))", "struct<_1: int, _2: decimal(38, 2)>", (("(255, '-0.01')", {"_1": 255, "_2": D("-0.01")}),), "elements without a name become `_1`, `_2`, …"),
    Case("tuple_odd", "Tuple(`a b` UInt8, `c``d` FixedString(1))", "struct<`a b`: int, `c``d`: fixed[1]>", (("(1, 'z')", {"a b": 1, "c`d": b"z"}),)),
    Case("nested", "Nested(a UInt8, b LowCardinality(String))", "list<struct<a: int, b: string>>", (("[(1, 'x'), (2, '')]", [{"a": 1, "b": "x"}, {"a": 2, "b": ""}]), ("[]", [])), "with `flatten_nested = 0`; else one list a field, named `n.a`"),
    Case("simple_aggregate", "SimpleAggregateFunction(max, DateTime64(3, 'UTC'))", "timestamptz", (("'2024-01-01 00:00:00.123'", at("2024-01-01 00:00:00.123")),)),
    Case("simple_aggregate_list", "SimpleAggregateFunction(groupArrayArray, Array(UInt8))", "list<int>", (("[1, 255]", [1, 255]), ("[]", []))),
    Case("point", "Point", "struct<x: double, y: double>", (("(1.5, -0.)", {"x": 1.5, "y": -0.0}),)),
    *(
        Case(name, type_, "list<struct<x: double, y: double>>", (("[(0, 0), (1.5, -2)]", [{"x": 0.0, "y": 0.0}, {"x": 1.5, "y": -2.0}]), ("[]", [])))
        for name, type_ in (("ring", "Ring"), ("line", "LineString"), ("points", "MultiPoint"))
    ),
    *(
        Case(name, type_, "list<list<struct<x: double, y: double>>>", (("[[(0, 0), (1.5, -2)], []]", [[{"x": 0.0, "y": 0.0}, {"x": 1.5, "y": -2.0}], []]),))
        for name, type_ in (("polygon", "Polygon"), ("lines", "MultiLineString"))
    ),
    Case("polygons", "MultiPolygon", "list<list<list<struct<x: double, y: double>>>>", (("[[[(0, 1)]], []]", [[[{"x": 0.0, "y": 1.0}]], []]),)),
    Case("qbit", "QBit(Float32, 3)", "list<float>", (("[1, -0., 3.4028235e38]::Array(Float32)", [1.0, -0.0, f32(0x7F7FFFFF)]),), "the vector"),
    Case("qbit16", "QBit(BFloat16, 2)", "list<float>", (("[1.5, -2]::Array(BFloat16)", [1.5, -2.0]),), "the vector"),
)  # fmt: skip

REFUSED: tuple[Refused, ...] = (
    Refused("datetime64_7", "DateTime64(7, 'UTC')", "Iceberg holds microseconds", "{expr: \"toUnixTimestamp64Nano(toDateTime64({q}, 9, 'UTC'))\", type: long}", "long", (("'1960-01-01 00:00:00.1234567'", -315619199876543300), ("'2262-04-11 23:47:16.8547758'", 9223372036854775800))),
    Refused("datetime64_8", "DateTime64(8, 'UTC')", "Iceberg holds microseconds", "{expr: \"toDateTime64({q}, 6, 'UTC')\", type: timestamptz}", "timestamptz", (("'2024-01-01 00:00:00.12345678'", at("2024-01-01 00:00:00.123456")),)),
    Refused("datetime64_9", "DateTime64(9, 'Europe/Berlin')", "Iceberg holds microseconds", "{expr: \"toUnixTimestamp64Nano(toDateTime64({q}, 9, 'UTC'))\", type: long}", "long", (("toDateTime64('2024-01-01 00:00:00.123456789', 9, 'UTC')", 1704067200123456789),)),
    Refused("time64_6", "Time64(6)", "Iceberg has no times below 0 or from 24 hours", "{expr: \"toInt64(CAST({q}, 'Decimal(38, 6)') * 1000000)\", type: long}", "long", (("'-999:59:59.999999'", -3599999999999), ("'00:00:00.000001'", 1))),
    Refused("time64_9", "Time64(9)", "Iceberg has no times below 0 or from 24 hours", "{expr: \"toInt64(CAST({q}, 'Decimal(38, 9)') * 1000000000)\", type: long}", "long", (("'-999:59:59.999999999'", -3599999999999999), ("'12:00:00.000000001'", 43200000000001))),
    Refused("decimal256", "Decimal256(40)", "Iceberg decimals have at most 38 digits", "{type: string}", "string", (("'-1.5'", "-1.5"), ("'0.0000000000000000000000000000000000000001'", "0.0000000000000000000000000000000000000001"))),
    Refused("decimal76", "Nullable(Decimal(76, 4))", "Iceberg decimals have at most 38 digits", '{type: "decimal(38, 4)"}', "decimal(38, 4)", (("'9999999999999999999999999999999999.9999'", D("9999999999999999999999999999999999.9999")), ("NULL", None))),
    Refused("json", "JSON", "no Iceberg type holds every value", "{type: string}", "string", (("'{\"a\": [1, null], \"b\": \"ä\"}'", '{"a":[1,null],"b":"ä"}'), ("'{}'", "{}"))),
    Refused("variant", "Variant(UInt8, String)", "no Iceberg type holds every value", "{type: string}", "string", (("NULL", None), ("7::UInt8", "7"), ("'x'", "x"))),
    Refused("dynamic", "Dynamic", "no Iceberg type holds every value", "{type: string}", "string", (("NULL", None), ("7", "7"), ("'x'", "x"))),
    Refused("geometry", "Geometry", "no Iceberg type holds every value", "{type: string}", "string", (("(1.5, -2)::Point", "(1.5,-2)"),)),
    Refused("aggregate", "AggregateFunction(sum, UInt64)", "a state means nothing outside ClickHouse", '{expr: "toString(finalizeAggregation({q}))", type: string}', "string", (("initializeAggregation('sumState', 18446744073709551615::UInt64)", "18446744073709551615"),)),
    Refused("aggregate_state", "AggregateFunction(max, UInt8)", "a state means nothing outside ClickHouse", "{expr: \"CAST({q}, 'String')\", type: binary}", "binary", (("initializeAggregation('maxState', 7::UInt8)", b"\x01\x07"),)),
    Refused("tuple_null", "Nullable(Tuple(a UInt8))", "a nested NULL would come back as an empty value", "{type: string}", "string", (("NULL", None), ("tuple(1)", "(1)"))),
    Refused("tuple_empty", "Tuple()", "Iceberg has no empty struct", "{type: string}", "string", (("tuple()", "()"),)),
    Refused("tuple_case", "Tuple(a UInt8, A UInt8)", "readers ignore case", "{type: string}", "string", (("(1, 2)", "(1,2)"),)),
    Refused("tuple_digits", "Tuple(`1` UInt8)", "ClickHouse reads such a field back as NULL", "{type: string}", "string", (("tuple(1)", "(1)"),)),
    Refused("array_nano", "Array(DateTime64(9, 'America/New_York'))", "as its element; the text has its times in UTC", "{type: string}", "string", (("[toDateTime64('2024-11-03 05:30:00.000000001', 9, 'UTC')]", "['2024-11-03 05:30:00.000000001']"), ("[toDateTime64('2024-11-03 06:30:00.000000001', 9, 'UTC')]", "['2024-11-03 06:30:00.000000001']"))),
    Refused("map_json", "Map(String, JSON)", "as its value", "{type: string}", "string", (("map('k', '{\"a\":1}')", "{'k':'{\"a\":1}'}"),)),
)  # fmt: skip

STOPPED: tuple[Refused, ...] = (
    Refused("no_utf8", "String", "text that is no UTF-8", "{type: binary}", "binary", (("unhex('61ff')", b"a\xff"), ("'ä'", "ä".encode())), "unhex('61ff')"),
    Refused("no_utf8_null", "LowCardinality(Nullable(String))", "text that is no UTF-8", "{type: binary}", "binary", (("unhex('c3')", b"\xc3"), ("NULL", None)), "unhex('c3')"),
    Refused("no_utf8_list", "Array(String)", "text that is no UTF-8", '{expr: "{q}", type: "list<binary>"}', "list<binary>", (("[unhex('ff'), '']", [b"\xff", b""]),), "[unhex('ff'), '']"),
    Refused("too_long", "Decimal(5, 2)", "a decimal with more digits than its type has", '{type: "decimal(38, 2)"}', "decimal(38, 2)", (("'99999.99'", D("99999.99")),), "'99999.99'"),
    Refused("too_long_list", "Array(Decimal(5, 2))", "a decimal with more digits than its type has", '{expr: "{q}", type: "list<decimal(38, 2)>"}', "list<decimal(38, 2)>", (("['-99999.99']", [D("-99999.99")]),), "['-99999.99']"),
    Refused("twice", "Map(String, UInt8)", "a map in which a key stands twice", '{expr: "arrayZip(mapKeys({q}), mapValues({q}))", type: "list<struct<key: string, value: int>>"}', "list<struct<key: string, value: int>>", (("CAST((['a', 'a'], [1, 2]), 'Map(String, UInt8)')", [{"key": "a", "value": 1}, {"key": "a", "value": 2}]), ("map()", [])), "CAST((['a', 'a'], [1, 2]), 'Map(String, UInt8)')"),
    Refused("twice_deep", "Array(Map(Float64, UInt8))", "a map in which a key stands twice", "{type: string}", "string", (("[CAST(([0., -0.], [1, 2]), 'Map(Float64, UInt8)')]", "[{0:1,-0:2}]"),), "[CAST(([0., -0.], [1, 2]), 'Map(Float64, UInt8)')]"),
)  # fmt: skip

WITHOUT_COLUMNS = {"Nothing": "the engine refuses it as the type of a column", "Nullable": "with each type above"}
"""Families that no column has by itself."""


def types_page(header: str) -> str:
    """docs/types.md."""
    lossless = [
        f"| `{_cell(c.type)}` | `{_cell(c.iceberg)}` | {_cell('; '.join([c.note, *_edges(c.values)]).strip('; '))} |"
        for c in LOSSLESS
    ]
    refused = [
        f"| `{_cell(c.type)}` | {c.why} | `{_cell(c.name + ': ' + c.override.replace('{q}', c.name))}` |"
        for c in (*REFUSED, *STOPPED)
    ]
    cut = len(REFUSED)
    return "\n".join(
        [
            "# Types\n", header + "\n",
            "A column arrives with every value as it was, or not at all. Each row of this page is offloaded by a test and"
            " read value by value with Spark, PyIceberg and ClickHouse; a ClickHouse type that is on no row fails the"
            " test.\n",
            "## What arrives\n",
            "Elements, map values and struct fields are optional in Iceberg; a column is required unless it is Nullable."
            " `Nullable(T)`, `LowCardinality(T)` and `SimpleAggregateFunction(f, T)` arrive as `T`, NULL as NULL. NaN,"
            " infinities and -0.0 stay what they are.\n",
            "| ClickHouse | Iceberg | tested with |", "| --- | --- | --- |", *lossless,
            "\n## What is refused\n",
            "`check_extent` stops with [OFL-205](errors.md#ofl-205), names every such column, and says what to write below"
            " `columns.overrides`. What an `expr` gives is your choice: cut at microseconds, its text, its result. A text in"
            " it that is no value of the Iceberg type still fails; what is one, ClickHouse says: it reads `2024-02-31` as"
            " the second of March.\n",
            "| ClickHouse | why | an override that works |", "| --- | --- | --- |", *refused[:cut],
            "\nTexts have their times in UTC. The text of a JSON, Variant or Dynamic is ClickHouse's own: it does not tell"
            " the number 7 from the text 7, and a time in it has the zone of its type or of the server.\n",
            "`Nothing` is the type of no column: ClickHouse refuses the table.\n",
            "## What is stopped when it is read\n",
            "ClickHouse lets these values into a column whose type says otherwise. The slice fails with"
            " [OFL-205](errors.md#ofl-205) before anything is committed, and the message has the line to write.\n",
            "| ClickHouse | a value that is stopped | an override that keeps it |", "| --- | --- | --- |", *refused[cut:],
        ]
    ) + "\n"  # fmt: skip


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _edges(values: tuple[Value, ...]) -> list[str]:
    """The SQL of the values as code; those too long to read are left out."""
    return [f"`{sql}`" for sql, _ in values if len(sql) <= 60 and sql.isprintable() and "`" not in sql]
