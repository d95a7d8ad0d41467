"""docs/exactly-once.md on real servers: chains, zombies, repeats, foreign commits, roll-backs, lost answers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException, ServerError
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Operation

from include.offload.context import Context, open_context
from include.offload.errors import (
    COMMIT_UNKNOWN,
    PLAN_SUPERSEDED,
    PLAN_UNKNOWN,
    SCHEMA_NEEDS_ACCEPT,
    TARGET_CHANGED,
    TARGET_ROLLED_BACK,
    TARGET_ROWS_ADDED,
    TARGET_ROWS_REMOVED,
    ErrorKind,
    OffloadError,
)
from include.offload.model import Action
from include.offload.steps import ship
from include.offload.windows import from_us
from tests.support.domain import Domain, DomainTable, MakeDomainTable, inline, meanwhile
from tests.support.faulty import Faulty

pytestmark = pytest.mark.timeout(120)


def refused(act: Callable[[], object]) -> OffloadError:
    with pytest.raises(OffloadError) as refusal:
        act()
    return refusal.value


def refusal(act: Callable[[], object]) -> ErrorKind:
    return refused(act).kind


# ---- clearing and repeating ------------------------------------------------------------------------------------------


def test_clearing_check_extent_plans_the_first_range_again(table: MakeDomainTable) -> None:
    """Rule 8: the same run id looks at the same range; what is there already is skipped, what changed is replaced."""
    t = table().fill(0, 1)
    first = t.run("monday")
    again = t.run("monday")
    assert again.check.plan.scan == first.check.plan.scan
    assert again.check.plan.plan_id != first.check.plan.plan_id
    assert not again.check.plan.touches_lake
    t.insert(1, rows=2)
    third = t.run("monday")
    assert third.check.plan.scan == first.check.plan.scan
    assert [w.action for w in third.check.plan.windows] == [Action.REPLACE]
    assert len(t.snapshots()) == 2


def test_shipping_a_plan_again_finds_it_there(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    plan = t.check().plan.plan_id
    assert t.ship(plan).status == "committed"
    read: list[int] = []
    assert t.ship(plan, meanwhile(lambda: read.append(1))).status == "already-committed"
    t.watermark(plan)
    assert t.ship(plan, meanwhile(lambda: read.append(1))).status == "already-committed"
    assert not read, "nothing is read again"
    assert len(t.snapshots()) == 1


def test_a_plan_that_landed_long_ago_is_still_a_success(table: MakeDomainTable) -> None:
    """Rule 17: it is the marker's plan, or recorded as committed."""
    t = table().fill(0)
    old = t.run()
    t.fill(1)
    t.run()
    assert t.ship(old.check.plan.plan_id).status == "already-committed"
    assert not t.watermark(old.check.plan.plan_id).emitted
    assert len(t.snapshots()) == 2


def test_update_watermark_twice_emits_once(table: MakeDomainTable) -> None:
    t = table().fill(0)
    plan = t.check().plan.plan_id
    t.ship(plan)
    first, second = t.watermark(plan), t.watermark(plan)
    assert (first.emitted, second.emitted) == (True, False)
    assert (first.rows, first.watermark_us, first.generation) == (second.rows, second.watermark_us, second.generation)
    assert t.row_count() == 10


def test_the_next_check_records_a_plan_that_landed_unseen(table: MakeDomainTable) -> None:
    """Rule 5: its update_watermark failed, the next check_extent adopts it; clearing it later is a success."""
    t = table().fill(0)
    plan = t.check("monday").plan.plan_id
    t.ship(plan)
    adopting = t.check("tuesday").plan
    assert t.plan_status(plan) == "committed"
    assert not adopting.touches_lake
    assert adopting.generation == 2
    assert t.watermark(plan).rows == 10
    assert t.row_count() == 10


def test_a_commit_can_not_be_faked(table: MakeDomainTable) -> None:
    """Rule 21: `mark success` of the job in the UI."""
    t = table().fill(0)
    t.run()
    t.fill(2)
    plan = t.check().plan.plan_id
    assert refusal(lambda: t.watermark(plan)) is PLAN_SUPERSEDED
    assert t.plan_status(plan) == "open"
    assert t.run().rows == 10


def test_a_plan_without_rows_that_a_rebuild_closed_writes_nothing(table: MakeDomainTable) -> None:
    """Rules 17 and 22: superseded is no success, for the plans too that touch only the ledger."""
    from include.offload.recovery import rebuild

    t = table().fill(0)
    t.run()
    plan = t.check().plan
    assert not plan.touches_lake
    rebuild(t.ctx, t.spec)
    before = t.ctx.ledger.head(t.identity)
    assert refusal(lambda: t.watermark(plan.plan_id)) is PLAN_SUPERSEDED
    assert t.plan_status(plan.plan_id) == "superseded"
    assert t.ctx.ledger.head(t.identity) == before


def test_a_retry_that_finds_all_recorded_ends_the_failure_that_was_counted(table: MakeDomainTable) -> None:
    def state() -> tuple[object, ...]:
        columns = "SELECT status, failure_count, last_error FROM offload.watermarks WHERE table_name = %s"
        return t.domain.ledger(columns, t.identity)[0]

    t = table().fill(0)
    first = t.run().check.plan.plan_id
    t.fill(2)
    newest = t.run().check.plan.plan_id
    t.ctx.ledger.failed(t.identity, "died after it had written")
    t.watermark(first)
    assert state() == ("failed", 1, "died after it had written"), "an older run says nothing of the newest"
    assert not t.watermark(newest).emitted
    assert state() == ("success", 0, None)


def test_a_recorded_plan_whose_table_was_dropped_does_not_make_it_again(table: MakeDomainTable) -> None:
    t = table().fill(0)
    plan = t.run().check.plan.plan_id
    t.ctx.catalog.drop_table(t.target)
    assert t.ship(plan).status == "already-committed"
    assert not t.exists()
    t.unverifiable = "the lake's table was dropped"


def test_an_unknown_plan_is_refused(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    assert refusal(lambda: t.ship(uuid.uuid4())) is PLAN_UNKNOWN
    assert refusal(lambda: t.watermark(uuid.uuid4())) is PLAN_UNKNOWN


# ---- the chain -------------------------------------------------------------------------------------------------------


def test_of_two_plans_for_the_same_windows_one_lands(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    one, two = t.check("a").plan, t.check("b").plan
    assert one.predecessor == two.predecessor
    t.ship(two.plan_id)
    assert refusal(lambda: t.ship(one.plan_id)) is PLAN_SUPERSEDED
    assert refusal(lambda: t.watermark(one.plan_id)) is PLAN_SUPERSEDED
    assert t.watermark(two.plan_id).emitted
    assert t.plan_status(one.plan_id) == "superseded"
    assert refusal(lambda: t.ship(one.plan_id)) is PLAN_SUPERSEDED
    assert len(t.snapshots()) == 1


def test_a_zombie_that_wakes_up_after_others_passed_is_stopped_at_the_commit(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.fill(3)
    zombie = t.check("zombie").plan

    def others_pass() -> None:
        assert t.run("others").rows == 10

    assert refusal(lambda: t.ship(zombie.plan_id, meanwhile(others_pass))) is PLAN_SUPERSEDED
    assert len(t.snapshots()) == 2
    assert t.lake_ids() == t.source_ids()


def test_a_zombie_that_nobody_passed_lands_and_the_newer_plan_stops(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.fill(3)
    zombie = t.check("zombie").plan
    t.fill(4)
    newer = t.check("newer").plan
    assert t.ship(zombie.plan_id).status == "committed"
    assert refusal(lambda: t.ship(newer.plan_id)) is PLAN_SUPERSEDED
    again = t.run("newer")
    assert again.rows == 10
    assert t.plan_status(zombie.plan_id) == "committed"
    assert t.lake_ids() == t.source_ids()


def test_two_runs_of_one_plan_at_once_land_it_once(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    plan = t.check().plan.plan_id
    outcome = t.ship(plan, meanwhile(lambda: t.ship(plan)))
    assert outcome.status == "already-committed"
    t.watermark(plan)
    assert t.lake_ids() == t.source_ids()
    assert len(t.snapshots()) == 1


def test_generations_count_the_chain(table: MakeDomainTable) -> None:
    t = table().fill(0)
    generations = [t.run().watermark.generation]
    assert t.run().rows == 0
    t.fill(1)
    generations.append(t.run().watermark.generation)
    assert generations == [1, 2]


# ---- the wire: a real catalog, with a fault before or after each commit ----------------------------------------------


def raising(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.fixture
def faulty(domain: Domain) -> Iterator[tuple[Context, Faulty]]:
    """A context whose catalog can be made to fail; the rest is real."""
    ctx = domain.context()
    wire = Faulty(ctx.catalog)
    ctx.__dict__["catalog"] = wire
    yield ctx, wire
    ctx.close()


LOST = [ServerError("502 Bad Gateway"), ConnectionError("reset by peer"), CommitFailedException("409 replayed")]


@pytest.mark.parametrize("error", LOST, ids=lambda e: type(e).__name__)
def test_rule_16_an_answer_that_is_lost_after_the_commit_is_found_in_the_table(
    table: MakeDomainTable, faulty: tuple[Context, Faulty], error: Exception
) -> None:
    t = table().fill(0, 1)
    t.run()
    t.fill(2)
    t.insert(1, rows=1)
    ctx, wire = faulty
    wire.after = raising(error)
    plan = t.check().plan.plan_id
    outcome = ship(ctx, plan, inline)
    assert outcome.status == "committed"
    assert wire.sent == ["commit"]
    t.watermark(plan)
    assert t.lake_ids() == t.source_ids()
    assert len(t.snapshots()) == 2


@pytest.mark.parametrize("error", LOST[:2], ids=lambda e: type(e).__name__)
def test_rule_16_a_request_that_never_arrived_is_unknown_and_safe_to_repeat(
    table: MakeDomainTable, faulty: tuple[Context, Faulty], error: Exception
) -> None:
    t = table().fill(0, 1)
    ctx, wire = faulty
    wire.before = raising(error)
    plan = t.check().plan.plan_id
    assert refusal(lambda: ship(ctx, plan, inline)) is COMMIT_UNKNOWN
    assert ship(ctx, plan, inline).status == "committed"
    t.watermark(plan)
    assert t.lake_ids() == t.source_ids()
    assert len(t.snapshots()) == 1


def foreign_row(t: DomainTable, days: int = 30) -> pa.Table:
    """One row long before the table's accounting begins, so that no verifier minds it."""
    ts = from_us(t.at(0)) - timedelta(days=days)
    row = {"ts": ts, "id": -days, "sym": "foreign", "price": Decimal(1), "size": 0.0, "note": None, "tags": []}
    return pa.Table.from_pylist([row], schema=t.lake().schema().as_arrow())


def test_a_foreign_append_between_plan_and_commit_is_rebased_over(
    table: MakeDomainTable, faulty: tuple[Context, Faulty]
) -> None:
    """Rule 1: only snapshots without a marker may be; this one comes while our request is on its way."""
    t = table().fill(0, 1)
    t.run()
    t.insert(1, rows=1).insert(3, rows=2)
    ctx, wire = faulty
    plan = t.check().plan.plan_id
    t.lake().append(foreign_row(t, days=30))
    wire.before = lambda: t.lake().append(foreign_row(t, days=60))
    assert ship(ctx, plan, inline).status == "committed"
    assert wire.sent == ["commit", "commit"]
    t.watermark(plan)
    assert t.lake_ids() == [-60, -30, *t.source_ids()]
    assert t.operations() == [Operation.APPEND] * 3 + [Operation.OVERWRITE]
    # and the next run goes on from there
    t.fill(5)
    assert t.run().rows == 10
    t.verified_beside(foreign=2)
    t.unverifiable = "it holds two foreign rows, which the ledger does not count"


def test_foreign_rows_in_a_window_that_is_replaced_are_not_dropped_unasked(table: MakeDomainTable) -> None:
    """Rule 19: more rows than were ever shipped; a forced range drops them, and says so by being asked for."""
    t = table().fill(0, 1)
    t.run()
    t.lake().append(foreign_row(t, days=0))
    t.insert(1, rows=1)
    assert t.run().rows == 11, "another window is no concern"
    t.insert(0, rows=1).fill(3)
    plan = t.check().plan.plan_id
    before = t.snapshots()
    error = refused(lambda: t.ship(plan))
    assert error.kind is TARGET_ROWS_ADDED
    assert "11 rows, shipped were 10" in error.cause
    assert t.snapshots() == before
    assert t.run(from_us=t.at(0), to_us=t.at(1), force=True).rows == 11
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()


def test_a_zombie_s_commit_that_comes_while_ours_is_on_its_way_is_not_rebased_over(
    table: MakeDomainTable, faulty: tuple[Context, Faulty]
) -> None:
    t = table().fill(0, 1)
    ctx, wire = faulty
    zombie, ours = t.check("zombie").plan, t.check("ours").plan
    wire.before = lambda: t.ship(zombie.plan_id)
    assert refusal(lambda: ship(ctx, ours.plan_id, inline)) is PLAN_SUPERSEDED
    t.watermark(zombie.plan_id)
    assert len(t.snapshots()) == 1
    assert t.lake_ids() == t.source_ids()


# ---- the target changes under a plan ---------------------------------------------------------------------------------


def test_a_schema_that_changes_between_plan_and_commit_stops_the_commit(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.fill(2)
    plan = t.check().plan.plan_id

    def document_a_column() -> None:
        with t.lake().update_schema() as update:
            update.update_column("note", doc="free text")

    assert refusal(lambda: t.ship(plan, meanwhile(document_a_column))) is TARGET_CHANGED
    assert len(t.snapshots()) == 1
    # a harmless change: planning again is all it takes
    assert t.run().rows == 10


def test_a_column_that_someone_adds_in_iceberg_is_refused_until_it_is_accepted_or_gone(table: MakeDomainTable) -> None:
    from pyiceberg.types import StringType

    t = table().fill(0)
    t.run()
    t.fill(2)
    plan = t.check().plan.plan_id
    with t.lake().update_schema() as update:
        update.add_column("surprise", StringType())
    assert refusal(lambda: t.ship(plan)) is TARGET_CHANGED
    assert refusal(t.check) is SCHEMA_NEEDS_ACCEPT
    with t.lake().update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("surprise")
    assert t.run().rows == 10


def rolled_back(t: DomainTable) -> IcebergTable:
    lake = t.lake()
    lake.manage_snapshots().rollback_to_snapshot(t.snapshots()[0].snapshot_id).commit()
    return t.lake()


def test_rule_4_a_table_that_was_rolled_back_is_refused_until_the_ledger_is_rebuilt(table: MakeDomainTable) -> None:
    from include.offload.recovery import rebuild

    t = table().fill(0, 1)
    t.run()
    t.fill(3)
    t.run()
    t.fill(5)
    plan = t.check().plan.plan_id
    assert rolled_back(t).scan().count() == 20
    assert refusal(lambda: t.ship(plan)) is TARGET_ROLLED_BACK
    assert refusal(t.check) is TARGET_ROLLED_BACK
    rebuilt = rebuild(t.ctx, t.spec)
    assert (rebuilt.rows, rebuilt.windows) == (20, 2)
    assert refusal(lambda: t.ship(plan)) is PLAN_SUPERSEDED
    assert t.run().rows == 20
    assert t.lake_ids() == t.source_ids()


def test_rule_4_a_roll_back_is_undone_without_a_rebuild_and_without_clickhouse_s_old_rows(
    table: MakeDomainTable,
) -> None:
    """What ClickHouse has forgotten comes back too, a plan from before lands, what came between is kept by a tag."""
    from include.offload.recovery import restore_main, to_undo

    t = table().fill(0, 1)
    t.run()
    t.fill(3)
    t.run()
    whole = t.lake_ids()
    t.fill(5)
    plan = t.check().plan.plan_id
    assert to_undo(t.ctx, t.spec).nothing
    rolled_back(t).append(foreign_row(t))
    t.mutate(f"DELETE WHERE id IN ({', '.join(map(str, whole[-10:]))})")
    assert refusal(t.check) is TARGET_ROLLED_BACK
    seen = to_undo(t.ctx, t.spec)
    assert [one.snapshot_id for one in seen.leaving] == [seen.now]
    restore_main(t.ctx, t.spec, seen)
    assert t.lake_ids() == whole
    assert seen.tag is not None
    assert -30 in t.lake_ids(t.lake().snapshot_by_name(seen.tag).snapshot_id)  # type: ignore[union-attr]
    t.ship(plan)
    assert t.run("the next").rows == 0
    assert len(t.lake_ids()) == len(whole) + 10


def test_rule_4_a_roll_back_hidden_behind_a_foreign_append_is_seen(table: MakeDomainTable) -> None:
    from include.offload.recovery import rebuild

    t = table().fill(0)
    t.run()
    t.fill(3)
    t.run()
    rolled_back(t).append(foreign_row(t))
    assert refusal(t.check) is TARGET_ROLLED_BACK
    rebuild(t.ctx, t.spec)
    assert t.run().rows == 10
    assert t.lake_ids() == [-30, *t.source_ids()]
    t.consistent()
    t.unverifiable = "a rebuild counts what the lake holds, the foreign row too"


def deleted(t: DomainTable) -> None:
    t.lake().delete("id > 0")


def overwritten(t: DomainTable) -> None:
    t.lake().overwrite(foreign_row(t))


def created_or_replaced(t: DomainTable) -> None:
    """What CREATE OR REPLACE leaves: UUID and properties, and a history of its own with later sequence numbers."""
    row = foreign_row(t)
    t.lake().manage_snapshots().remove_branch("main").commit()
    t.lake().append(row)
    newest = t.snapshots()[-1]
    assert newest.parent_snapshot_id is None
    assert len(t.snapshots()) > 1


@pytest.mark.parametrize(
    ("act", "kind", "foreign"),
    [
        (deleted, TARGET_ROWS_REMOVED, []),
        (overwritten, TARGET_ROWS_REMOVED, [-30]),
        (created_or_replaced, TARGET_ROLLED_BACK, [-30]),
    ],
)
def test_rule_4_rows_that_another_writer_takes_away_are_refused_until_the_ledger_is_rebuilt(
    table: MakeDomainTable, act: Callable[[DomainTable], None], kind: ErrorKind, foreign: list[int]
) -> None:
    """Before planning and before committing; the rebuild's own marker is what the next walk ends at."""
    from include.offload.recovery import rebuild

    t = table().fill(0, 1)
    t.run()
    t.fill(3)
    plan = t.check().plan.plan_id
    act(t)
    t.lake().append(foreign_row(t, days=60))
    assert refusal(lambda: t.ship(plan)) is kind
    assert refusal(t.check) is kind
    assert rebuild(t.ctx, t.spec).rows == len(foreign) + 1
    assert refusal(lambda: t.ship(plan)) is PLAN_SUPERSEDED
    assert t.run().rows == 30
    assert t.lake_ids() == [-60, *foreign, *t.source_ids()]
    assert t.run().rows == 0
    t.consistent()
    t.unverifiable = "a rebuild counts what the lake holds, the foreign rows too"


def test_a_table_that_was_dropped_and_made_again_by_others_is_refused(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.fill(3)
    plan = t.check().plan.plan_id
    lake = t.lake()
    t.ctx.catalog.drop_table(t.target)
    t.ctx.catalog.create_table(t.target, schema=lake.schema(), partition_spec=lake.spec())
    assert refusal(lambda: t.ship(plan)) is TARGET_ROLLED_BACK
    assert refusal(t.check) is TARGET_ROLLED_BACK
    t.unverifiable = "the lake's table was dropped"


def test_marker_properties_that_someone_removes_are_found_in_the_summaries(table: MakeDomainTable) -> None:
    """Rule 3."""
    t = table().fill(0, 1)
    t.run()
    with t.lake().transaction() as change:
        change.remove_properties(*(k for k in t.lake().properties if k.startswith("offload.")))
    assert not [k for k in t.lake().properties if k.startswith("offload.")]
    t.fill(3)
    assert t.run().rows == 10


def test_expired_snapshots_do_not_look_like_a_roll_back(table: MakeDomainTable) -> None:
    """Rule 4: an ancestry that is cut off by expiry is fine."""
    t = table().fill(0)
    t.run()
    t.fill(2)
    t.run()
    lake = t.lake()
    lake.append(foreign_row(t))
    lake.maintenance.expire_snapshots().by_ids([s.snapshot_id for s in t.snapshots()[:2]]).commit()
    assert len(t.snapshots()) == 1
    t.fill(4)
    assert t.run().rows == 10
    t.verified_beside(foreign=1)
    t.unverifiable = "it holds a foreign row, which the ledger does not count"


def test_context_closes(domain: Domain) -> None:
    ctx = open_context(domain.context().settings)
    assert ctx.ledger.watermark_rows() is not None
    ctx.close()
    ctx.close()
    assert ctx.ledger.watermark_rows() is not None
    ctx.close()
