"""Nothing that a spec may hold becomes SQL of its own: names are quoted, an expression is one expression.

Asked of a real engine. A table that nobody named (`inj.canary`) stands by: no query of a spec reads or changes it.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from include.offload.errors import SOURCE_QUERY_FAILED, SPEC_INVALID, OffloadError
from include.offload.model import Projection, SourceTable
from include.offload.source.describe import describe
from include.offload.source.expressions import check_expression, confirm_expressions
from include.offload.source.extent import ExtentQuery
from include.offload.source.projection import partition_columns, project, sort_sql
from include.offload.source.sql import literal, quote, spans_sql, window_sql
from include.offload.source.ttl import expiry_sql
from include.offload.spec.check import confirm
from include.offload.spec.fields import quote_if_needed
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, Span
from tests.support.chdb_engine import Engine, EngineError

# ruff: noqa: E501 -- hostile texts stand as they are
NASTY = (
    "a b", "`", "``", "\\", "\\`", "a`.`b", "'", '"', "';DROP TABLE inj.canary;--", "x`; DROP TABLE inj.canary; --",
    "a\nb", "a\tb", "-- c", "/* c */", "*/", "#", "$$", "${x}", "{a:String}", "{{ ds }}", "%s", "%(a)s", "ü", "日本", "’",
    "\u202e", "a.b", "a,b", "(", ")", "1", "SELECT", "*", " FINAL", "a AS b", "\x01", "\x7f", "🦆", "null", "LIMIT 0",
    "\\x41", "\\'", "\\\\`", "tuple(a)", " lead", "trail ",
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.sampled_from("`\\'\"-/*;#$ \n\tab(){}%.,ü🦆"), min_size=1, max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30),
)
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def db(engine: Engine) -> Iterator[Engine]:
    engine.raw("CREATE DATABASE inj")
    engine.raw("CREATE TABLE inj.canary (secret String) ENGINE = MergeTree ORDER BY secret")
    engine.raw("INSERT INTO inj.canary VALUES ('sings')")
    yield engine
    engine.raw("DROP DATABASE inj")


@pytest.fixture(autouse=True)
def canary(db: Engine) -> Iterator[None]:
    """It is alone in its database again, and whole, after every test."""
    yield
    assert db.query("SELECT name FROM system.tables WHERE database = 'inj'") == [("canary",)]
    assert db.query("SELECT secret FROM inj.canary") == [("sings",)]


class Door:
    """The engine with the client's errors."""

    def __init__(self, db: Engine) -> None:
        self._db = db

    def query(self, sql: str, params: dict[str, object] | None = None) -> list[tuple[object, ...]]:
        try:
            return self._db.query(sql, params)
        except EngineError as error:
            raise OffloadError(SOURCE_QUERY_FAILED, str(error)) from error


def spec(**keys: Any) -> TableSpec:
    return TableSpec.model_validate({"identity": "inj.t", "cursor": "ts"} | keys)


def extent(wish: TableSpec, source: SourceTable, projection: Projection) -> ExtentQuery:
    return ExtentQuery(
        wish.source.database, wish.source.table, wish.cursor, wish.sequence, False, Grid(wish.window_us), projection,
        partition_columns(wish, projection), expiry_sql(source, wish).sql,
    )  # fmt: skip


def whole_day(db: Engine, wish: TableSpec) -> list[tuple[Any, ...]]:
    """Describe, project, confirm, and the queries of planning and of shipping: rows per window."""
    source = describe(db, wish.source.database, wish.source.table)
    projection = project(wish, source)
    query = extent(wish, source, projection)
    order = sort_sql(wish, projection)
    confirm(db, wish, source, projection, query.partition, order, expiry_sql(source, wish))
    day = Span(0, 86_400_000_000)
    cells = db.query(query.cells_sql([day]))
    columns = ", ".join(f"{c.expr} AS __offload_{i}" for i, c in enumerate(projection.columns))
    sorting = f" ORDER BY {', '.join(order)}" if order else ""
    sql = (
        f"SELECT {columns}, {projection.hash_sql} AS __offload_hash, {window_sql(wish.cursor, wish.window_us)} AS w"
        f" FROM {query.source} WHERE {spans_sql(wish.cursor, [day])}{sorting}"
    )
    assert db.arrow(sql).num_rows == sum(int(c[1]) for c in cells)
    return cells


@FEW
@given(database=NAMES, table=NAMES, cursor=NAMES, other=NAMES)
@example("inj`; DROP TABLE inj.canary; --", "t", "ts", "x")
@example("d", "`", "\\", "``")
def test_names_are_names_whatever_is_in_them(db: Engine, database: str, table: str, cursor: str, other: str) -> None:
    """A table, its database and its columns with such names are offloaded, or refused with OFL-101."""
    assume(cursor != other and database not in ("inj", "ttl", "default", "system"))
    name = f"{database[:40]}{uuid.uuid4().hex[:6]}"
    try:
        db.raw(f"CREATE DATABASE {quote(name)} ENGINE = Memory")
    except EngineError:
        # ClickHouse itself takes no such database: there is nothing to offload
        return
    try:
        place = f"{quote(name)}.{quote(table)}"
        try:
            db.raw(
                f"CREATE TABLE {place} ({quote(cursor)} DateTime64(3, 'UTC'), {quote(other)} String)"
                " ENGINE = MergeTree ORDER BY tuple()"
            )
        except EngineError:
            return
        db.raw(f"INSERT INTO {place} VALUES ('1970-01-01 00:01:00', {literal(other)})")
        keys = {
            "cursor": cursor,
            "source": {"database": name, "table": table},
            "target": {"partition": [f"day({quote_if_needed(cursor)})"], "sort": [f"{quote_if_needed(other)} desc"]},
            "columns": {"include": [cursor, other]},
            "ttl": "7d",
        }
        try:
            wish = spec(**keys)
        except ValidationError as error:
            assert not re.fullmatch(r"[A-Za-z_]\w*", cursor + other, re.ASCII), error
            return
        ((_, rows, *_rest),) = whole_day(db, wish)
        assert rows == 1
        ((value,),) = db.query(f"SELECT {quote(other)} FROM {place}")
        assert value == other
    finally:
        db.raw(f"DROP DATABASE {quote(name)}")


@FEW
@given(value=st.one_of(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_literals_are_literals(db: Engine, value: str) -> None:
    assert db.raw(f"SELECT hex({literal(value)})").decode().strip() == value.encode().hex().upper()


@FEW
@given(name=st.one_of(NAMES, st.text(max_size=4)), where=st.sampled_from(["partition", "sort", "bucket", "alias"]))
def test_partition_and_sort_are_read_or_refused(db: Engine, name: str, where: str) -> None:
    """What is read back as a name is the name that was written; nothing is dropped on the way."""
    text = {
        "partition": name, "sort": f"{name} desc", "bucket": f"bucket(16, {name})", "alias": f"ts as {name}",
    }[where]  # fmt: skip
    key = "sort" if where == "sort" else "partition"
    try:
        wish = spec(target={key: [text]})
    except ValidationError:
        return
    (field,) = wish.target.sort if key == "sort" else wish.target.partition
    if where == "alias":
        assert field.alias in (name.strip(), None)  # type: ignore[union-attr]
    else:
        assert quote_if_needed(field.column) in (name.strip(), f"`{name.strip().strip('`')}`") or "`" in name


BREAKOUTS = (
    "1) FROM inj.canary --", "1) FROM inj.canary /*", "(SELECT secret FROM inj.canary)", "x IN (SELECT secret FROM inj.canary)",
    "x IN inj.canary", "x IN canary", "1, secret", "1 FROM inj.canary", "1; DROP TABLE inj.canary", "1 UNION ALL SELECT 2",
    "1) AS a, (2", "x -- y", "x /* y */", "x # y", "x AS y", "*", "COLUMNS('.*')", "count()", "sum(x) OVER ()", "now()",
    "EXISTS (SELECT 1)", "joinGet('inj.canary', 'secret', 1)", "dictGet('d', 'a', 1)", "file('/etc/passwd')", "x LIMIT 1",
    "x SETTINGS max_threads = 1", "x FORMAT CSV", "x INTO OUTFILE '/tmp/x'", "arrayMap(y -> (SELECT secret FROM inj.canary), [1])",
    "hasColumnInTable('inj', 'canary', 'secret')", "`x` FROM inj.canary", "$$a$$) FROM inj.canary --",
    "in(x, inj.canary)", "globalIn(x, canary)", "x NOT IN canary", "x GLOBAL IN canary", "‘x’) FROM inj.canary --", "x\n) FROM inj.canary --", "{x:Identifier}", "{x:String}", "x WHERE 1", "x ORDER BY 1",
    "WITH 1 AS y SELECT y", "(WITH (SELECT secret FROM inj.canary) AS y SELECT y)", "x IN remote('h', 'd', 't')", "x EXCEPT y",
    "identity((SELECT 1))", "x = ANY (SELECT secret FROM inj.canary)", "", " ", "(", ")", "'", "`", "\\",
)  # fmt: skip


@pytest.mark.parametrize("text", BREAKOUTS)
@pytest.mark.parametrize("key", ["expr", "ttl"])
def test_an_expression_can_not_break_out(db: Engine, key: str, text: str) -> None:
    """By the spec's own check, which needs no server; and ClickHouse's parser agrees on all but what it has no word for."""
    keys: dict[str, Any] = (
        {"ttl": text} if key == "ttl" else {"columns": {"overrides": {"x": {"expr": text, "type": "string"}}}}
    )
    with pytest.raises(ValidationError):
        spec(**keys)


# a whole comment between the parts of an expression harms nothing
BY_THE_SERVER = tuple(
    t for t in BREAKOUTS
    if t != "x /* y */"
    and re.search(r"SELECT|FROM|IN |--|/\*|[;,*]|AS |LIMIT|WHERE|ORDER|SETTINGS|FORMAT|OUTFILE|COLUMNS|joinGet|OVER", t)
)  # fmt: skip


@pytest.mark.parametrize("text", BY_THE_SERVER)
def test_the_server_refuses_what_breaks_out_too(db: Engine, text: str) -> None:
    """ClickHouse reads SQL otherwise than the library that the spec's check uses: it has the last word."""
    with pytest.raises(OffloadError) as refused:
        confirm_expressions(Door(db), {"columns.overrides.x.expr": text}, "inj.t")
    assert refused.value.kind is SPEC_INVALID
    assert "columns.overrides.x.expr" in str(refused.value)


GOOD = (
    "upper(x)", "x", "`a b`", "toString(x) || 'a -- b'", "if(x > 1, 'SELECT', \"x\")", "x::String", "x IN (1, 2)", "x IN ('a')",
    "CAST(x AS Decimal(38, 0))", "arrayMap(y -> y + 1, x)", "CASE WHEN x THEN 1 ELSE 2 END", "x.1", "m['k']", "tuple(x, 1)",
    "toDateTime64(x, 6, 'UTC') + INTERVAL 7 DAY", "[x, 1]", "x BETWEEN 1 AND 2", "x IS NULL", "NOT x", "-x", "x ? 1 : 2",
    "'it''s'", "'a\\'b'", "'\\') FROM inj.canary -- '", "x IN [1, 2]", "x IN tuple(1, 2)", "x NOT IN ('a', 'b')",
)  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_an_honest_expression_passes_both(db: Engine, text: str) -> None:
    check_expression(text)
    confirm_expressions(Door(db), {"x": text}, "inj.t")


@FEW
@given(st.lists(st.sampled_from([*BREAKOUTS, *NASTY, "x", "(", ")", "'", "`", ",", " ", "1"]), min_size=1, max_size=5))
def test_pieces_of_sql_in_any_order_are_one_expression_or_refused(db: Engine, pieces: list[str]) -> None:
    """What both checks let pass reads columns of its own row: in a query over one row it gives one value."""
    text = "".join(pieces)
    try:
        check_expression(text)
        confirm_expressions(Door(db), {"x": text}, "inj.t")
    except (ValueError, OffloadError):
        return
    try:
        rows = db.query(f"SELECT toString(({text})) AS v FROM (SELECT 'x' AS x, 'own' AS y)")
    except EngineError:
        # one expression, of unknown columns or types: nothing was read
        return
    assert len(rows) == 1
    assert "sings" not in str(rows)


@FEW
@given(
    st.text(max_size=20),
    st.sampled_from(["cursor", "sequence", "include", "exclude", "database", "table", "final", "ttl"]),
)
@example("\0", "cursor")
@example("a\0b", "exclude")
@example("\ud800", "cursor")
@example("\ud800", "table")
def test_any_text_anywhere_is_taken_or_refused(db: Engine, text: str, where: str) -> None:
    """No other error than the spec's own; what is taken survives the trip through the plan's JSON."""
    keys: dict[str, Any] = {
        "cursor": {"cursor": text},
        "sequence": {"sequence": text},
        "include": {"columns": {"include": ["ts", text]}},
        "exclude": {"columns": {"exclude": [text]}},
        "database": {"source": {"database": text}},
        "table": {"source": {"table": text}},
        "final": {"source": {"final": text}},
        "ttl": {"ttl": text},
    }[where]
    try:
        wish = spec(**keys)
    except ValidationError:
        return
    stored = wish.model_dump_json()
    assert TableSpec.model_validate_json(stored) == wish
    # what PostgreSQL and UTF-8 can not hold must not come this far
    assert "\\u0000" not in stored
    stored.encode()


def test_dates_of_a_spec_are_numbers_in_sql() -> None:
    wish = spec(start="2026-01-01T00:00:00Z")
    assert isinstance(wish.start_us, int)
    assert wish.start_us == int(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp() * 1e6)
