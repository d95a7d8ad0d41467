"""The small languages of a spec: durations, sizes, instants, cron, fields, Iceberg types, expressions."""

# ruff: noqa: E501 -- lists of examples
from __future__ import annotations

from itertools import count

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from include.offload.source import chtypes, icetypes
from include.offload.source.expressions import check_expression
from include.offload.spec import human
from include.offload.spec.fields import PartitionFieldSpec, SortFieldSpec, check_cron


@given(st.integers(0, 10**15))
def test_durations_sizes_and_instants_come_back(number: int) -> None:
    assert human.parse_duration(human.format_duration(number)) == number
    assert human.parse_size(human.format_size(number)) == number
    assert human.parse_instant(human.format_instant(number)) == number


@pytest.mark.parametrize("text", ["5", "5 minutes", "-5m", "5M", "m", "1.5h", "", "5m!", None, True, 1.5, []])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="write"):
        human.parse_duration(text)


@pytest.mark.parametrize("text", ["1.5GiB", "GiB", "-1B", "4 gigs", "4gib", None, True])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="write"):
        human.parse_size(text)


FIELD = st.one_of(
    st.sampled_from(["*", "*/5", "0", "1", "5,10", "1-5", "1-5/2", "7", "31", "60", "24", "mon", "mon-fri", "jan", "L", "*/0", "5-1", "a", "?", "1/5", ""]),
    st.integers(0, 70).map(str),
)  # fmt: skip


@given(st.lists(FIELD, min_size=4, max_size=6).map(" ".join))
def test_what_passes_is_cron_for_airflow_too(text: str) -> None:
    """Ours may refuse more (`L`, six fields, `5/15`), never less."""
    try:
        checked = check_cron(text)
    except ValueError as error:
        assert "cron" in str(error)
    else:
        assert croniter.is_valid(checked)


@pytest.mark.parametrize("text", ["*/15 * * * *", "0 0 29 2 *", "5,35 0-6/2 1 jan-mar mon-fri", "0  3 * * 7"])
def test_usual_schedules_pass(text: str) -> None:
    assert check_cron(text) == " ".join(text.split())


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\\0\n\r"), min_size=1, max_size=20)


@given(name=NAMES, kind=st.sampled_from(["identity", "day", "bucket[16]", "truncate[4]", "void"]))
def test_a_partition_field_of_any_name_comes_back(name: str, kind: str) -> None:
    field = PartitionFieldSpec.model_validate({"column": name, "transform": kind})
    assert PartitionFieldSpec.model_validate(str(field)) == field


@given(name=NAMES, descending=st.booleans(), nulls_last=st.booleans())
def test_a_sort_field_of_any_name_comes_back(name: str, descending: bool, nulls_last: bool) -> None:
    field = SortFieldSpec(column=name, descending=descending, nulls_last=nulls_last)
    assert SortFieldSpec.model_validate(str(field)) == field


ICE = st.recursive(
    st.one_of(
        st.sampled_from(icetypes.PRIMITIVES).map(icetypes.IceType),
        st.integers(1, 38).flatmap(
            lambda p: st.integers(0, p).map(lambda s: icetypes.IceType("decimal", (p, s)))
        ),
        st.integers(1, 99).map(lambda n: icetypes.IceType("fixed", (n,))),
    ),
    lambda inner: st.one_of(
        inner.map(lambda t: icetypes.IceType("list", parts=(t,))),
        st.tuples(st.just(icetypes.IceType("string")), inner).map(lambda p: icetypes.IceType("map", parts=p)),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
            lambda d: icetypes.IceType("struct", parts=tuple(d.values()), names=tuple(d))
        ),
    ),
    max_leaves=6,
)  # fmt: skip


@given(ICE)
def test_an_iceberg_type_comes_back_as_text_and_through_pyiceberg(kind: icetypes.IceType) -> None:
    text = str(kind)
    assert icetypes.parse(text) == kind
    assert icetypes.text_of(icetypes.to_iceberg(text, count(1))) == text
    assert str(chtypes.parse(kind.clickhouse())) == kind.clickhouse()


@pytest.mark.parametrize(
    "text",
    ["", "text", "decimal(39, 0)", "decimal(5, 6)", "decimal(5)", "fixed[0]", "list<>", "list<string", "map<string>",
     "struct<a>", "struct<a: int, a: int>", "string)", "int;", "time", "timestamp_ns", "list<string> x"],
)  # fmt: skip
def test_what_is_no_iceberg_type(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        icetypes.parse(text)


@pytest.mark.parametrize(
    "text",
    ["finalizeAggregation(a)", "toString(j.`x y`)", "`we ird` * 100", "if(a > 0, b, NULL)", "a::Int64", "'it is #1 -- so'",
     "arrayMap(y -> y + 1, list)", "ts + INTERVAL 7 DAY", "greatest(a, b)", "CAST(a, 'Decimal(38, 4)')", "tupleElement(t, 1)"],
)  # fmt: skip
def test_an_expression_over_one_row(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    ["", "a, b", "a b c", "f(a)) , (b", "SELECT 1", "a + (SELECT 1)", "a AS b", "sum(a)", "count()", "argMax(a, b)",
     "row_number() OVER ()", "now()", "today() - 1", "rand()", "generateUUIDv4()", "dictGet('d', 'a', b)", "a -- x", "a /* x */",
     "a; DROP TABLE t", "DROP TABLE t", "*", "hostName()"],
)  # fmt: skip
def test_no_expression_over_one_row(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_expression(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Tuple(a Int32, `b (c), d` Map(String, Decimal(18, 8)))", ("a", "b (c), d")),
        ("Tuple(Int32, Array(String))", (None, None)),
        ("Tuple(`x\\`y` UInt8, `z``` UInt8)", ("x`y", "z`")),
        ("Tuple(\n    a Int32,\n    b String)", ("a", "b")),
    ],
)
def test_tuples_as_clickhouse_prints_them(text: str, names: tuple[str | None, ...]) -> None:
    assert chtypes.parse(text).names == names


def test_quotes_inside_a_type_do_not_split_it() -> None:
    kind = chtypes.parse("Map(String, Enum8('a, b)' = 1, 'it\\'s' = 2))")
    assert [p.name for p in kind.parts] == ["String", "Enum8"]
    assert kind.parts[1].args == ("'a, b)' = 1", "'it\\'s' = 2")
    for broken in ("Array(String", "Enum8('a)", "Map(String))"):
        with pytest.raises(ValueError, match=r"."):
            chtypes.parse(broken)
