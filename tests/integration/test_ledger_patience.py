"""Who waits for the ledger waits for a while only, and migrations of a ledger in use do no harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import text

from include.offload.errors import LEDGER_OUTDATED, LEDGER_UNREACHABLE, OffloadError
from include.offload.ledger import Ledger, findings
from include.offload.ledger.migrate import downgrade, upgrade
from include.offload.ledger.store import Patience
from include.offload.overview import board
from include.offload.windows import Grid
from tests.support.ledger_story import Story, tell
from tests.support.ledgers import own_ledger
from tests.support.stack import Servers

pytestmark = pytest.mark.timeout(120)
SHORT = Patience(statement_s=0.3, connection_s=0.3, connections=2)
SHRUNK = '{"window": 1, "reason": "shrunk", "rows": 1, "ledger_rows": 2}'
NEW_COLUMNS = "SELECT brief, differing FROM offload.looks ORDER BY table_id"


@pytest.fixture
def uri(data_stack: Servers) -> Iterator[str]:
    """A ledger of its own."""
    with own_ledger(data_stack) as found:
        yield found


def refused(ledger: Ledger, statement: str) -> OffloadError:
    with pytest.raises(OffloadError) as error, ledger.begin("k2.t") as c:
        c.execute(text(statement))
    return error.value


def test_a_statement_that_takes_too_long_is_a_refusal(uri: str) -> None:
    ledger = Ledger(uri, SHORT)
    started = time.monotonic()
    error = refused(ledger, "SELECT pg_sleep(20)")
    assert time.monotonic() - started < 10
    assert (error.kind, error.table) == (LEDGER_UNREACHABLE, "k2.t")
    assert "statement timeout" in error.cause
    # the connection is as good as before
    with ledger.begin() as c:
        assert c.execute(text("SELECT 1")).scalar_one() == 1
    ledger.close()
    patient = Ledger(uri)
    with patient.begin() as c:
        assert c.execute(text("SHOW statement_timeout")).scalar_one() == "0"
    patient.close()


def test_no_connection_free_is_a_refusal(uri: str) -> None:
    ledger = Ledger(uri, SHORT)
    with ExitStack() as held:
        for _ in range(SHORT.connections):
            held.enter_context(ledger.begin())
        error = refused(ledger, "SELECT 1")
    assert (error.kind, error.table) == (LEDGER_UNREACHABLE, "k2.t")
    assert "busy" in error.cause
    with ledger.begin() as c:
        assert c.execute(text("SELECT 1")).scalar_one() == 1
    ledger.close()


def test_migration_0003_over_a_ledger_with_data_that_is_in_use(uri: str) -> None:
    stories = [Story("k2.a", rows=40, days=0.2, differing=(1, 2)), Story("k2.b", rows=40, days=0.2, late_rows=7)]
    for story in stories:
        tell(uri, story)
    downgrade(uri, "0002")
    with psycopg.connect(uri) as run:
        # a run that has just saved its look
        run.execute("UPDATE offload.looks SET updated_at = now()")
        with pytest.raises(OffloadError) as error:
            upgrade(uri, lock_s=0.5)
        assert error.value.kind is LEDGER_OUTDATED
        assert "in use for 0.5 s and nothing was changed" in error.value.cause
        # others were kept waiting no longer than that
        assert run.execute("SELECT version_num FROM offload.alembic_version").fetchall() == [("0002",)]
        with pytest.raises(psycopg.errors.UndefinedColumn), run.transaction():
            run.execute(NEW_COLUMNS)
        # it goes on as soon as the run ends
        upgrading = threading.Thread(target=upgrade, args=(uri,))
        upgrading.start()
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        end = time.monotonic() + 4
        while run.execute(waits).fetchall() == [(0,)]:
            assert time.monotonic() < end, "the upgrade does not wait for the run"
        run.commit()
    upgrading.join(30)
    assert not upgrading.is_alive()
    with psycopg.connect(uri) as c:
        (first, two), (second, none) = c.execute(NEW_COLUMNS).fetchall()
    assert (two, none) == (2, 0)
    assert (first["late_rows"], second["late_rows"]) == (0, 7)
    assert "left" not in first and "blocks" not in first
    ledger = Ledger(uri)
    ledger.check_schema()
    assert {t.table: t.differing for t in board(ledger).tables} == {"k2.a": 2, "k2.b": 0}
    ledger.close()


def test_migration_0004_up_and_down_with_data(uri: str) -> None:
    """Looks of older code count as they did until the next one; what only the new tables hold goes with them."""
    tell(uri, Story("k2.a", rows=40, days=0.2))
    downgrade(uri, "0003")
    old = "UPDATE offload.looks SET document = jsonb_set(document, '{left}', %s::jsonb)"
    with psycopg.connect(uri) as c:
        c.execute(old, [f"[{SHRUNK}]"])
        before = c.execute("SELECT plan_id, rows FROM offload.plans ORDER BY 1").fetchall()
    upgrade(uri)
    ledger = Ledger(uri)
    ledger.check_schema()

    def differing() -> int:
        (seen,) = board(ledger).tables
        return seen.differing

    assert differing() == 1
    kept = SHRUNK.replace("shrunk", "expiring").replace("}", ', "expired": true, "differs": false}')
    with psycopg.connect(uri) as c:
        c.execute(old, [f"[{kept}]"])
    assert differing() == 0, "what the lake keeps of rows that expired is no difference"
    head = ledger.head("k2.a")
    assert head is not None
    findings.lose(ledger, head.table_id, Grid(300_000_000), {1: 3})
    ledger.failed("k2.new", "OFL-203 gone")
    assert {t.table: t.danger.name for t in board(ledger).tables} == {"k2.a": "CRITICAL", "k2.new": "WARNING"}
    ledger.close()
    downgrade(uri, "0003")
    with psycopg.connect(uri) as c:
        assert c.execute("SELECT plan_id, rows FROM offload.plans ORDER BY 1").fetchall() == before
        assert c.execute("SELECT differing FROM offload.looks").fetchall() == [(1,)]
        assert c.execute("SELECT to_regclass('offload.findings'), to_regclass('offload.unmet')").fetchone() == (
            None,
            None,
        )
    upgrade(uri)
    ledger = Ledger(uri)
    ledger.check_schema()
    assert [t.table for t in board(ledger).tables] == ["k2.a"]
    ledger.close()


def test_failures_before_the_first_check_are_failures_in_a_row(uri: str) -> None:
    ledger = Ledger(uri)
    for final in (True, False, True):
        ledger.failed("k2.new", "OFL-203 postgresql://u:hunter2@h", final=final)
    (row,) = ledger.watermark_rows()
    assert (row["table_name"], row["status"], row["failure_count"], row["met"]) == ("k2.new", "failed", 2, False)
    assert row["watermark"] is None
    assert "hunter2" not in row["last_error"]
    facts = {"cursor": "ts", "width_us": 300_000_000, "source": "s", "target": "k2.new", "origin_us": 0}
    ledger.register("k2.new", **facts)  # type: ignore[arg-type]
    (row,) = ledger.watermark_rows()
    assert (row["status"], row["failure_count"], row["met"]) == ("failed", 2, True)
    ledger.failed("k2.new", "OFL-203 gone")
    ledger.register("k2.new", **facts)  # type: ignore[arg-type]
    (row,) = ledger.watermark_rows()
    assert row["failure_count"] == 3
    (seen,) = board(ledger).tables
    assert seen.danger.name == "CRITICAL"
    ledger.close()
