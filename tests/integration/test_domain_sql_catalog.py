"""The same path with another kind of catalog: PostgreSQL behind PyIceberg's SQL catalog, files in S3."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.snapshots import Operation

from include.offload.errors import PLAN_SUPERSEDED, OffloadError
from include.offload.recovery import rebuild
from include.offload.settings import load
from tests.support.domain import DomainTable, MakeDomainTable, meanwhile
from tests.support.one_step import one_step

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def t(table: MakeDomainTable) -> DomainTable:
    """A table whose catalog is chosen by configuration alone."""
    made = table(settings=load(catalog="lake_sql"))
    assert isinstance(made.ctx.catalog, SqlCatalog)
    return made


def test_append_late_rows_and_nothing_new(t: DomainTable) -> None:
    t.fill(0, 1, 2)
    assert t.run().rows == 30
    assert t.lake().location().startswith("s3://sqllake/")
    t.insert(1, rows=2).insert(4, rows=5)
    assert t.run().rows == 17
    assert t.operations() == [Operation.APPEND, Operation.OVERWRITE]
    assert not t.run().check.plan.touches_lake
    assert t.lake_ids() == t.source_ids()


def test_a_plan_is_shipped_once(t: DomainTable) -> None:
    t.fill(0)
    plan = t.check().plan.plan_id
    assert t.ship(plan).status == "committed"
    assert t.ship(plan).status == "already-committed"
    t.watermark(plan)
    assert len(t.snapshots()) == 1


def test_a_zombie_is_stopped(t: DomainTable) -> None:
    t.fill(0)
    zombie = t.check("zombie").plan.plan_id
    with pytest.raises(OffloadError) as refused:
        t.ship(zombie, meanwhile(lambda: t.run("others")))
    assert refused.value.kind is PLAN_SUPERSEDED
    assert t.lake_ids() == t.source_ids()


def test_a_rebuild_goes_on_where_the_lake_stands(t: DomainTable) -> None:
    t.fill(0, 1)
    t.run()
    assert rebuild(t.ctx, t.spec).rows == 20
    t.fill(3)
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()


def test_a_changed_window_is_replaced_in_one_snapshot(t: DomainTable) -> None:
    t.fill(0, 1, 2)
    t.run()
    t.mutate("UPDATE note = 'corrected' WHERE id = 15")
    run = t.run()
    assert [w.window for w in run.check.plan.windows] == [t.number(1)]
    assert t.operations() == [Operation.APPEND, Operation.OVERWRITE]
    notes = t.lake().scan(row_filter="id = 15", selected_fields=("note",)).to_arrow()
    assert notes.column("note").to_pylist() == ["corrected"]
    for snapshot in t.snapshots():
        assert t.lake_ids(snapshot.snapshot_id) == t.source_ids(), "no time traveller sees a gap"


@pytest.mark.parametrize(("point", "landed"), [("before-commit", 0), ("after-commit", 1)])
def test_a_death_around_the_commit(t: DomainTable, tmp_path: Path, point: str, landed: int) -> None:
    t.fill(0, 1)
    plan: uuid.UUID = t.check("the run").plan.plan_id
    (tmp_path / point).touch()
    assert one_step(tmp_path, "ship", str(plan), OFFLOAD_CATALOG="lake_sql") == -signal.SIGKILL
    assert not list(tmp_path.iterdir()), "the point was reached"
    assert len(t.snapshots()) == landed
    assert t.ship(plan).status == ("already-committed" if landed else "committed")
    assert t.watermark(plan).emitted
    assert len(t.snapshots()) == 1
    assert t.lake_ids() == t.source_ids()
    assert not t.run().check.plan.touches_lake
