"""Each migration of the ledger down and up again with rows in all tables: what the older schema can hold stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from include.offload.cli import app
from include.offload.ledger.migrate import TABLES, downgrade, revisions, upgrade
from include.offload.ledger.store import SCHEMA_REVISION
from tests.support.ledger_rows import FILL
from tests.support.ledgers import own_ledger
from tests.support.stack import Servers

pytestmark = pytest.mark.timeout(120)
Content = dict[str, dict[str, list[str]]]
LATEST = """
UPDATE offload.tables SET retired_at = now(), lost_at = now();
INSERT INTO offload.verified (table_id, lo, source_rows, lake_rows, equal, verified_at)
    VALUES (1, 300000000, 11, 10, false, '2026-11-22T10:00:00.123456Z');
INSERT INTO offload.verifications (table_id, began_at, windows, differing, equal, snapshot_id)
    VALUES (1, '2026-11-22T10:00:00.123456Z', 1, 1, false, 42);
"""


@pytest.fixture
def uri(data_stack: Servers) -> Iterator[str]:
    """A ledger of its own with rows in every table."""
    with own_ledger(data_stack) as found:
        with psycopg.connect(found) as c:
            c.execute(FILL.encode())
            c.execute(LATEST.encode())
        yield found


def content(uri: str) -> Content:
    """Per table and column all values, in the order of the rows' text of the key columns."""
    with psycopg.connect(uri) as c:
        names = c.execute(
            "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position)"
            " FROM information_schema.columns WHERE table_schema = 'offload' AND table_name <> 'alembic_version'"
            " AND is_generated = 'NEVER' GROUP BY table_name"
        ).fetchall()
        return {
            table: {
                # as text, sorted: values of one column, whatever other columns come and go
                column: [r[0] for r in c.execute(f"SELECT {column}::text FROM offload.{table} ORDER BY 1")]  # type: ignore[arg-type]  # noqa: S608
                for column in columns
            }
            for table, columns in names
        }


def shared(before: Content, after: Content) -> Content:
    """Of `before` what `after` has a place for."""
    return {
        table: {column: values for column, values in columns.items() if column in after[table]}
        for table, columns in before.items()
        if table in after
    }


def test_every_table_has_rows(uri: str) -> None:
    """Else the test below would prove less than it says."""
    found = content(uri)
    assert set(found) == set(TABLES)
    assert all(any(columns.values()) for columns in found.values())


def test_each_revision_down_and_up_with_data(uri: str) -> None:
    known = revisions()
    assert known[-1] == SCHEMA_REVISION
    for newer, older in zip(reversed(known), [*reversed(known[:-1])], strict=False):
        before = content(uri)
        downgrade(uri, older)
        down = content(uri)
        assert shared(before, down) == down, f"{newer} -> {older}"
        upgrade(uri, newer)
        up = content(uri)
        assert set(up) == set(before)
        assert shared(down, up) == down, f"{older} -> {newer}"
        assert {t: set(cs) for t, cs in up.items()} == {t: set(cs) for t, cs in before.items()}
        downgrade(uri, older)
    upgrade(uri)
    assert set(content(uri)) == set(TABLES)
    downgrade(uri, "base")
    assert content(uri) == {}


def test_the_command_keeps_a_backup_and_asks(uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OFFLOAD_LEDGER_URI", uri)
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path / "home"))
    before = content(uri)

    def offload(*words: str, code: int = 0, answer: str | None = None) -> None:
        done = CliRunner().invoke(app, ["ledger", *words], input=answer)
        assert done.exit_code == code, done.output

    offload("downgrade", "0000", "--yes", code=2)
    offload("downgrade", "0004", code=1, answer="n\n")
    assert content(uri) == before
    offload("downgrade", "0004", "--yes")
    assert "retired_at" not in content(uri)["tables"]
    (kept,) = (tmp_path / "home" / "backups").iterdir()
    offload("restore", str(kept), "--yes")
    assert content(uri) == before
