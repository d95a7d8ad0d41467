"""`retire`: a table ends with all that is settled in the lake, stays readable, and nothing plans it again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from include.offload.cli.overview import TableStatus, overview
from include.offload.errors import PLAN_SUPERSEDED, PLAN_UNKNOWN, TABLE_RETIRED, ErrorKind, OffloadError
from include.offload.lake.marker import RETIRED
from include.offload.overview import board
from include.offload.recovery import rebuild
from include.offload.retiring import retire, undo
from tests.support.domain import DomainTable, MakeDomainTable
from tests.support.one_step import one_step

pytestmark = pytest.mark.timeout(180)


def kind(act: Callable[[], object]) -> ErrorKind:
    with pytest.raises(OffloadError) as refused:
        act()
    return refused.value.kind


def status_of(t: DomainTable) -> TableStatus:
    """Its line of `bin/offload status`."""
    (line,) = overview(t.ctx, [t.spec]).tables
    return line


def test_a_table_ends_when_all_is_shipped_and_goes_on_when_asked(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    assert kind(lambda: retire(t.ctx, t.spec)) is PLAN_UNKNOWN, "nothing was ever offloaded"
    t.run()
    zombie = t.fill(2).check().plan.plan_id
    with pytest.raises(OffloadError, match="10 settled rows, in 1 windows") as refused:
        retire(t.ctx, t.spec)
    assert refused.value.kind is TABLE_RETIRED
    assert kind(lambda: retire(t.ctx, t.spec, leave=9)) is TABLE_RETIRED, "the number is the person's word"
    assert t.ctx.ledger.head(t.identity).retired is False  # type: ignore[union-attr]
    assert len(t.snapshots()) == 1
    t.run()

    done = retire(t.ctx, t.spec)
    assert (done.retired, done.changed, done.left) == (True, True, 0)
    assert t.lake().properties[RETIRED]
    assert len(t.snapshots()) == 3, "the marker moved with a snapshot of its own"
    assert t.lake_ids() == t.source_ids(), "the lake stays readable"
    assert t.identity not in {x.table for x in board(t.ctx.ledger).tables}, "no page waits for it"
    t.fill(4)
    seen = status_of(t)
    assert (seen.state, seen.lag_seconds) == ("retired", None), "nobody waits for its rows"
    assert [note for note in seen.notes if note.startswith("retired since 2")], seen.notes
    snapshots = len(t.snapshots())
    assert kind(t.check) is TABLE_RETIRED
    assert kind(lambda: t.ship(zombie)) is PLAN_SUPERSEDED
    assert retire(t.ctx, t.spec).changed is False
    assert len(t.snapshots()) == snapshots

    assert undo(t.ctx, t.spec).changed
    assert undo(t.ctx, t.spec).changed is False
    assert status_of(t).state != "retired"
    assert not t.lake().properties[RETIRED]
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()


def test_rows_that_are_named_stay_behind(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.fill(2, 3).insert(0, rows=1)
    t.unverifiable = "rows were left in ClickHouse on purpose"
    assert retire(t.ctx, t.spec, leave=31).left == 31
    assert t.lake_ids() == list(range(1, 11))
    t.consistent()


def test_the_marker_outlives_the_ledger(table: MakeDomainTable) -> None:
    """Whatever the ledger lost, the lake says that the table is retired."""
    t = table().fill(0)
    t.run()
    retire(t.ctx, t.spec)
    t.domain.ledger("UPDATE offload.tables SET retired_at = NULL WHERE identity = %s", t.identity)
    assert kind(t.check) is TABLE_RETIRED
    assert t.ctx.ledger.head(t.identity).retired  # type: ignore[union-attr]
    rebuild(t.ctx, t.spec)
    assert kind(t.check) is TABLE_RETIRED
    undo(t.ctx, t.spec)
    assert not t.run().check.plan.touches_lake


def test_a_table_whose_source_is_gone(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.sql("DROP TABLE {table} SYNC")
    t.unverifiable = "there is nothing to compare with"
    assert retire(t.ctx, t.spec).changed
    assert t.lake_ids() == list(range(1, 11))


def test_a_death_between_snapshot_and_ledger_is_healed_by_retiring_again(
    table: MakeDomainTable, tmp_path: Path
) -> None:
    t = table().fill(0)
    t.run()
    (tmp_path / "retire-planted").touch()
    assert one_step(tmp_path, "retire", t.identity) == -signal.SIGKILL
    assert not list(tmp_path.iterdir())
    assert kind(t.check) is TABLE_RETIRED
    assert retire(t.ctx, t.spec).changed is False
    assert len(t.snapshots()) == 2
    head = t.ctx.ledger.head(t.identity)
    assert head is not None and head.snapshot_id == t.snapshots()[-1].snapshot_id
