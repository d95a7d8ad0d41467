"""The SQL that extent, shipping and verification share, asked of a real ClickHouse engine."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.offload.model import PartitionColumn, PartitionValue
from include.offload.source.sql import cursor_us_sql, instant_sql, literal, partition_sql, quote, spans_sql, window_sql
from include.offload.windows import Grid, Span
from tests.support.chdb_engine import Engine

# a NUL ends the query text where it is passed on as a C string
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
DAY = 86_400_000_000
WIDTHS = (300_000_000, DAY, 7 * DAY)


@settings(max_examples=60)
@given(name=TEXT.filter(bool))
@example("`; DROP TABLE x; --")
@example("\\")
@example("\\`")
@example("a\nb\tc{d:String}%s?")
def test_any_identifier_survives(engine: Engine, name: str) -> None:
    answer = json.loads(engine.raw(f"SELECT {quote(name)} FROM (SELECT 1 AS {quote(name)})", "JSONCompact"))
    assert [column["name"] for column in answer["meta"]] == [name]


@settings(max_examples=60)
@given(value=TEXT | st.booleans() | st.none() | st.integers(-(2**63), 2**64 - 1))
@example("'; DROP TABLE x; --")
@example("\\'")
@example("\\")
@example("{a:String} %s ? \n\r\t\b")
def test_any_literal_survives(engine: Engine, value: PartitionValue) -> None:
    answer = json.loads(engine.raw(f"SELECT {literal(value)}", "JSONCompact"))
    ((found,),) = answer["data"]
    assert (str(found) if isinstance(value, int) and not isinstance(value, bool) else found) == (
        str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    )


ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")
FIRST, LAST = -(10**15), 18 * 10**14
"""1938 to 2027, in µs."""
CURSORS = {
    # type: an instant (µs) as a value of it, the smallest instant it can hold, its step in µs
    "Date": ("toDate({us} / 86400000000)", 0, DAY),
    "Date32": ("toDate32(toInt32({us} / 86400000000))", FIRST, DAY),
    "DateTime": ("toDateTime({us} / 1000000)", 0, 1_000_000),
    "DateTime('UTC')": ("toDateTime({us} / 1000000, 'UTC')", 0, 1_000_000),
    "DateTime('Asia/Tokyo')": ("toDateTime({us} / 1000000, 'Asia/Tokyo')", 0, 1_000_000),
    "DateTime64(3)": ("fromUnixTimestamp64Milli(toInt64({us} / 1000))", FIRST, 1_000),
    "DateTime64(6, 'UTC')": ("fromUnixTimestamp64Micro(toInt64({us}), 'UTC')", FIRST, 1),
    "DateTime64(9, 'Europe/Paris')": ("fromUnixTimestamp64Nano({us} * 1000, 'Europe/Paris')", FIRST, 1),
}


# a window of a Date is whole days
KINDS = [(kind, width) for kind, (_, _, step) in CURSORS.items() for width in WIDTHS if width % step == 0]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("kind", "width"), KINDS)
def test_the_window_of_a_row_and_the_condition_of_a_window_agree_in_every_type_and_zone(
    engine: Engine, kind: str, zone: str, width: int
) -> None:
    """What the extent groups by and what a slice selects must be the same rows, or rows are lost or doubled."""
    expr, low, step = CURSORS[kind]
    grid = Grid(width)
    dice = random.Random(f"{kind} {zone} {width}")
    drawn = [dice.randint(low, LAST) for _ in range(40)]
    drawn += [us for base in drawn[:20] for us in (grid.floor(base), grid.floor(base) - step, grid.ceil(base))]
    instants = [us - us % step for us in drawn if us >= low]
    chosen = [grid.span(grid.number(us)) for us in instants[:3]]
    values = ", ".join(expr.format(us=us) for us in instants)
    sql = (
        f"SELECT {cursor_us_sql('c')}, {window_sql('c', width)}, toUInt8({spans_sql('c', chosen)})"
        f" FROM (SELECT CAST(arrayJoin([{values}]) AS {kind}) AS c) SETTINGS session_timezone = '{zone}'"
    )
    rows = [tuple(int(v) for v in line.split("\t")) for line in engine.text(sql).splitlines()]
    assert [us for us, _, _ in rows] == instants
    assert [window for _, window, _ in rows] == [grid.number(us) for us in instants]
    assert [bool(inside) for _, _, inside in rows] == [any(s.contains(us) for s in chosen) for us in instants]


@settings(max_examples=30)
@given(us=st.integers(-(2**50), 2**50))
def test_an_instant_is_exact_to_the_microsecond(engine: Engine, us: int) -> None:
    assert engine.text(f"SELECT toUnixTimestamp64Micro({instant_sql(us)})") == str(us)


@pytest.mark.parametrize("spans", [[Span(0, 10)], [Span(-20, -10), Span(0, 10), Span(15, 16)], []])
def test_several_spans_are_alternatives_and_none_is_false(engine: Engine, spans: list[Span]) -> None:
    values = "SELECT arrayJoin(range(-25, 25)) AS n, fromUnixTimestamp64Micro(n, 'UTC') AS c"
    sql = f"SELECT n FROM ({values}) WHERE {spans_sql('c', spans)}"
    found = [int(line) for line in engine.text(sql).splitlines()]
    assert found == [n for n in range(-25, 25) if any(s.contains(n) for s in spans)]


VALUES = st.lists(
    st.tuples(st.none() | TEXT, st.none() | st.integers(-5, 5), st.booleans()), min_size=1, max_size=6, unique=True
)


@settings(max_examples=25)
@given(values=VALUES)
def test_every_row_lies_in_the_partition_of_its_own_values_only(
    engine: Engine, values: list[tuple[PartitionValue, ...]]
) -> None:
    columns = [PartitionColumn(n, "identity", n, quote(n)) for n in ("text", "number", "flag")]
    rows = " UNION ALL ".join(
        f"SELECT {i} AS i, CAST({literal(t)} AS Nullable(String)) AS text, CAST({literal(n)} AS Nullable(Int64))"
        f" AS number, CAST({literal(f)} AS Bool) AS flag"
        for i, (t, n, f) in enumerate(values)
    )
    for i, value in enumerate(values):
        found = engine.text(f"SELECT i FROM ({rows}) WHERE {partition_sql(columns, value)} ORDER BY i")
        assert found == str(i)


def test_an_unpartitioned_table_has_no_condition() -> None:
    assert partition_sql([], []) == "true"


def test_a_partition_needs_a_value_for_each_field() -> None:
    with pytest.raises(ValueError, match="zip"):
        partition_sql([PartitionColumn("a", "identity", "a", "a")], [])
