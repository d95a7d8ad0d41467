"""The front's reading of SQL: which statement it is, where FORMAT stands, where an INSERT's data begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.clickhouse_sql import MultipleStatementsError, parse


@pytest.mark.parametrize(
    "sql, keyword, head, form, tail",
    [
        ("SELECT 1", "SELECT", "SELECT 1", None, ""),
        ("select 1 format JSON", "SELECT", "select 1 ", "JSON", ""),
        ("SELECT 'x FORMAT y'", "SELECT", "SELECT 'x FORMAT y'", None, ""),
        ("SELECT 'it''s \\' FORMAT y' FORMAT TSV ;", "SELECT", "SELECT 'it''s \\' FORMAT y' ", "TSV", " "),
        ("SELECT format FROM t", "SELECT", "SELECT format FROM t", None, ""),
        ("SELECT 1 AS format FORMAT CSV", "SELECT", "SELECT 1 AS format ", "CSV", ""),
        ("SELECT 1 FORMAT TSV SETTINGS a = 1, b = 'c'", "SELECT", "SELECT 1 ", "TSV", " SETTINGS a = 1, b = 'c'"),
        ("SELECT 1 -- FORMAT x", "SELECT", "SELECT 1 -- FORMAT x", None, ""),
        ("/* c */ WITH 1 AS x SELECT x\n FORMAT Native", "WITH", "/* c */ WITH 1 AS x SELECT x\n ", "Native", ""),
        ("(SELECT 1) UNION ALL (SELECT 2)", "SELECT", "(SELECT 1) UNION ALL (SELECT 2)", None, ""),
        ("INSERT INTO t VALUES (1)", "INSERT", "INSERT INTO t VALUES (1)", None, ""),
        ("INSERT INTO t SELECT 1", "INSERT", "INSERT INTO t SELECT 1", None, ""),
        ("", "", "", None, ""),
    ],
)
def test_statements(sql: str, keyword: str, head: str, form: str | None, tail: str) -> None:
    found = parse(sql)
    assert (found.keyword, found.head, found.format, found.tail, found.data_at) == (keyword, head, form, tail, None)


@given(data=st.binary(max_size=200))
def test_the_data_of_an_insert_is_never_read_as_sql(data: bytes) -> None:
    head = b"INSERT INTO t (a, `format`) SETTINGS x = 1 FORMAT Native\n"
    found = parse((head + data).decode("latin-1"))
    assert (found.format, found.data_at) == ("Native", len(head))


@pytest.mark.parametrize("sql", ["SELECT 1; SELECT 2", "DROP TABLE a; DROP TABLE b;"])
def test_more_than_one_statement_is_refused(sql: str) -> None:
    with pytest.raises(MultipleStatementsError):
        parse(sql)
