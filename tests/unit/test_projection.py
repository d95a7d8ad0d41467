"""From spec and source to columns: choice, quoting, refusals, partition and sort SQL."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.offload.errors import OffloadError
from include.offload.model import SourceColumn, SourceTable
from include.offload.source.projection import partition_columns, project, sort_sql
from include.offload.source.sql import quote
from include.offload.source.typemap import NoMappingError, map_override, map_type
from include.offload.spec.model import TableSpec
from tests.support.chdb_engine import Engine


def spec(**keys: Any) -> TableSpec:
    return TableSpec.model_validate({"identity": "db.t", "cursor": "ts"} | keys)


def table(columns: dict[str, str], **facts: Any) -> SourceTable:
    kinds = facts.pop("kinds", {})
    return SourceTable(
        **{
            "database": "db",
            "table": "t",
            "engine": "MergeTree",
            "identity": "uuid:1",
            "columns": tuple(
                SourceColumn(n, t, i, kinds.get(n, "")) for i, (n, t) in enumerate(columns.items(), start=1)
            ),
            "sorting_key": ("ts",),
            "partition_key": "",
            "ttl": None,
        }
        | facts
    )


TS = {"ts": "DateTime64(3)"}


def refusal(id_: str, spec_: TableSpec, source: SourceTable) -> str:
    with pytest.raises(OffloadError) as caught:
        projection = project(spec_, source)
        partition_columns(spec_, projection)
        sort_sql(spec_, projection)
    assert caught.value.id == id_
    assert caught.value.table == "db.t"
    return caught.value.cause


def test_all_columns_in_the_order_of_the_source_but_computed_ones() -> None:
    source = table(
        {**TS, "a": "UInt8", "al": "UInt8", "m": "UInt8", "e": "UInt8"},
        kinds={"al": "ALIAS", "m": "MATERIALIZED", "e": "EPHEMERAL"},
    )
    assert [c.name for c in project(spec(), source).columns] == ["ts", "a", "m"]
    chosen = project(spec(columns={"include": ["al", "ts"]}), source)
    assert [c.name for c in chosen.columns] == ["al", "ts"]
    assert "EPHEMERAL" in refusal("OFL-204", spec(columns={"include": ["ts", "e"]}), source)


def test_a_missing_column_is_named_with_its_place_in_the_spec() -> None:
    source = table({**TS, "price": "Float64"})
    for keys, place in (
        ({"columns": {"include": ["ts", "prize"]}}, "prize (columns.include)"),
        ({"columns": {"exclude": ["prize"]}}, "prize (columns.exclude)"),
        ({"columns": {"overrides": {"prize": {"type": "string"}}}}, "prize (columns.overrides)"),
        ({"sequence": "prize"}, "prize (sequence)"),
        ({"target": {"partition": ["prize"]}}, "prize (target.partition)"),
        ({"target": {"sort": ["prize"]}}, "prize (target.sort)"),
    ):
        assert f"db.t has no column {place}; it has ts, price" in refusal("OFL-204", spec(**keys), source)
    assert "no column when (cursor); columns that can: ts" in refusal("OFL-204", spec(cursor="when"), source)


def test_every_column_without_a_mapping_is_refused_at_once_with_the_lines_to_write() -> None:
    source = table({**TS, "j": "JSON", "big": "Decimal(76, 2)", "n s": "DateTime64(9)"})
    cause = refusal("OFL-205", spec(), source)
    assert "column j of type JSON" in cause
    assert "j: {type: string}" in cause
    assert 'big: {type: "decimal(38, 2)"}' in cause
    assert """"n s": {expr: "toDateTime64(`n s`, 6, 'UTC')", type: timestamptz}""" in cause


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("Nullable(DateTime)", "may be NULL"),
        ("LowCardinality(Nullable(Date))", "may be NULL"),
        ("UInt64", "is no time"),
        ("String", "is no time"),
        ("Array(DateTime)", "is no time"),
    ],
)
def test_a_cursor_that_can_not_order_rows(kind: str, why: str) -> None:
    source = table({"x": kind, **TS})
    assert f"cursor x of type {kind} {why}; columns that can: ts" in refusal("OFL-206", spec(cursor="x"), source)


def test_a_computed_cursor_and_a_date_in_short_windows() -> None:
    assert "not stored" in refusal("OFL-206", spec(), table(TS, kinds={"ts": "ALIAS"}))
    source = table({"ts": "Date"})
    assert "write window: 1d" in refusal("OFL-206", spec(), source)
    assert project(spec(window="1d"), source).columns[0].iceberg_type == "date"


def test_a_cursor_with_nine_digits_is_cut_only_on_demand() -> None:
    source = table({"ts": "DateTime64(9)"})
    assert "this column 9" in refusal("OFL-205", spec(), source)
    cut = {"ts": {"expr": "toDateTime64(ts, 6, 'UTC')", "type": "timestamptz"}}
    assert project(spec(columns={"overrides": cut}), source).columns[0].iceberg_type == "timestamptz"


def test_final_only_where_it_can_be_read_window_by_window() -> None:
    wish = spec(source={"final": True})
    good = {"engine": "ReplicatedSummingMergeTree", "sorting_key": ("a", "ts")}
    assert project(wish, table(TS, **good))
    assert "merges no rows" in refusal("OFL-211", wish, table(TS))
    assert "not in the sorting key" in refusal("OFL-211", wish, table(TS, **good | {"sorting_key": ("toDate(ts)",)}))
    assert "twice" in refusal("OFL-211", wish, table(TS, **good, do_not_merge_across_partitions_select_final=True))


@pytest.mark.parametrize(
    ("partition", "expr", "moving"),
    [
        (["day(ts)", "a"], None, None),
        (["a"], "upper(a)", None),
        (["a"], "concat(a, toString(ts))", None),
        (["note"], None, "note"),
        (["note", "bucket(4, id)"], None, "id, note"),
        (["a"], "coalesce(a, note)", "a"),
        (["note"], "upper(a)", None),
    ],
)
def test_final_only_where_no_newer_version_can_lie_in_another_partition(
    partition: list[str], expr: str | None, moving: str | None
) -> None:
    overrides = {partition[-1]: {"expr": expr, "type": "string"}} if expr else {}
    wish = spec(source={"final": True}, target={"partition": partition}, columns={"overrides": overrides})
    columns = {**TS, "a": "String", "note": "String", "id": "Int64"}
    source = table(columns, engine="ReplacingMergeTree", sorting_key=("a", "ts"))
    if moving is None:
        assert project(wish, source)
    else:
        assert f"target.partition names {moving}, which" in refusal("OFL-211", wish, source)


def test_names_that_differ_only_in_case() -> None:
    assert "differ only in case" in refusal("OFL-205", spec(), table({**TS, "Price": "Float64", "price": "Float64"}))


def test_the_fingerprint_follows_names_expressions_and_types() -> None:
    base = project(spec(), table({**TS, "a": "UInt8"}))
    assert project(spec(), table({**TS, "a": "UInt8"})).fingerprint == base.fingerprint
    others = [
        project(spec(), table({**TS, "b": "UInt8"})),
        project(spec(), table({**TS, "a": "UInt32"})),
        project(spec(), table({"a": "UInt8", **TS})),
        project(spec(columns={"overrides": {"a": {"type": "string"}}}), table({**TS, "a": "UInt8"})),
        project(spec(), table(TS)),
    ]
    assert len({p.fingerprint for p in (base, *others)}) == 1 + len(others)
    nullable = project(spec(), table({**TS, "a": "Nullable(UInt8)"}))
    assert [c.required for c in nullable.columns] == [True, False]


@pytest.mark.parametrize(
    ("field", "kind", "cause"),
    [
        ("day(a)", "String", "day(a) does not fit the Iceberg type string; day takes date, timestamp, timestamptz"),
        ("hour(a)", "Date", "hour takes timestamp, timestamptz"),
        ("truncate(3, a)", "DateTime", "truncate takes int, long, decimal, string"),
        ("truncate(3, a)", "UInt64", "truncate takes decimals up to 18 digits"),
        ("a", "UUID", "does not fit the Iceberg type uuid"),
        ("void(a)", "String", "always gives NULL"),
        ("bucket(3, a)", "Float64", "does not fit the Iceberg type double"),
        ("a", "Float32", "does not fit the Iceberg type float"),
        ("a", "Array(String)", "does not fit the Iceberg type list<string>"),
        ("day(ts) as a", "String", "has the name of a column; write day(ts) as a as a_part"),
    ],
)
def test_a_transform_that_does_not_fit(field: str, kind: str, cause: str) -> None:
    assert cause in refusal("OFL-101", spec(target={"partition": [field]}), table({**TS, "a": kind}))


def test_the_sort_order_is_that_of_the_lake() -> None:
    columns = {**TS, "side": "Enum8('BUY' = 1)", "id": "UUID", "n": "Nullable(UInt64)", "s": "LowCardinality(String)"}
    wish = spec(target={"sort": ["side", "id desc", "n", "s", "ts desc"]})
    assert sort_sql(wish, project(wish, table(columns))) == (
        "CAST(`side`, 'String') ASC",
        "toString(`id`) DESC",
        "`n` ASC NULLS FIRST",
        "`s` ASC",
        "`ts` DESC",
    )
    nested = spec(target={"sort": ["m"]})
    assert "has no order" in refusal("OFL-101", nested, table({**TS, "m": "Map(String, String)"}))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("DateTime64(9)", "timestamptz"),
        ("DateTime64(9)", "long"),
        ("Decimal(18, 8)", "long"),
        ("Decimal(18, 8)", "decimal(18, 2)"),
        ("Decimal(18, 8)", "decimal(12, 8)"),
        ("Float64", "decimal(38, 8)"),
        ("Float64", "float"),
        ("Int64", "double"),
        ("String", "long"),
        ("String", "uuid"),
        ("Array(UInt8)", "list<string>"),
        ("AggregateFunction(sum, UInt8)", "string"),
        ("DateTime", "date"),
    ],
)
def test_an_override_that_could_change_a_value_needs_an_expression(kind: str, wanted: str) -> None:
    with pytest.raises(NoMappingError, match="could change"):
        map_override(kind, wanted)


@pytest.mark.parametrize(
    "kind",
    ["AggregateFunction(sum, UInt8)", "JSON", "JSON(a.b UInt8)", "Variant(UInt8, String)", "Dynamic", "DateTime64(7)",
     "Decimal(39, 0)", "Decimal256(3)", "Nothing", "Time64(3)", "Geometry", "Nullable(Tuple(a UInt8))", "Tuple()",
     "Array(JSON)", "Map(String, DateTime64(9))", "Tuple(`1` UInt8)", "Tuple(a UInt8, A UInt8)",
     "SomethingNew"],
)  # fmt: skip
def test_types_without_a_lossless_mapping(kind: str) -> None:
    with pytest.raises(NoMappingError) as caught:
        map_type(kind)
    assert caught.value.why


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=names | st.sampled_from(["`", "\\", "``", "\\`", "a`b", "'", '"', "--", "x) OR 1=1 --", "\\\\`", "{x:String}"])
)
def test_no_column_name_can_inject_sql(engine: Engine, name: str) -> None:
    """ClickHouse reads back exactly the name that was quoted, and one column only."""
    source = table({**TS, name: "UInt8"}) if name.lower() != "ts" else table(TS)
    wish = spec(target={"partition": [], "sort": []})
    column = project(wish, source).columns[-1]
    rows = engine.query(
        f"DESCRIBE TABLE (SELECT {column.expr} AS y FROM (SELECT 7::{column.source_type} AS {quote(column.name)}))"
    )
    assert len(rows) == 1
    assert engine.query(f"DESCRIBE TABLE (SELECT 7 AS {quote(name)})")[0][0] == name
