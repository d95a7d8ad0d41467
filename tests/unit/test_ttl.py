"""When rows expire: the DDL as a real ClickHouse prints it, and its own evaluation of what is made of it."""

# ruff: noqa: E501 -- DDL stands in one line each
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from include.offload.errors import OffloadError
from include.offload.model import SourceTable
from include.offload.source.describe import describe
from include.offload.source.extent import ExtentQuery
from include.offload.source.projection import project
from include.offload.source.ttl import Element, elements, expiry_sql, read_ddl
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, Span
from tests.support.chdb_engine import Engine


@pytest.fixture(scope="module")
def db(engine: Engine) -> Iterator[Engine]:
    engine.raw("CREATE DATABASE ttl")
    yield engine
    engine.raw("DROP DATABASE ttl")


def spec(**keys: Any) -> TableSpec:
    return TableSpec.model_validate({"identity": "ttl.t", "cursor": "ts"} | keys)


def make(db: Engine, ttl: str, columns: str = "", order: str = "x", settings: str = "") -> SourceTable:
    db.raw("DROP TABLE IF EXISTS ttl.t")
    db.raw(
        f"CREATE TABLE ttl.t (ts DateTime64(3, 'UTC'), d Date, x UInt32, keep Bool{columns}) ENGINE = MergeTree"
        f" ORDER BY ({order}) {ttl} {settings}"
    )
    return describe(db, "ttl", "t")


def expiry(db: Engine, source: SourceTable, row: str, wish: TableSpec | None = None) -> str | None:
    """The expiry of one row, as text in UTC."""
    found = expiry_sql(source, wish or spec())
    assert found.readable, found.why
    assert found.sql is not None
    sql = f"SELECT toString({found.sql}), toTypeName({found.sql}) FROM (SELECT * FROM ttl.t)"
    db.raw("TRUNCATE TABLE ttl.t")
    # a TTL in the past would delete the row on insert
    db.raw("SYSTEM STOP TTL MERGES ttl.t")
    db.raw(f"INSERT INTO ttl.t (ts, d, x, keep) SETTINGS optimize_on_insert = 0 VALUES {row}")
    ((when, kind),) = db.query(sql)
    assert kind == "Nullable(DateTime64(6, 'UTC'))"
    return str(when) if when is not None else None


ROW = "('2030-01-01 12:00:00.123', '2030-01-05', 7, true)"


@pytest.mark.parametrize(
    ("ttl", "when"),
    [
        ("TTL toDateTime(ts) + INTERVAL 7 DAY", "2030-01-08 12:00:00.000000"),
        ("TTL ts + INTERVAL 7 DAY", "2030-01-08 12:00:00.123000"),
        ("TTL d + INTERVAL 1 MONTH DELETE", "2030-02-05 00:00:00.000000"),
        ("TTL toDateTime(ts) + toIntervalDay(30), d + toIntervalDay(1) DELETE WHERE x = 7", "2030-01-06 00:00:00.000000"),
        ("TTL toDateTime(ts) + INTERVAL 1 DAY DELETE WHERE x > 5", "2030-01-02 12:00:00.000000"),
        ("TTL toDateTime(ts) + INTERVAL 1 DAY DELETE WHERE x > 9", None),
        ("TTL toDateTime(ts) + INTERVAL 1 DAY DELETE WHERE x > 9 AND x IN (1, 2), d + INTERVAL 1 YEAR", "2031-01-05 00:00:00.000000"),
        ("TTL toDateTime(ts) + INTERVAL 1 DAY TO VOLUME 'default', d + INTERVAL 9 DAY", "2030-01-14 00:00:00.000000"),
        ("TTL toDateTime(ts) + INTERVAL 1 DAY RECOMPRESS CODEC(ZSTD(17)), d + INTERVAL 9 DAY", "2030-01-14 00:00:00.000000"),
        ("TTL if(keep, toDateTime(0), toDateTime(ts)) + INTERVAL 0 DAY", None),
        ("TTL toStartOfDay(toDateTime(ts)) + toIntervalHour(multiIf(x = 7, 1, 24))", "2030-01-01 01:00:00.000000"),
    ],
)  # fmt: skip
def test_the_first_expiry_of_a_row(db: Engine, ttl: str, when: str | None) -> None:
    assert expiry(db, make(db, ttl), ROW) == when


@pytest.mark.parametrize(
    ("ttl", "hours"),
    [
        ("TTL ts + INTERVAL 7 DAY", [168, 168]),
        # the row that lives shortest speaks for its window; one that never expires does not
        ("TTL ts + INTERVAL 1 DAY DELETE WHERE x = 1, ts + INTERVAL 9 DAY", [24, 216]),
        ("TTL ts + INTERVAL 1 DAY DELETE WHERE x = 1", [24, None]),
        ("", [None, None]),
    ],
)
def test_how_long_the_rows_of_a_window_live(db: Engine, ttl: str, hours: list[int | None]) -> None:
    """From each row's own cursor, wherever in its window it lies."""
    source = make(db, ttl)
    grid = Grid(3_600_000_000)
    query = ExtentQuery(
        "ttl", "t", "ts", None, False, grid, project(spec(), source), (), None, expiry_sql(source, spec()).sql
    )
    rows = [("00:10:00", 1), ("00:40:00", 2), ("00:55:00.500", 1), ("01:30:00", 2), ("01:59:59", 3)]
    values = ", ".join(f"('2030-01-01 {at}', '2030-01-05', {x}, true)" for at, x in rows)
    db.raw(f"INSERT INTO ttl.t (ts, d, x, keep) SETTINGS optimize_on_insert = 0 VALUES {values}")
    lives = [cell[4] for cell in db.query(query.cells_sql([Span(0, 2**61)]))]
    assert [None if us is None else us / 3_600_000_000 for us in lives] == hours


def test_columns_that_are_offloaded_count_too(db: Engine) -> None:
    source = make(db, "TTL d + INTERVAL 1 YEAR", ", `e;f)` String DEFAULT ')' TTL toDateTime(ts) + INTERVAL 3 DAY")
    assert {c.name: c.ttl for c in source.columns if c.ttl} == {"e;f)": "toDateTime(ts) + toIntervalDay(3)"}
    assert expiry(db, source, ROW) == "2030-01-04 12:00:00.000000"
    assert expiry(db, source, ROW, spec(columns={"exclude": ["e;f)"]})) == "2031-01-05 00:00:00.000000"


def test_rule_18_a_condition_of_a_ttl_counts_as_true(db: Engine) -> None:
    """An update may make it true after the row was shipped, and a merge before anybody looks again."""
    source = make(db, "TTL toDateTime(ts) + INTERVAL 1 DAY DELETE WHERE x > 9, d + INTERVAL 1 YEAR")
    assert expiry(db, source, ROW) == "2031-01-05 00:00:00.000000"
    assert db.query(f"SELECT toString({expiry_sql(source, spec()).strict}) FROM ttl.t") == [
        ("2030-01-02 12:00:00.000000",)
    ]


SECRET = ", `a``b` String TTL toDateTime(ts) + INTERVAL 3 DAY"
NOT_SECRET = {"exclude": ["a`b"]}


@pytest.mark.parametrize(
    ("columns", "wish", "reached"),
    [
        ("", spec(columns=NOT_SECRET), False),
        ("", spec(columns=NOT_SECRET | {"overrides": {"x": {"expr": "length(`a``b`)", "type": "long"}}}), True),
        (", al String ALIAS `a``b`", spec(columns={"include": ["ts", "al"]}), True),
        (", al String ALIAS `a``b`", spec(columns={"include": ["ts", "x"]}), False),
        (", c String DEFAULT `a``b`", spec(columns=NOT_SECRET), True),
        (", c String MATERIALIZED upper(`a``b`), e String ALIAS c", spec(columns={"include": ["ts", "e"]}), True),
        ("", spec(columns=NOT_SECRET, source={"final": True}), True),
    ],
    ids=["excluded", "expr", "alias", "alias not offloaded", "default", "alias of a default", "final"],
)
def test_rule_18_columns_that_others_are_computed_from_count_too(
    db: Engine, columns: str, wish: TableSpec, reached: bool
) -> None:
    found = expiry_sql(make(db, "", SECRET + columns), wish)
    assert (found.strict is not None) is reached
    assert found.sql == found.strict


def test_a_table_without_ttl_never_expires(db: Engine) -> None:
    found = expiry_sql(make(db, ""), spec())
    assert (found.sql, found.readable) == (None, True)


def test_the_spec_names_an_expiry_that_the_table_does_not(db: Engine) -> None:
    source = make(db, "")
    assert expiry(db, source, ROW, spec(ttl="36h")) == "2030-01-03 00:00:00.123000"
    assert expiry(db, source, ROW, spec(ttl="d + INTERVAL 2 DAY")) == "2030-01-07 00:00:00.000000"
    both = make(db, "TTL d + INTERVAL 1 DAY")
    assert expiry(db, both, ROW, spec(ttl="36h")) == "2030-01-03 00:00:00.123000"


def test_a_ttl_that_rolls_up_forbids_replacing(db: Engine) -> None:
    source = make(db, "TTL d + INTERVAL 1 MONTH GROUP BY x SET keep = max(keep), ts = min(ts)")
    assert source.ttl_group_by
    found = expiry_sql(source, spec(ttl="7d"))
    assert not found.readable
    assert "GROUP BY" in found.why


@pytest.mark.parametrize("ddl", ["", "CREATE VIEW v AS SELECT 1", "CREATE TABLE t (`a` UInt8", "nonsense 'open"])
def test_ddl_that_can_not_be_read_is_unreadable(ddl: str) -> None:
    clauses = read_ddl(ddl)
    assert clauses.table == ""
    source = SourceTable("db", "t", "MergeTree", "uuid:1", (), ("ts",), "", clauses.table)
    found = expiry_sql(source, spec())
    assert not found.readable
    assert "write ttl: into the spec" in found.why
    told = expiry_sql(source, spec(ttl="7d"))
    assert told.readable
    assert told.sql is not None


def test_a_clause_is_cut_at_its_keywords_and_nowhere_else() -> None:
    assert elements("a + toIntervalDay(if(s = 'TO DELETE, WHERE', 1, 2)), `to` + toIntervalDay(1) DELETE WHERE f(x, ',') = 1") == (
        Element("a + toIntervalDay(if(s = 'TO DELETE, WHERE', 1, 2))"),
        Element("`to` + toIntervalDay(1)", "DELETE", "f(x, ',') = 1"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="no expression"):
        elements("a, , b")


def test_what_describe_says(db: Engine) -> None:
    source = make(
        db, "", ", `we``ird` Array(LowCardinality(String)), al UInt8 ALIAS x", order="x, `we``ird`, toDate(ts)"
    )
    assert source.engine == "MergeTree"
    assert source.identity.startswith("uuid:")
    assert source.sorting_key == ("x", "we`ird", "toDate(ts)")
    assert [(c.name, c.type, c.position, c.default_kind) for c in source.columns[-2:]] == [
        ("we`ird", "Array(LowCardinality(String))", 5, ""),
        ("al", "UInt8", 6, "ALIAS"),
    ]
    again = make(db, "")
    assert again.identity != source.identity, "a table that was dropped and made again is another one"


@pytest.mark.parametrize(
    ("database", "table", "cause"),
    [
        ("ttl", "tt", "there is no table tt in ttl; did you mean t?"),
        ("tlt", "t", "there is no database tlt; did you mean ttl?"),
        ("ttl", "v", "ttl.v is a View, which keeps no rows"),
        ("ttl", "x' OR 1=1 --", "there is no table x' OR 1=1 -- in ttl"),
    ],
)
def test_a_table_that_can_not_be_offloaded(db: Engine, database: str, table: str, cause: str) -> None:
    make(db, "")
    db.raw("CREATE VIEW IF NOT EXISTS ttl.v AS SELECT 1 AS a")
    with pytest.raises(OffloadError) as caught:
        describe(db, database, table)
    assert caught.value.id == "OFL-203"
    assert cause in caught.value.cause
