"""Forgotten jobs, doubles and replays, as real processes and on the real wire.

What needs no second process stands in tests/integration/test_domain_protocol.py: zombies that land before a newer plan,
or wake after it. What a second ledger needs stands in test_domain_recovery.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import IdentityTransform

from include.offload.errors import (
    SCHEMA_NEEDS_ACCEPT,
    SOURCE_CHANGED_IDENTITY,
    TARGET_CHANGED,
    TARGET_FOREIGN,
    ErrorKind,
    OffloadError,
)
from include.offload.recovery import accept_source, take_over
from tests.support.airflow_driver import poll
from tests.support.domain import DDL, DomainTable, MakeDomainTable, RunTasks, afterwards, meanwhile
from tests.support.ledgers import MakeLedger, check_end, with_ledger
from tests.support.one_step import ended, kill, one_step, start_step
from tests.support.wire import CatalogProxy, Fault, Held, answer_lost, replayed

pytestmark = pytest.mark.timeout(120)


def refusal(act: Callable[[], object]) -> ErrorKind:
    with pytest.raises(OffloadError) as refused:
        act()
    return refused.value.kind


def fresh(t: DomainTable) -> DomainTable:
    """The first plan of a table makes the Iceberg table and its first snapshot."""
    return t.fill(0, 1)


def changed(t: DomainTable) -> DomainTable:
    """The next plan appends a window and replaces another."""
    t.fill(0, 1).run()
    return t.insert(1, rows=1).insert(3, rows=10)


each_state = pytest.mark.parametrize("prepare", [fresh, changed], ids=["first plan", "later plan"])


# ---- doubles and late requests ---------------------------------------------------------------------------------------


@each_state
def test_two_processes_with_one_plan_land_it_once(
    table: MakeDomainTable, proxy: CatalogProxy, tmp_path: Path, prepare: Callable[[DomainTable], DomainTable]
) -> None:
    """Rule 14: both have written their files and sent their commit before either of them lands."""
    t = prepare(table())
    before = len(t.snapshots()) if t.exists() else 0
    plan = t.check().plan.plan_id
    held = Held(sent_first=False)
    proxy.fault = held
    jobs = []
    for _ in range(2):
        jobs.append(start_step(tmp_path, "ship", str(plan), **proxy.catalog_environment()))
        held.wait()
    assert sorted(a.status for a in held.release(commits=2)) == [200, 409]
    assert [ended(job) for job in jobs] == [0, 0], "to have landed is a success for both (rule 17)"
    assert t.watermark(plan).emitted
    assert len(t.snapshots()) == before + 1
    assert t.lake_ids() == t.source_ids()


def test_two_processes_with_a_first_plan_make_one_table(
    table: MakeDomainTable, proxy: CatalogProxy, tmp_path: Path
) -> None:
    """This catalog lets two creations of one table at once both succeed: the second job waits for the first."""
    t = fresh(table())
    plan = t.check().plan.plan_id
    creation = Held(sent_first=False)
    proxy.meets = lambda r: r.method == "POST" and r.path.endswith("/tables")
    proxy.fault = creation
    jobs = [start_step(tmp_path, "ship", str(plan), **proxy.catalog_environment())]
    creation.wait()
    jobs.append(start_step(tmp_path, "ship", str(plan), **proxy.catalog_environment()))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    poll(lambda: t.domain.ledger(waiting) == [(1,)], 30, "the second job waits")
    assert [a.status for a in creation.release()] == [200]
    assert [ended(job) for job in jobs] == [0, 0]
    assert len(proxy.met) == 1
    assert t.watermark(plan).emitted
    assert len(t.snapshots()) == 1
    assert t.lake_ids() == t.source_ids()


def retried(t: DomainTable, plan: object) -> None:
    assert t.ship(t.ctx.ledger.plan(plan)[0].plan_id).status == "committed"
    assert t.watermark(plan).emitted


def passed(t: DomainTable, plan: object) -> None:
    assert t.run("the next run").rows > 0


@each_state
@pytest.mark.parametrize("others", [retried, passed])
def test_a_commit_that_outlives_its_sender_and_arrives_late_changes_nothing(
    table: MakeDomainTable,
    proxy: CatalogProxy,
    tmp_path: Path,
    prepare: Callable[[DomainTable], DomainTable],
    others: Callable[[DomainTable, object], None],
) -> None:
    """Rules 1 and 14: the request is stuck on the wire, its sender is dead, and someone else lands meanwhile."""
    t = prepare(table())
    plan = t.check().plan.plan_id
    held = Held(sent_first=False)
    proxy.fault = held
    zombie = start_step(tmp_path, "ship", str(plan), **proxy.catalog_environment())
    held.wait()
    kill(zombie)
    others(t, plan)
    snapshots = t.snapshots()
    assert [a.status for a in held.release()] == [409]
    assert t.snapshots() == snapshots
    assert t.run().rows == 0
    assert t.lake_ids() == t.source_ids()


@each_state
@pytest.mark.parametrize("fault", [replayed, answer_lost])
def test_a_lost_answer_and_a_replayed_request_neither_delete_nor_double(
    table: MakeDomainTable,
    proxy: CatalogProxy,
    tmp_path: Path,
    prepare: Callable[[DomainTable], DomainTable],
    fault: Fault,
) -> None:
    """Rule 16, on the wire: whatever comes back, the table decides; the same bytes sent once more, much later, too."""
    t = prepare(table())
    before = len(t.snapshots()) if t.exists() else 0
    plan = t.check().plan.plan_id
    proxy.fault = fault
    assert one_step(tmp_path, "ship", str(plan), **proxy.catalog_environment()) == 0
    (request,) = proxy.commits
    assert len(t.snapshots()) == before + 1
    assert t.watermark(plan).emitted
    assert t.lake_ids() == t.source_ids()
    assert request.send().status == 409
    t.fill(5)
    assert t.run().rows == 10
    assert request.send().status == 409
    assert len(t.snapshots()) == before + 2
    assert t.lake_ids() == t.source_ids()


def test_of_two_pipelines_whose_first_commits_meet_one_owns_the_table(
    table: MakeDomainTable, ledger: MakeLedger, proxy: CatalogProxy, tmp_path: Path
) -> None:
    """Rule 2: both planned for a table that did not exist; the loser is refused, and takes over by command only."""
    ours = table().fill(0, 1)
    theirs = with_ledger(ours, ledger())
    our_plan = ours.check().plan.plan_id
    their_plan = theirs.check().plan.plan_id
    held = Held(sent_first=False)
    proxy.fault = held
    late = start_step(tmp_path, "ship", str(our_plan), **proxy.catalog_environment())
    held.wait()
    assert theirs.ship(their_plan).status == "committed"
    assert [a.status for a in held.release()] == [409]
    assert ended(late) != 0
    assert theirs.watermark(their_plan).emitted
    assert refusal(lambda: ours.ship(our_plan)) is TARGET_FOREIGN
    assert refusal(ours.check) is TARGET_FOREIGN
    assert len(theirs.snapshots()) == 1
    take_over(ours.ctx, ours.spec)
    assert ours.run().rows == 0
    assert refusal(theirs.check) is TARGET_FOREIGN
    check_end(ours)


# ---- source and target change under a plan ---------------------------------------------------------------------------


@pytest.mark.parametrize("when", [meanwhile, afterwards], ids=["before it is read", "after it was read"])
def test_a_source_that_is_made_again_under_a_plan_is_never_shipped(
    table: MakeDomainTable, when: Callable[[Callable[[], object]], RunTasks]
) -> None:
    """Rule 2: the new table has as many rows in the same windows, so that no count tells it from the old one."""
    t = changed(table())
    plan = t.check().plan

    def make_again() -> None:
        rows = t.ask("SELECT ts, count() FROM {table} GROUP BY ts ORDER BY ts")
        t.sql("DROP TABLE {table} SYNC")
        t.sql(DDL)
        for ts, n in rows:
            t.sql(
                "INSERT INTO {table} (ts, id, sym)"
                f" SELECT toDateTime64('{ts:%Y-%m-%d %H:%M:%S.%f}', 6, 'UTC'), {next(t.ids)}, 'new' FROM numbers({n})"
            )

    before = t.lake_ids()
    assert refusal(lambda: t.ship(plan.plan_id, when(make_again))) is SOURCE_CHANGED_IDENTITY
    assert t.lake_ids() == before
    assert len(t.snapshots()) == 1
    assert refusal(t.check) is SOURCE_CHANGED_IDENTITY
    accept_source(t.ctx, t.spec)
    t.run()
    assert t.lake_ids() == t.source_ids()


def other_partition(lake: IcebergTable) -> None:
    with lake.update_spec() as update:
        update.add_field("sym", IdentityTransform(), "sym")


def same_partition(lake: IcebergTable) -> None:
    with lake.update_spec() as update:
        update.remove_field("sym")


def documented(lake: IcebergTable) -> None:
    with lake.update_schema() as update:
        update.update_column("note", doc="free text")


@each_state
def test_a_partition_spec_that_changes_between_write_and_commit_stops_the_commit(
    table: MakeDomainTable, prepare: Callable[[DomainTable], DomainTable]
) -> None:
    """Rule 1, also for the first plan, which was made before there was a table: its files lie in the old partitions."""
    t = prepare(table())
    plan = t.check().plan.plan_id
    before = len(t.snapshots()) if t.exists() else 0
    kind = refusal(lambda: t.ship(plan, afterwards(lambda: other_partition(t.lake()))))
    assert kind is TARGET_CHANGED
    assert len(t.snapshots()) == before
    assert refusal(t.check) is SCHEMA_NEEDS_ACCEPT
    same_partition(t.lake())
    t.run()
    assert t.lake_ids() == t.source_ids()


def test_a_schema_that_changes_between_write_and_the_first_commit_stops_the_commit(table: MakeDomainTable) -> None:
    """The later plan: test_domain_protocol.py."""
    t = fresh(table())
    plan = t.check().plan.plan_id
    assert refusal(lambda: t.ship(plan, afterwards(lambda: documented(t.lake())))) is TARGET_CHANGED
    assert t.snapshots() == []
    assert t.run().rows == 20
    assert t.operations() == [Operation.APPEND]
