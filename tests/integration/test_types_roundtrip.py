"""Every type and every partition transform through the whole path: ClickHouse, Parquet, Iceberg, both verifiers.

The slices run in this process, not in Spark: what is under test is what happens to the values.
"""

# ruff: noqa: E501 -- one line a column
from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from pyiceberg.table import Table as IcebergTable

from include.offload.errors import OffloadError
from include.offload.lake import shipping
from include.offload.model import Outcome
from include.offload.steps import RunRequest, check_extent, ship, update_watermark
from tests.support.stack import Servers
from tests.support.tables import Table, finish

Make = Callable[[str], Table]
TS = "toDateTime64(toStartOfDay(now('UTC')) - 86400, 6, 'UTC') + toIntervalSecond(number * 30)"
VALUES = {
    "i8": ("Int8", "number - 50"),
    "u16": ("UInt16", "number * 600"),
    "i64": ("Int64", "toInt64(number) * -92233720368547758"),
    "u64": ("UInt64", "18446744073709551615 - number"),
    "i128": ("Int128", "toInt128('-170141183460469231731687303715884105728') + number"),
    "u256": ("UInt256", "toUInt256('115792089237316195423570985008687907853269984665640564039457584007913129639935') - number"),
    "f32": ("Float32", "number / 7"),
    "f64": ("Float64", "if(number % 9 = 0, nan, number / 7 * if(number % 2 = 0, -1, 1))"),
    "d9": ("Decimal(9, 2)", "toDecimal32(number, 2) / 3 - 20"),
    "d38": ("Decimal(38, 10)", "toDecimal128('1234567890123456789012345678.0123456789', 10) - number"),
    "flag": ("Bool", "number % 2 = 0"),
    "text": ("String", "repeat('ä€𝄞', number % 5) || toString(number % 7)"),
    "code": ("FixedString(3)", "['EUR', 'USD', 'X'][number % 3 + 1]"),
    "id": ("UUID", "reinterpret(sipHash128(number), 'UUID')"),
    "day": ("Date", "toDate('1970-01-01') + number * 600"),
    "day32": ("Date32", "toDate32('1900-01-01') + toInt32(number * 1000)"),
    "second": ("DateTime", "toDateTime(number * 40000000, 'UTC')"),
    "milli": ("DateTime64(3, 'Asia/Tokyo')", "toDateTime64('1960-01-01 00:00:00.123', 3, 'UTC') + toIntervalDay(number * 500)"),
    "side": ("Enum8('BUY' = 1, 'SELL' = -2)", "if(number % 2 = 0, 'BUY', 'SELL')"),
    "v4": ("IPv4", "toIPv4(toUInt32(number * 40000000))"),
    "v6": ("IPv6", "toIPv6('2001:db8::' || hex(number))"),
    "low": ("LowCardinality(Nullable(String))", "if(number % 4 = 0, NULL, toString(number % 4))"),
    "maybe": ("Nullable(Decimal(18, 8))", "if(number % 5 = 0, NULL, toDecimal64(number, 8) / 7)"),
    "list": ("Array(Nullable(UInt64))", "arrayMap(i -> if(i = 1, NULL, i), range(number % 4))"),
    "map": ("Map(LowCardinality(String), Array(Int16))", "map('k' || toString(number % 3), [number, 2], 'z', [])"),
    "pair": ("Tuple(UInt8, Nullable(String))", "(number, if(number % 2 = 0, NULL, 'x'))"),
    "rows": ("Array(Tuple(at DateTime, price Decimal(9, 2)))", "[(toDateTime(number, 'UTC'), 1.5), (toDateTime(0, 'UTC'), -1)]"),
    "raw": ("String", "unhex('ff00fe') || toString(number)"),
    "big": ("Decimal(76, 4)", "toDecimal256(number, 4) / 3"),
    "nano": ("DateTime64(9)", "toDateTime64('2024-01-01 00:00:00.123456789', 9, 'UTC') + toIntervalNanosecond(number)"),
    "json": ("JSON", "concat('{\"a\": ', toString(number), '}')"),
    "odd `name": ("UInt8", "number % 3"),
}  # fmt: skip
OVERRIDES = """
columns:
  overrides:
    raw: {type: binary}
    big: {type: "decimal(38, 4)"}
    json: {type: string}
    nano: {expr: "toUnixTimestamp64Nano(nano)", type: long}
"""
ROWS = 100


@pytest.fixture
def make(data_stack: Servers) -> Iterator[Make]:
    """Makes tables by name; when the test ends, both verifiers read every one that has a watermark."""
    made: list[Table] = []

    def build(name: str) -> Table:
        made.append(Table(data_stack, f"types_{name}_{uuid.uuid4().hex[:6]}"))
        return made[-1]

    yield build
    for table in made:
        finish(table)


def fill(table: Table, columns: dict[str, tuple[str, str]]) -> Table:
    """A table with a cursor `ts` and these columns, 100 rows, yesterday."""
    quoted = {name.replace("`", "``"): kind for name, (kind, _) in columns.items()}
    names = ", ".join(f"`{n}` {k}" for n, k in quoted.items())
    table.create(f"CREATE TABLE {{name}} (ts DateTime64(6, 'UTC'), {names}) ENGINE = MergeTree ORDER BY ts")
    values = ", ".join(f"CAST({v} AS {k})" for k, v in columns.values())
    table.command(f"INSERT INTO {{name}} SELECT {TS}, {values} FROM numbers({ROWS})")
    table.expected = ROWS
    return table


def write_spec(table: Table, partition: str, more: str = "") -> None:
    table.spec_file.parent.mkdir(exist_ok=True)
    table.spec_file.write_text(f"cursor: ts\nsettle: 1s\nhorizon: 3d\ntarget:\n  partition: [{partition}]\n{more}")


def offload(table: Table) -> Outcome:
    """The three steps, the slices one after the other in this process."""
    plan = check_extent(table.ctx, table.spec, RunRequest(f"test-{uuid.uuid4()}")).plan
    outcome = ship(table.ctx, plan.plan_id, lambda tasks: map(shipping.ship, tasks))
    update_watermark(table.ctx, table.spec, plan.plan_id)
    return outcome


def lake_table(table: Table) -> IcebergTable:
    return table.ctx.catalog.load_table((table.spec.target.namespace, table.spec.target.table))


def check_partitions(lake: IcebergTable) -> int:
    """Every file's partition record is what PyIceberg's transforms give for each of its rows. Returns the files."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    tasks = list(lake.scan().plan_files())
    for task in tasks:
        rows = ArrowScan(lake.metadata, lake.io, lake.schema(), AlwaysTrue()).to_table([task])
        for i, field in enumerate(lake.spec().fields):
            source = lake.schema().find_field(field.source_id)
            transform = field.transform.transform(source.field_type)
            wanted = {transform(_internal(v)) for v in rows[source.name].to_pylist()}
            assert wanted == {task.file.partition[i]}, f"{field.name} of {task.file.file_path}"
    return len(tasks)


def _internal(value: object) -> object:
    """Iceberg's internal value of what pyarrow gives: days and microseconds since the epoch."""
    import datetime as dt

    from include.offload.windows import to_us

    if isinstance(value, dt.datetime):
        return to_us(value)
    return (value - dt.date(1970, 1, 1)).days if isinstance(value, dt.date) else value


def test_every_type_arrives_and_both_verifiers_agree(make: Make) -> None:
    table = fill(make("all"), VALUES)
    write_spec(table, '"day(ts)"', OVERRIDES)
    assert offload(table).rows == ROWS
    table.whole()
    assert check_partitions(lake_table(table)) >= 1
    assert offload(table).status == "nothing", "what was offloaded once is unchanged, whatever its type"


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("times", '"hour(milli)", "year(day32)", "month(second)"'),
        ("texts", "side, low, code, \"truncate(2, text)\""),
        ("numbers", 'd38, "truncate(100, i64)", "truncate(1000, d9)"'),
        ("buckets", '"bucket(3, id)", "bucket(3, u64)", "bucket(3, text)", "bucket(2, raw)", "bucket(2, milli)"'),
        ("values", "flag, day, \"`odd ``name`\""),
        ("nulls", 'maybe, "bucket(2, low)"'),
    ],
)  # fmt: skip
def test_every_transform_files_rows_where_iceberg_looks_for_them(make: Make, name: str, partition: str) -> None:
    table = fill(make(name), VALUES)
    write_spec(table, partition, OVERRIDES + "slice: {concurrency: 1}\n")
    assert offload(table).rows == ROWS
    table.whole()
    assert check_partitions(lake_table(table)) > 1


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [("utf8", "String", "unhex('61ff')"), ("digits", "Decimal(5, 2)", "CAST('99999.99' AS Decimal(5, 2))")],
)
def test_a_value_that_iceberg_can_not_hold_stops_the_offload(make: Make, name: str, kind: str, value: str) -> None:
    """ClickHouse lets both through; written as they are, other readers would fail or see another number."""
    table = fill(make(name), {"x": (kind, value)})
    write_spec(table, "")
    with pytest.raises(OffloadError) as caught:
        offload(table)
    assert caught.value.id == "OFL-205"
    assert "x" in caught.value.cause
    lake = table.ctx.catalog
    target = (table.spec.target.namespace, table.spec.target.table)
    assert not lake.table_exists(target) or lake.load_table(target).current_snapshot() is None
