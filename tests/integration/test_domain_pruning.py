"""What a run reads of a long history: every query of the table leaves the old rows unread, by partition or by key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from include.offload.source.client import Client
from tests.support.domain import DDL, DomainTable, MakeDomainTable

DAY = 288
"""Windows of five minutes."""
DAYS = 20
BY_DAY = DDL + " SETTINGS index_granularity = 64"
BY_KEY = DDL.replace("ORDER BY (sym, ts) PARTITION BY toDate(ts)", "ORDER BY ts SETTINGS index_granularity = 64")


def asked(monkeypatch: pytest.MonkeyPatch, t: DomainTable) -> list[str]:
    """The statements about the table's rows that our client sends from now on; it sends them as before."""
    seen: list[str] = []
    query, stream = Client.query, Client.stream

    def heard(sql: str) -> None:
        if t.source in sql and not sql.startswith("EXPLAIN "):
            seen.append(sql)

    def spied_query(self: Client, sql: str, params: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        heard(sql)
        return query(self, sql, params)

    def spied_stream(self: Client, sql: str, settings: Mapping[str, object]) -> Any:
        heard(sql)
        return stream(self, sql, settings)

    monkeypatch.setattr(Client, "query", spied_query)
    monkeypatch.setattr(Client, "stream", spied_stream)
    return seen


def granules(t: DomainTable, sql: str) -> tuple[int, int] | None:
    """Of how many granules a query reads how many, by its own plan; None: it reads no row, but counts parts."""
    rows = t.ask(f"EXPLAIN indexes = 1, json = 1 {sql}")
    if "ReadFromMergeTree" not in str(rows):
        return None
    indexes: list[dict[str, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            indexes.extend(node.get("Indexes", ()))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    # one value, escaped as in a TSV file
    walk(
        json.loads("".join(str(row[0]) for row in rows).replace("\\n", "\n").replace("\\'", "'").replace("\\\\", "\\"))
    )
    used = [i for i in indexes if "Initial Granules" in i]
    assert used, f"no index is used at all: {sql}"
    return max(i["Initial Granules"] for i in used), min(i["Selected Granules"] for i in used)


@pytest.mark.parametrize("ddl", [BY_DAY, BY_KEY], ids=["by partition", "by primary key"])
def test_a_run_leaves_old_rows_unread(table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch, ddl: str) -> None:
    t = table().create(ddl)
    for day in range(DAYS):
        t.insert(-day * DAY, rows=200)
    t.run()
    t.insert(1, rows=200)
    seen = asked(monkeypatch, t)
    assert t.run().rows == 200
    reading = [(sql, found) for sql in seen if (found := granules(t, sql)) is not None]
    assert len(reading) >= 2, "a check and a slice at least"
    for sql, (there, read) in reading:
        assert there > DAYS
        # the horizon is two of the twenty days
        assert read <= there * 4 / DAYS, f"{read} of {there} granules: {sql}"
