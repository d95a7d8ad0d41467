"""Just enough ClickHouse SQL to route a request: what kind of statement, where FORMAT stands, where data begins.

Works on Latin-1 text, so that a position in the text is a position in the bytes of the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|\#[!\ ][^\n]*|/\*.*?\*/)
      | (?P<string>'(?:[^'\\]|\\.|'')*')
      | (?P<quoted>`(?:[^`\\]|\\.)*`|"(?:[^"\\]|\\.|"")*")
      | (?P<heredoc>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)

WITH_OUTPUT = frozenset(
    {"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "CHECK", "FROM", "KILL"},
)
"""Statements that take INTO OUTFILE; a parenthesis at the start counts too. All others are run as they are,
EXPLAIN too: it would hand INTO OUTFILE to the query that it explains."""

_LITERAL = r"'(?:[^'\\]|\\.|'')*'"
_KEYS = re.compile(
    rf"\b((?:s3|gcs|iceberg|deltalake|hudi|azure|remote|mysql|postgresql|mongodb|redis)\w*\s*\(\s*{_LITERAL})"
    rf"(?:\s*,\s*{_LITERAL})+|\b(IDENTIFIED\b[^']*){_LITERAL}",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """The statement without the keys of table functions and the passwords of users, as ClickHouse logs it."""
    return _KEYS.sub(lambda m: f"{m[1]}, '[HIDDEN]'" if m[1] else f"{m[2]}'[HIDDEN]'", text)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `data_at`: where inline data of an INSERT begins, None for any other statement.

    `head` and `tail` are the text before and after `FORMAT <format>`; `tail` holds SETTINGS at most.
    """

    keyword: str
    head: str
    format: str | None
    tail: str
    data_at: int | None = None

    @property
    def streams(self) -> bool:
        return self.keyword in WITH_OUTPUT


class MultipleStatementsError(ValueError):
    """More than one statement in a request: ClickHouse refuses it over HTTP, and so does the front."""


def parse(text: str) -> Statement:
    """Split `text` (Latin-1) into a Statement. Raises MultipleStatementsError."""
    keyword = ""
    depth = 0
    selects = False
    format_at: tuple[int, int, str] | None = None
    previous: tuple[int, str] | None = None
    end = len(text)
    semicolon: int | None = None
    for position, kind, value in _tokens(text):
        if semicolon is not None:
            raise MultipleStatementsError("Multi-statements are not allowed")
        upper = value.upper() if kind == "word" else value
        if not keyword:
            keyword = upper if kind == "word" else ("SELECT" if value == "(" else value)
        if kind == "other":
            depth += (value in "([{") - (value in ")]}")
            if value == ";" and depth == 0:
                semicolon = position
                end = position
        if previous and previous[1] == "FORMAT" and kind == "word":
            format_at = (previous[0], position + len(value), value)
            if keyword == "INSERT" and not selects:
                return _insert(text, format_at)
        elif format_at and upper != "SETTINGS" and not _in_settings(text, format_at[1]):
            # FORMAT was an alias or a column after all
            format_at = None if value != ";" else format_at
        if depth == 0 and kind == "word":
            selects = selects or upper in {"SELECT", "VALUES", "WITH"}
            previous = (position, upper)
        else:
            previous = None
    if format_at is None:
        return Statement(keyword, text[:end], None, "")
    return Statement(keyword, text[: format_at[0]], format_at[2], text[format_at[1] : end])


def _tokens(text: str) -> Iterator[tuple[int, str, str]]:
    """Position, kind and text of each token; lazy, because the data of an INSERT must not be read as SQL."""
    for match in _TOKEN.finditer(text):
        if match["space"] is None:
            kind = match.lastgroup or "other"
            yield match.start(), "heredoc" if kind == "tag" else kind, match[0]


def _in_settings(text: str, after: int) -> bool:
    return re.match(r"\s*SETTINGS\b", text[after : after + 200], re.IGNORECASE) is not None


def _insert(text: str, format_at: tuple[int, int, str]) -> Statement:
    start, end, name = format_at
    # ClickHouse skips one run of blanks up to and including one line end before the data
    match = re.compile(r"[ \t]*;?(?:\r?\n)?").match(text, end)
    return Statement("INSERT", text[:start], name, "", match.end() if match else end)
