"""`bin/offload repair TABLE WINDOW`: exactly that window, never at the price of history, and its finding goes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from include.offload.cli import app
from include.offload.errors import OffloadError
from include.offload.ledger import findings
from include.offload.verify import verify
from include.offload.windows import from_us
from tests.support.domain import DDL, WINDOW_US, DomainTable, MakeDomainTable

pytestmark = pytest.mark.timeout(300)


def instant(t: DomainTable, window: float) -> str:
    return f"{from_us(t.at(window)):%Y-%m-%dT%H:%M:%SZ}"


def repair(t: DomainTable, window: float, *words: str, answer: str = "", code: int = 0) -> Any:
    """The document that it prints."""
    done = CliRunner().invoke(app, ["repair", t.identity, instant(t, window), *words, "--json"], input=answer)
    assert done.exit_code == code, f"{done.exit_code}\n{done.output}\n{done.exception!r}"
    return json.loads(done.stdout) if code == 0 else None


def refused(t: DomainTable, window: float) -> OffloadError:
    done = CliRunner().invoke(app, ["repair", t.identity, instant(t, window), "--yes"])
    assert isinstance(done.exception, OffloadError), f"{done.output}\n{done.exception!r}"
    return done.exception


def known(t: DomainTable) -> int:
    """Windows that the ledger knows to differ."""
    head = t.ctx.ledger.head(t.identity)
    assert head is not None
    return findings.differing(t.ctx.ledger, head.table_id)


def notes(t: DomainTable) -> dict[int, str | None]:
    rows = t.lake().scan(selected_fields=("id", "note")).to_arrow().to_pylist()
    return {int(r["id"]): r["note"] for r in rows}


def append_again(t: DomainTable, ids: list[int], shift_us: int = 0) -> None:
    """Somebody else appends these rows of the lake once more, their cursor moved."""
    lake = t.lake()
    rows = lake.scan(row_filter=f"id in ({', '.join(map(str, ids))})").to_arrow()
    at = rows.schema.get_field_index("ts")
    field = rows.schema.field(at)
    lake.append(rows.set_column(at, field, pc.add(rows.column(at).cast("int64"), shift_us).cast(field.type)))


def test_one_window_is_replaced_and_no_other(table: MakeDomainTable) -> None:
    """Two windows differ; the one that is named is mended, and what is known of the other stays."""
    t = table().fill(0, 1)
    t.run()
    t.mutate("UPDATE note = 'mended' WHERE id IN (2, 12)")
    assert len(verify(t.ctx, t.spec).differences) == known(t) == 2
    before = len(t.snapshots())
    # any instant of the window will do
    done = repair(t, 0.5, "--yes")
    assert (done["run"]["windows"], done["run"]["rows"], done["differing"]) == (1, 10, 1)
    assert done["window"] == {"lo": t.at(0), "hi": t.at(1)}
    assert len(done["found"]) >= 1
    assert len(t.snapshots()) == before + 1, "one snapshot, so that no reader sees a gap"
    assert (notes(t)[2], notes(t)[12] == "mended") == ("mended", False)
    assert [d.span.lo for d in verify(t.ctx, t.spec).differences] == [t.at(1)]
    assert repair(t, 1, "--yes")["differing"] == known(t) == 0


def test_rows_that_somebody_else_wrote_into_a_window_go(table: MakeDomainTable) -> None:
    """The ledger agrees with ClickHouse there, so that no reconcile would look; the finding of the whole goes too."""
    t = table().fill(0, 1)
    t.run()
    append_again(t, [3, 4])
    assert not verify(t.ctx, t.spec).ok
    assert known(t) == 2, "the window, and rows of the whole that no window accounts for"
    assert repair(t, 0, "--yes")["differing"] == 0
    assert t.lake_ids() == t.source_ids()
    assert known(t) == 0


def test_nothing_is_written_for_a_window_that_is_equal(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    before = t.snapshots()
    done = repair(t, 0, "--yes")
    assert (done["run"], done["found"], done["differing"]) == (None, [], 0)
    assert t.snapshots() == before


def test_nothing_happens_without_a_yes(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.mutate("UPDATE note = 'changed' WHERE id = 2")
    before = t.snapshots()
    repair(t, 0, answer="n\n", code=1)
    assert t.snapshots() == before
    assert known(t) == 1, "what was seen on the way is kept"
    said = CliRunner().invoke(app, ["repair", t.identity, instant(t, 0)], input="y\n")
    assert (said.exit_code, "was replaced and is equal by both readers" in " ".join(said.stdout.split())) == (0, True)
    assert known(t) == 0


def test_a_window_that_shrank_is_left_and_the_way_to_give_rows_up_is_named(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.mutate("DELETE WHERE id IN (2, 12)")
    error = refused(t, 0)
    assert error.id == "OFL-407"
    assert t.lake_ids() == list(range(1, 21))
    _, found, command = error.cause.partition("bin/offload ")
    assert found, error.cause
    done = CliRunner().invoke(app, shlex.split(command))
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    assert 2 not in t.lake_ids()
    assert 12 in t.lake_ids(), "only the window that was named"
    t.unverifiable = "the lake keeps a row that ClickHouse deleted"


def test_a_window_that_is_about_to_expire_is_never_replaced(table: MakeDomainTable) -> None:
    """Rule 18: the job might still be reading when ClickHouse begins to delete."""
    t = table(ddl=None)
    twenty_minutes = t.domain.admin.now_us() - t.at(0) + 1_200_000_000
    t.create(DDL + f" TTL toDateTime(ts) + INTERVAL {twenty_minutes // 1_000_000} SECOND")
    t.sql("SYSTEM STOP TTL MERGES {table}")
    t.fill(0)
    t.run()
    t.sql("ALTER TABLE {table} UPDATE note = 'changed' WHERE id = 2 SETTINGS mutations_sync = 2")
    before = t.snapshots()
    error = refused(t, 0)
    assert error.id == "OFL-407"
    assert "expiring" in error.cause
    assert t.snapshots() == before
    t.unverifiable = "the window differs, and stays so"


def test_a_window_that_was_not_offloaded_is_refused(table: MakeDomainTable) -> None:
    t = table().fill(0)
    assert "nothing was offloaded" in refused(t, 0).cause
    t.run()
    for window in (10_000, -10_000):
        assert "was not offloaded" in refused(t, window).cause


def test_foreign_rows_in_a_window_without_rows_are_somebody_elses_to_delete(table: MakeDomainTable) -> None:
    """Nothing of ours is there that could be replaced; it says so, and what verify found stays known."""
    t = table().fill(0, 2)
    t.run()
    append_again(t, [3], shift_us=WINDOW_US)
    assert not verify(t.ctx, t.spec).ok
    error = refused(t, 1)
    assert (error.id, "theirs to delete" in error.cause) == ("OFL-407", True)
    assert known(t) > 0
    t.unverifiable = "it holds a row of somebody else"
