"""When ClickHouse deletes a row or zeroes one of its columns, as SQL that ClickHouse evaluates itself (rule 18).

The DDL as ClickHouse prints it is cut at its keywords with sqlglot's ClickHouse tokenizer; the expressions between
them are passed on verbatim. What can't be cut with certainty is unreadable, and an unreadable TTL forbids replacing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from include.offload.model import SourceColumn, SourceTable
from include.offload.source.expressions import check_expression
from include.offload.source.sql import quote
from include.offload.spec import human
from include.offload.spec.model import TableSpec
from include.offload.spec.rules import offloaded

UNREADABLE = ""
"""The TTL clause of a table whose DDL could not be read."""

_NEVER = "toDateTime64('2299-12-31 23:59:59', 6, 'UTC')"
_ACTIONS = ("DELETE", "WHERE", "TO", "RECOMPRESS", "GROUP", "SET")
_AFTER_TABLE_TTL = ("SETTINGS", "COMMENT", "AS")
_AFTER_COLUMN_TTL = ("COLLATE", "PRIMARY", "SETTINGS", "COMMENT", "CODEC", "STATISTICS")


@dataclass(frozen=True, slots=True)
class Expiry:
    """`sql`: the earliest expiry of a row as Nullable(DateTime64(6, 'UTC')); None: rows never expire, or unknown.

    `readable`: whether `sql` is the whole truth; when not, `why` says what could not be read and no window of the
    table may be replaced. `strict`: the same with every `TTL … WHERE` taken for true, since an update may make it so
    after the row was shipped: what may be replaced is judged by it, how long unshipped rows have is not.
    """

    sql: str | None
    readable: bool
    why: str = ""
    strict: str | None = None


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a TTL clause: an expression, what happens then (`DELETE`, `TO`, …), and its condition."""

    expr: str
    action: str = "DELETE"
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Clauses:
    """The TTL clauses of a table's DDL. `table`: None when there is none, "" when the DDL can't be read."""

    table: str | None
    columns: dict[str, str] = field(default_factory=dict)
    group_by: bool = False


@dataclass(frozen=True, slots=True)
class _Text:
    """Tokens of a text with their nesting depth; `cut` gives the text itself back."""

    text: str
    tokens: Sequence[Any]
    depths: Sequence[int]

    def cut(self, first: int, last: int) -> str:
        """The text from token `first` to before token `last`."""
        return self.text[self.tokens[first].start : self.tokens[last - 1].end + 1].strip() if first < last else ""

    def keyword(self, at: int) -> str:
        """The token as an upper-case word, empty for quoted names, literals and symbols."""
        token = self.tokens[at]
        raw = self.text[token.start : token.end + 1]
        # The tokenizer makes one token of `GROUP BY`.
        return raw.split()[0].upper() if raw[:1].isalpha() else ""


def read_ddl(ddl: str) -> Clauses:
    """The TTL clauses of a `CREATE TABLE` as `system.tables` prints it. Never raises."""
    try:
        text = _tokens(ddl)
        columns_end = _column_list_end(text)
    except ValueError:
        return Clauses(UNREADABLE)
    columns = dict(_column_ttls(text, columns_end))
    start = next((i for i in range(columns_end, len(text.tokens)) if _is(text, i, 0, ("TTL",))), None)
    if start is None:
        return Clauses(None, columns)
    end = next((i for i in range(start + 1, len(text.tokens)) if _is(text, i, 0, _AFTER_TABLE_TTL)), len(text.tokens))
    clause = text.cut(start + 1, end)
    return Clauses(clause or UNREADABLE, columns, _groups(clause))


def elements(clause: str) -> tuple[Element, ...]:
    """The elements of a table's TTL clause, up to a `GROUP BY`. Raises ValueError when it can't be cut."""
    text = _tokens(clause)
    out: list[Element] = []
    start = 0
    for end in [i for i, d in enumerate(text.depths) if d == 0 and text.cut(i, i + 1) == ","] + [len(text.tokens)]:
        element = _element(text, start, end)
        out.append(element)
        if element.action == "GROUP":
            break
        start = end + 1
    return tuple(out)


def expiry_sql(source: SourceTable, spec: TableSpec) -> Expiry:
    """When ClickHouse may first delete a row of the spec's table, or zero a column whose values reach the lake."""
    rows: list[Element] = []
    why = ""
    if source.ttl_group_by:
        why = "the table's TTL rolls rows up (GROUP BY)"
    if source.ttl == UNREADABLE:
        why = why or ("" if spec.ttl else "the table's TTL can't be read; write ttl: into the spec")
    elif source.ttl is not None:
        try:
            rows = [e for e in elements(source.ttl) if e.action in ("DELETE", "GROUP")]
        except ValueError as error:
            why = why or ("" if spec.ttl else f"the table's TTL can't be read ({error}); write ttl: into the spec")
    others = [_instant(c.ttl) for c in reaching(source, spec) if c.ttl is not None]
    if spec.ttl is not None:
        others.append(_spec_term(spec.ttl, spec.cursor))
    strict = _first([*(_instant(e.expr) for e in rows), *others])
    return Expiry(_first([*map(_row_term, rows), *others]), not why, why, strict)


def reaching(source: SourceTable, spec: TableSpec) -> tuple[SourceColumn, ...]:
    """The columns whose values can show in the lake: the offloaded ones, and those that they are computed from.

    An `expr` of the spec, an ALIAS, or the default of a column that old parts lack, names other columns. A name that
    stands anywhere in such a text counts; FINAL chooses rows by columns of the engine, so that all of them count.
    """
    if spec.source.final:
        return source.columns
    overrides = spec.columns.overrides
    reached = {c.name for c in source.columns if offloaded(spec, c.name)}
    texts = {c.name: c.default for c in source.columns}
    for name in reached & overrides.keys():
        texts[name] += f" {overrides[name].expr or ''}"
    waiting = list(reached)
    while waiting:
        # both ways to write a backtick inside of backticks
        text = texts[waiting.pop()].replace("``", "`").replace("\\`", "`")
        named = {c.name for c in source.columns if c.name in text} - reached
        reached |= named
        waiting += named
    return tuple(c for c in source.columns if c.name in reached)


def _first(terms: Sequence[str]) -> str | None:
    """The earliest of these instants, NULL for never; None when there is none."""
    known = ", ".join(f"ifNull({t}, {_NEVER})" for t in terms)
    return f"nullIf({f'least({known})' if len(terms) > 1 else known}, {_NEVER})" if terms else None


def _tokens(text: str) -> _Text:
    import sqlglot

    try:
        tokens = sqlglot.tokenize(text, read="clickhouse")
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(str(error).splitlines()[0]) from None
    if not tokens:
        raise ValueError("it is empty")
    depth, depths = 0, []
    for token in tokens:
        raw = text[token.start : token.end + 1]
        depth -= raw in (")", "]", "}")
        depths.append(depth)
        depth += raw in ("(", "[", "{")
    if depth:
        raise ValueError("brackets do not match")
    return _Text(text, tokens, depths)


def _is(text: _Text, at: int, depth: int, words: Sequence[str]) -> bool:
    return text.depths[at] == depth and text.keyword(at) in words


def _column_list_end(text: _Text) -> int:
    """The token after the column list's closing bracket. Raises ValueError when this is no CREATE with columns."""
    if text.keyword(0) not in ("CREATE", "ATTACH"):
        raise ValueError("it is no CREATE")
    opening = next((i for i in range(len(text.tokens)) if text.cut(i, i + 1) == "("), None)
    if opening is None:
        raise ValueError("it has no column list")
    closing = next(i for i in range(opening + 1, len(text.tokens)) if text.depths[i] == 0 and text.cut(i, i + 1) == ")")
    return closing + 1


def _column_ttls(text: _Text, end: int) -> Iterator[tuple[str, str]]:
    """Name and TTL of each column; ClickHouse prints every column's name in backticks, indexes without."""
    from include.offload.source.chtypes import unescape

    opening = next(i for i in range(end) if text.cut(i, i + 1) == "(")
    commas = [i for i in range(opening, end) if text.depths[i] == 1 and text.cut(i, i + 1) == ","]
    for first, last in zip([opening + 1, *(c + 1 for c in commas)], [*commas, end - 1], strict=True):
        name = text.cut(first, first + 1)
        start = next((i for i in range(first, last) if _is(text, i, 1, ("TTL",))), None)
        if start is None or not name.startswith("`"):
            continue
        stop = next((i for i in range(start + 1, last) if _is(text, i, 1, _AFTER_COLUMN_TTL)), last)
        yield unescape(name[1:-1], "`"), text.cut(start + 1, stop)


def _element(text: _Text, start: int, end: int) -> Element:
    marks = [i for i in range(start, end) if _is(text, i, 0, _ACTIONS)]
    stop = marks[0] if marks else end
    expr = text.cut(start, stop)
    if not expr:
        raise ValueError("an element has no expression")
    action = text.keyword(stop) if marks else "DELETE"
    if action not in ("DELETE", "WHERE"):
        return Element(expr, action)
    condition = next((i for i in marks if text.keyword(i) == "WHERE"), None)
    return Element(expr, "DELETE", text.cut(condition + 1, end) if condition is not None else None)


def _groups(clause: str) -> bool:
    try:
        return any(e.action == "GROUP" for e in elements(clause))
    except ValueError:
        return "GROUP" in clause.upper()


def _row_term(element: Element) -> str:
    instant = _instant(element.expr)
    if element.where is None:
        return instant
    try:
        check_expression(element.where)
    except ValueError:
        # A condition that changes with time says nothing about tomorrow: take the row as one that expires.
        return instant
    return f"if({element.where}, {instant}, NULL)"


def _instant(expr: str) -> str:
    """The expression as DateTime64(6, 'UTC'); a Date is midnight in the server's time zone, as for ClickHouse's TTL.

    ClickHouse takes the TTL value 0 as never.
    """
    moment = f"toTimeZone(toDateTime64({expr}, 6), 'UTC')"
    return f"nullIf({moment}, toDateTime64(0, 6, 'UTC'))"


def _spec_term(ttl: str, cursor: str) -> str:
    try:
        after = human.parse_duration(ttl)
    except ValueError:
        return _instant(ttl)
    return f"(toDateTime64({quote(cursor)}, 6, 'UTC') + toIntervalMicrosecond({after}))"


def ttl_us(source: SourceTable) -> int | None:
    """How long rows live by a TTL of the usual form `column + toIntervalUnit(n)`, µs; None for any other."""
    if not source.ttl:
        return None
    units = {"Second": 1, "Minute": 60, "Hour": 3600, "Day": 86400, "Week": 604800, "Month": 2592000, "Year": 31536000}
    try:
        found = [
            re.fullmatch(r"(?:(?!toInterval).)*\+ toInterval(\w+?)\((\d+)\)", e.expr)
            for e in elements(source.ttl)
            if e.action == "DELETE"
        ]
    except ValueError:
        return None
    spans = [int(m[2]) * units[m[1]] * human.SECOND_US for m in found if m and m[1] in units]
    return min(spans) if spans else None
