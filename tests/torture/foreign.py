"""Faults by others who write into our Iceberg table. Each returns whether it really happened."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
from pyiceberg.table import Table

from include.offload.errors import OffloadError
from include.offload.lake.marker import PREFIX
from include.offload.steps import ship
from include.offload.windows import from_us
from tests.support.domain import inline, meanwhile
from tests.torture.acts import landed, wired, work
from tests.torture.story import Fault
from tests.torture.world import World, tried, unwarned

FOREIGN = "foreign"


def foreign_row(lake: Table, w: World, days: int) -> pa.Table:
    """A row long before the table's accounting begins."""
    values = {"ts": from_us(w.domain.zero_us) - timedelta(days=days), "id": -days, "sym": FOREIGN}
    values |= {"price": Decimal(1), "size": 0.0, "note": FOREIGN, "tags": [], "version": 1}
    arrow = lake.schema().as_arrow()
    return pa.Table.from_pylist([{n: values[n] for n in arrow.names}], schema=arrow)


def remove_foreign(w: World) -> None:
    with unwarned():
        w.table.lake().delete(f"sym = '{FOREIGN}'")


def foreign_append(w: World, fault: Fault) -> bool:
    w.landed()
    w.table.lake().append(foreign_row(w.table.lake(), w, 30))
    w.arrive(fault.during)
    if fault.pick % 2:
        w.run()
    remove_foreign(w)
    return True


def foreign_between(w: World, fault: Fault) -> bool:
    """Our request is on its way when another's commit lands: rebased over, not lost."""
    w.landed()
    w.arrive(fault.during)
    plan = work(w)
    with wired(w, before=lambda: w.table.lake().append(foreign_row(w.table.lake(), w, 60))) as wire:
        landed(tried(lambda: ship(w.table.ctx, plan.plan_id, inline)))
        assert wire.sent == ["commit", "commit"]
    remove_foreign(w)
    return True


def compaction(w: World, fault: Fault) -> bool:
    """All rows in new files, before or while a plan is read."""
    w.landed()

    def compact() -> None:
        with unwarned():
            lake = w.domain.context().catalog.load_table(w.table.target)
            lake.overwrite(lake.scan().to_arrow())

    w.arrive(fault.during)
    if fault.pick % 2:
        compact()
        return True
    done = w.ship(work(w).plan_id, meanwhile(compact))
    # PyIceberg compacts in two snapshots, rows gone and rows back: to refuse such a history is as right as to rebase
    if isinstance(done, OffloadError):
        w.follow(done)
    return True


def marker_deleted(w: World, fault: Fault) -> bool:
    w.landed()
    w.arrive(fault.during)
    if fault.pick % 2:
        landed(w.ship(work(w).plan_id))
    with w.table.lake().transaction() as change:
        change.remove_properties(*(k for k in w.table.lake().properties if k.startswith(PREFIX)))
    return True


def expired(w: World, fault: Fault) -> bool:
    """All snapshots but main's; also the last one with a marker, if nothing else says who wrote the table."""
    w.landed()
    w.arrive(fault.during)
    if fault.pick % 2:
        landed(w.ship(work(w).plan_id))
    lake = w.table.lake()
    keep = {lake.metadata.current_snapshot_id}
    if f"{PREFIX}plan" not in lake.properties:
        marked = [s for s in w.table.snapshots() if s.summary and f"{PREFIX}plan" in s.summary.additional_properties]
        keep.add(marked[-1].snapshot_id)
    old = [s.snapshot_id for s in w.table.snapshots() if s.snapshot_id not in keep]
    if old:
        lake.maintenance.expire_snapshots().by_ids(old).commit()
    return bool(old)


def rolled_back(w: World, fault: Fault) -> bool:
    w.landed()
    w.arrive(fault.during)
    landed(w.ship(work(w).plan_id))
    lake = w.table.lake()
    older = []
    snapshot = lake.current_snapshot()
    while snapshot is not None and snapshot.parent_snapshot_id is not None:
        snapshot = lake.snapshot_by_id(snapshot.parent_snapshot_id)
        if snapshot is not None:
            older.append(snapshot.snapshot_id)
    if not older:
        return False
    lake.manage_snapshots().rollback_to_snapshot(older[fault.pick % len(older)]).commit()
    remove_foreign(w)
    w.watermark = None
    return True
