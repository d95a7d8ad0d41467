"""What verify finds, and what it leaves out: a difference is a finding wherever in the table it lies."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from include.offload import verify as verifying
from include.offload.verify import verify
from include.offload.windows import Span
from tests.support.domain import DDL, DomainTable, MakeDomainTable

pytestmark = pytest.mark.timeout(120)
LIVES = " TTL toDateTime(ts) + toIntervalHour(if(sym = 'short', 1, 720))"


def append_foreign(t: DomainTable, ids: list[int], shift_us: int = 0) -> None:
    """Somebody else appends these rows of the lake once more, their cursor moved."""
    lake = t.lake()
    rows = lake.scan(row_filter=f"id in ({', '.join(map(str, ids))})").to_arrow()
    at = rows.schema.get_field_index("ts")
    field = rows.schema.field(at)
    moved = pc.add(rows.column(at).cast("int64"), shift_us).cast(field.type)
    lake.append(rows.set_column(at, field, moved))


def test_one_window_that_expires_hides_no_difference_before_it(table: MakeDomainTable) -> None:
    """Where each row has a life of its own, windows expire in any order."""
    t = table(ddl=DDL + LIVES)
    t.sql("SYSTEM STOP TTL MERGES {table}")
    t.fill(0, 1, 3).insert(2, sym="short")
    t.run()
    t.sql("SYSTEM STOP MERGES {table}")
    t.insert(0, rows=1)
    report = verify(t.ctx, t.spec)
    assert [str(d.span) for d in report.differences] == [str(Span(t.at(0), t.at(1)))]
    assert report.left_out == (Span(t.at(2), t.at(3)),)
    t.run()
    report = t.verified()
    assert report.lake_rows == 31, "all but the window that expires"
    assert report.lake_total == report.ledger_total == 41


def test_what_expires_first_is_skipped_as_a_whole(table: MakeDomainTable) -> None:
    t = table(ddl=DDL + LIVES)
    t.sql("SYSTEM STOP TTL MERGES {table}")
    t.insert(0, sym="short").insert(1, sym="short").fill(3)
    t.run()
    report = t.verified()
    assert report.left_out == (Span(t.at(0), t.at(2)),)
    assert report.lake_rows == 10
    part = verify(t.ctx, t.spec, from_us=t.at(0))
    assert (part.ok, part.skipped_before_us, part.left_out) == (True, t.at(2), ())
    assert (part.lake_total, part.ledger_total) == (None, None), "a part says nothing of the whole"


def test_the_pieces_that_verify_cuts_a_table_into_are_bounded(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "MAX_HOLES", 2)
    t = table(ddl=DDL + LIVES)
    t.sql("SYSTEM STOP TTL MERGES {table}")
    for window in (0, 2, 6, 8):
        t.insert(window, sym="short")
    t.fill(1, 10)
    t.run()
    report = t.verified()
    assert report.left_out == (Span(t.at(0), t.at(1)), Span(t.at(2), t.at(9)))
    assert report.lake_rows == 20


@pytest.mark.parametrize("days", [-400, 400], ids=["long ago", "ahead"])
def test_rows_that_no_window_accounts_for_are_found(table: MakeDomainTable, days: int) -> None:
    """Before the table's beginning and after its watermark nothing is compared; but all rows are counted."""
    t = table().fill(0, 1)
    t.run()
    t.verified()
    append_foreign(t, [3, 4], days * 86_400_000_000)
    report = verify(t.ctx, t.spec)
    assert not report.ok
    assert report.differences == ()
    assert (report.lake_total, report.ledger_total) == (22, 20)
    assert [f for f in report.findings() if "Iceberg 22, shipped 20" in f]
    t.unverifiable = "it holds rows of somebody else"


def test_a_run_that_lands_meanwhile_is_no_finding(table: MakeDomainTable) -> None:
    """It is in the lake, and not yet in the ledger."""
    t = table().fill(0)
    t.run()
    t.insert(0, rows=2)
    check = t.check()
    t.ship(check.plan.plan_id)
    report = verify(t.ctx, t.spec)
    assert report.ok, report.findings()
    assert (report.lake_total, report.ledger_total) == (None, None)
    t.watermark(check.plan.plan_id)
    assert t.verified().lake_total == 12
