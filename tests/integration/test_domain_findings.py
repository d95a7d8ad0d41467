"""What is wrong stays known until somebody mends or accepts it: no restart and no good run takes it back."""

from __future__ import annotations

import json
import socket

import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from include.offload import overview
from include.offload.cli import app
from include.offload.errors import OffloadError
from include.offload.ledger import looks
from include.offload.ledger.findings import Sum
from include.offload.overview import Danger, TableOverview
from include.offload.settings import load
from include.offload.steps import RunRequest, check_extent, open_context
from include.offload.timeline import Fate, timeline
from include.offload.verify import verify
from include.offload.windows import Span
from tests.integration.test_domain_metrics import receiver, told
from tests.support.domain import DDL, HOUR_US, WINDOW_US, DomainTable, MakeDomainTable

__all__ = ["receiver"]
pytestmark = pytest.mark.timeout(120)
LIVES = " TTL toDateTime(ts) + toIntervalHour(if(sym = 'short', 1, 720))"
EIGHT_HOURS = " TTL toDateTime(ts) + INTERVAL 8 HOUR"
GONE = "rows expired in ClickHouse before they were shipped"


def found(t: DomainTable) -> Sum:
    known = looks.remembered(t.ctx.ledger, t.identity)
    assert known is not None
    return known.found


def page(t: DomainTable) -> TableOverview:
    _, seen = overview.one(t.ctx.ledger, t.spec.dag_id)
    assert seen is not None
    return seen


def fates(t: DomainTable, span: Span) -> list[Fate]:
    now_us, seen = overview.one(t.ctx.ledger, t.spec.dag_id)
    assert seen is not None
    return [c.fate for c in timeline(t.ctx.ledger, seen, now_us, span).cells]


def merge(t: DomainTable) -> None:
    for statement in ("START MERGES", "START TTL MERGES"):
        t.sql(f"SYSTEM {statement} {{table}}")
    t.sql("OPTIMIZE TABLE {table} FINAL")


# ---- verify and reconcile --------------------------------------------------------------------------------------------


def test_what_verify_found_is_sent_again_by_every_run(table: MakeDomainTable, receiver: socket.socket) -> None:
    """An exporter that was restarted learns it; a part without faults and a run that heals it take nothing back."""
    t = table(settings=load(statsd_port=receiver.getsockname()[1])).fill(0, 1)
    t.run()
    t.insert(0, rows=1)
    assert not verify(t.ctx, t.spec).ok
    assert told(receiver, t.identity)["offload_verify_mismatched_windows"] == 1
    assert found(t).differing == 1
    assert verify(t.ctx, t.spec, t.at(1), t.at(2)).ok
    assert told(receiver, t.identity)["offload_verify_mismatched_windows"] == 1
    t.check()
    assert told(receiver, t.identity)["offload_verify_mismatched_windows"] == 1
    seen = page(t)
    assert (seen.danger, seen.found.differing) == (Danger.CRITICAL, 1)
    assert fates(t, Span(t.at(0), t.at(2))) == [Fate.DIFFERS, Fate.SHIPPED]
    t.run()
    assert found(t).differing == 1, "nobody has looked whether it is equal now"
    assert verify(t.ctx, t.spec, t.at(0), t.at(1)).ok
    assert told(receiver, t.identity)["offload_verify_mismatched_windows"] == 0
    assert (found(t), page(t).danger) == (Sum(), Danger.OK)


def test_reconcile_mends_what_it_ships_and_keeps_what_stays(table: MakeDomainTable) -> None:
    t = table().fill(0, 1, 2)
    t.run()
    t.insert(0, rows=1)
    t.mutate("DELETE WHERE id = 25")
    assert len(verify(t.ctx, t.spec).differences) == 2
    assert found(t).differing == 2
    done = CliRunner().invoke(app, ["reconcile", t.identity, "--json"])
    assert done.exit_code == 1, done.output
    assert found(t).differing == 1, "one was shipped again, the other is refused"
    t.unverifiable = "ClickHouse lost a row that the lake keeps"


def test_rows_of_no_window_stay_known_until_the_whole_is_right(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    rows = t.lake().scan().to_arrow()
    at = rows.schema.get_field_index("ts")
    moved = pc.subtract(rows.column(at).cast("int64"), 400 * 86_400_000_000).cast(rows.schema.field(at).type)
    t.lake().append(rows.set_column(at, rows.schema.field(at), moved))
    assert not verify(t.ctx, t.spec).ok
    assert verify(t.ctx, t.spec, t.at(0), t.at(1)).ok
    assert found(t).differing == 1
    t.unverifiable = "it holds rows of somebody else"


# ---- rows that expired unshipped -------------------------------------------------------------------------------------


def test_rows_that_a_plan_saw_and_that_expired_are_counted(table: MakeDomainTable, receiver: socket.socket) -> None:
    """The job failed for longer than the rows lived; the next run is green, and the loss stays."""
    t = table(ddl=DDL + LIVES, settings=load(statsd_port=receiver.getsockname()[1])).fill(0)
    t.run()
    t.sql("SYSTEM STOP TTL MERGES {table}")
    # behind the watermark nothing is unshipped: the ledger goes back to where the windows were not seen yet
    backwards(t, 1)
    t.insert(2, sym="short").insert(3)
    t.check()
    merge(t)
    assert len(t.source_ids()) == 20
    told(receiver, t.identity)
    run = t.run()
    assert any(GONE in n and "10 rows at least" in n for n in run.check.notes), run.check.notes
    assert told(receiver, t.identity)["offload_windows_expired_unshipped"] == 1
    assert (found(t).lost, found(t).lost_rows) == (1, 10)
    assert fates(t, Span(t.at(1), t.at(4))) == [Fate.EMPTY, Fate.LOST, Fate.SHIPPED]
    assert page(t).danger is Danger.CRITICAL
    t.run()
    assert told(receiver, t.identity)["offload_windows_expired_unshipped"] == 1
    done = CliRunner().invoke(app, ["accept-loss", t.identity, "--yes", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["accepted"][0]["rows"] == 10
    assert (found(t), page(t).danger) == (Sum(), Danger.OK)
    t.run()
    assert found(t) == Sum()
    t.unverifiable = "ClickHouse expired what was never shipped"


def backwards(t: DomainTable, window: int) -> None:
    """Make the ledger forget that it saw the time from this window on, as if no run had come since."""
    empty = t.domain.ledger(
        "DELETE FROM offload.windows w USING offload.tables t WHERE w.table_id = t.table_id AND t.identity = %s"
        " AND w.fingerprint IS NULL RETURNING w.table_id, lower(span), upper(span)",
        t.identity,
    )
    assert empty
    for table_id, lo, hi in empty:
        if lo < t.at(window):
            t.domain.ledger(
                "INSERT INTO offload.windows (table_id, span, rows, hash) VALUES (%s, int8range(%s, %s), 0, 0)",
                table_id,
                lo,
                min(hi, t.at(window)),
            )
    t.domain.ledger(
        "UPDATE offload.watermarks SET watermark = to_timestamp(%s / 1e6) WHERE table_name = %s",
        t.at(window),
        t.identity,
    )
    t.domain.ledger(
        "UPDATE offload.tables SET created_at = now() - interval '11 hours' WHERE identity = %s", t.identity
    )


def expired(t: DomainTable, since: int, later_us: int = 0) -> int:
    """How many windows from this one on all rows would have expired of, under EIGHT_HOURS and by ClickHouse's clock."""
    ((now_us,),) = t.ask("SELECT toUnixTimestamp64Micro(now64(6))")
    return int((now_us + later_us - 8 * HOUR_US - t.at(since)) // WINDOW_US)


@pytest.mark.parametrize("rows", [10, 0], ids=["a row was seen", "nobody ever saw one"])
def test_empty_windows_of_the_time_of_a_row_that_was_seen_are_lost(table: MakeDomainTable, rows: int) -> None:
    """Runs failed before they could plan. Without a row that somebody saw an empty window is an empty window."""
    t = table(ddl=DDL + EIGHT_HOURS).fill(0)
    t.run()
    backwards(t, -48)
    t.sql("SYSTEM STOP MERGES {table}")
    if rows:
        t.insert(-40, rows=rows)
    away = open_context(load(catalog="nowhere"))
    with pytest.raises(OffloadError):
        check_extent(away, t.spec, RunRequest("away"))
    away.close()
    merge(t)
    assert len(t.source_ids()) == 10
    least = expired(t, -48)
    t.run()
    # how long a row lives is known to the second
    most = expired(t, -48, 1_000_000)
    if not rows:
        assert found(t) == Sum()
        assert set(fates(t, Span(t.at(-48), t.at(-25)))) == {Fate.EMPTY}
        return
    assert least <= found(t).lost <= most
    assert found(t).lost_rows == 1
    assert (found(t).lost_from_us, page(t).danger) == (t.at(-48), Danger.CRITICAL)
    assert set(fates(t, Span(t.at(-48), t.at(-48 + least)))) == {Fate.LOST}
    assert set(fates(t, Span(t.at(-48 + most), t.at(-1)))) == {Fate.EMPTY}
    lost = found(t)
    t.run()
    assert found(t) == lost, "it is counted once"
    t.unverifiable = "ClickHouse expired what was never shipped"
