"""What operators do: rebuild a lost ledger, take a table over, accept a source that was made again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from include.offload.context import Context
from include.offload.errors import (
    LEDGER_DISAGREES,
    LEDGER_OUTDATED,
    PLAN_SUPERSEDED,
    PLAN_UNKNOWN,
    SOURCE_CHANGED_IDENTITY,
    TARGET_FOREIGN,
    TARGET_MISSING,
    TARGET_ROWS_REMOVED,
    TARGET_STILL_THERE,
    TARGET_WITHOUT_MARKER,
    WINDOW_CHANGED,
    ErrorKind,
    OffloadError,
)
from include.offload.ledger.migrate import downgrade, upgrade
from include.offload.planning import Leave
from include.offload.recovery import accept_source, forget, rebuild, take_over
from include.offload.verify import verify
from include.offload.windows import Span
from tests.support.domain import DDL, SPEC, DomainTable, MakeDomainTable
from tests.support.ledgers import MakeLedger, check_end, with_ledger
from tests.support.one_step import one_step

pytestmark = pytest.mark.timeout(120)


def refusal(act: Callable[[], object]) -> ErrorKind:
    with pytest.raises(OffloadError) as refused:
        act()
    return refused.value.kind


def lose(ctx: Context) -> None:
    """Drop the whole schema and make an empty one, as after a disaster without a backup."""
    uri = ctx.settings.ledger()
    ctx.close()
    ctx.__dict__.pop("pipeline", None)
    with psycopg.connect(uri) as c:
        c.execute("DROP SCHEMA offload CASCADE")
    assert refusal(ctx.ledger.check_schema) is LEDGER_OUTDATED
    upgrade(uri)


# ---- rebuild ---------------------------------------------------------------------------------------------------------


def test_a_lost_ledger_is_rebuilt_and_the_next_run_neither_skips_nor_doubles(
    table: MakeDomainTable, ledger: MakeLedger
) -> None:
    ctx = ledger()
    t = with_ledger(table().fill(0, 1, 4), ctx)
    before = t.run()
    t.insert(1, rows=2)
    t.run()
    pipeline = ctx.pipeline
    lose(ctx)
    assert refusal(t.check) is TARGET_FOREIGN, "an empty ledger has another pipeline id"
    t.fill(6).insert(4, rows=1)
    rebuilt = rebuild(ctx, t.spec)
    assert (rebuilt.rows, rebuilt.windows, rebuilt.watermark_us) == (32, 3, before.watermark.watermark_us)
    assert rebuilt.generation >= 1_002
    assert ctx.pipeline == pipeline, "the lake's markers say whose it is"
    run = t.run()
    assert sorted(w.rows for w in run.check.plan.windows) == [10, 11]
    assert run.check.plan.generation == rebuilt.generation + 1
    assert t.lake_ids() == t.source_ids()
    assert not t.run().check.plan.touches_lake
    check_end(t)


def test_rule_22_a_plan_made_before_a_rebuild_never_lands(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.fill(2)
    zombie = t.check().plan.plan_id
    rebuild(t.ctx, t.spec)
    assert refusal(lambda: t.ship(zombie)) is PLAN_SUPERSEDED
    assert refusal(lambda: t.watermark(zombie)) is PLAN_SUPERSEDED
    assert t.run().rows == 10


def test_a_rebuild_of_a_sound_ledger_changes_nothing_but_the_generation(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.insert(1, rows=1)
    run = t.run()
    windows, empty = t.accounted(), t.empty_time()
    for step in (1, 2):
        rebuilt = rebuild(t.ctx, t.spec)
        assert rebuilt.generation == run.watermark.generation + 1_000 * step
        assert t.accounted() == windows
        assert t.empty_time() == empty
    again = t.run()
    assert not again.check.plan.touches_lake
    assert again.check.left == (), "hashes from the lake are those of the source"


def test_a_rebuild_of_a_window_that_never_expires(table: MakeDomainTable) -> None:
    """A TTL of 0 is none: window 0 never expires, of window 1 some rows do."""
    t = table(ddl=f"{DDL} TTL if(id > 15, toDateTime(ts) + INTERVAL 30 DAY, toDateTime(0))").fill(0, 1)
    t.run()
    before = t.expiries()
    assert [e is not None for _, e in sorted(before.items())] == [False, True]
    rebuild(t.ctx, t.spec)
    assert t.expiries() == before
    assert not t.run().check.plan.touches_lake


def test_a_ledger_restored_from_an_old_backup_is_refused_until_it_is_rebuilt(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.fill(2)
    plan = t.run().check.plan.plan_id
    t.domain.ledger(
        "WITH p AS (DELETE FROM offload.attempts WHERE plan_id = %s) DELETE FROM offload.windows WHERE plan_id = %s",
        plan,
        plan,
    )
    t.domain.ledger(
        "UPDATE offload.watermarks w SET plan_id = p.predecessor, generation = 1 FROM offload.plans p"
        " WHERE p.plan_id = %s AND w.table_id = p.table_id",
        plan,
    )
    t.domain.ledger("DELETE FROM offload.plans WHERE plan_id = %s", plan)
    assert refusal(t.check) is LEDGER_DISAGREES
    rebuild(t.ctx, t.spec)
    assert not t.run().check.plan.touches_lake


def test_rebuilding_what_is_not_there_is_refused(table: MakeDomainTable) -> None:
    t = table().fill(0)
    assert refusal(lambda: rebuild(t.ctx, t.spec)) is TARGET_MISSING
    t.run()


def test_a_table_that_others_filled_is_refused(table: MakeDomainTable) -> None:
    """Rule 3: data, but no marker anywhere."""
    other, t = table().fill(0), table().fill(0)
    other.run()
    lake = other.lake()
    t.ctx.catalog.create_table(t.target, schema=lake.schema(), partition_spec=lake.spec()).append(
        lake.scan().to_arrow()
    )
    assert refusal(t.check) is TARGET_WITHOUT_MARKER
    assert refusal(lambda: rebuild(t.ctx, t.spec)) is TARGET_WITHOUT_MARKER
    assert t.lake_ids() == other.lake_ids()
    t.unverifiable = "it was never offloaded"


def test_a_dropped_iceberg_table_is_refused_not_made_again(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.ctx.catalog.drop_table(t.target)
    assert refusal(t.check) is TARGET_MISSING
    assert not t.exists()
    t.unverifiable = "the lake's table was dropped"


def test_a_table_that_was_dropped_on_purpose_begins_anew_by_command(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    first = t.run()
    forgotten_plan = t.fill(2).check().plan
    assert refusal(lambda: forget(t.ctx, t.spec)) is TARGET_STILL_THERE
    t.ctx.catalog.drop_table(t.target)
    assert refusal(t.check) is TARGET_MISSING
    assert forget(t.ctx, t.spec).rows == first.rows
    assert refusal(lambda: t.ship(forgotten_plan.plan_id)) is PLAN_SUPERSEDED
    assert not t.exists()
    again = t.run()
    assert again.rows > first.rows
    assert again.check.plan.generation > first.check.plan.generation


def test_down_and_up_again_leaves_an_empty_ledger(ledger: MakeLedger) -> None:
    ctx = ledger()
    uri = ctx.settings.ledger()
    ctx.ledger.check_schema()
    ctx.close()
    downgrade(uri, "base")
    assert refusal(ctx.ledger.check_schema) is LEDGER_OUTDATED
    upgrade(uri)
    upgrade(uri)
    ctx.ledger.check_schema()
    assert ctx.ledger.watermark_rows() == []


# ---- another pipeline ------------------------------------------------------------------------------------------------


def test_rule_2_another_pipeline_s_table_is_refused_until_it_is_taken_over(
    table: MakeDomainTable, ledger: MakeLedger
) -> None:
    t = table().fill(0, 1)
    ours = t.run()
    other = with_ledger(t, ledger())
    t.fill(3)
    mine = t.check().plan.plan_id
    assert refusal(other.check) is TARGET_FOREIGN
    assert refusal(lambda: other.ship(mine)) is PLAN_UNKNOWN
    taken = take_over(other.ctx, other.spec)
    assert (taken.rows, taken.watermark_us) == (20, ours.watermark.watermark_us)
    assert other.ctx.pipeline != t.ctx.pipeline
    run = other.run()
    assert run.rows == 10
    check_end(other)
    # and now the first one is the stranger
    assert refusal(t.check) is TARGET_FOREIGN
    assert refusal(lambda: t.ship(mine)) is TARGET_FOREIGN
    assert refusal(lambda: t.watermark(mine)) is TARGET_FOREIGN
    assert len(t.snapshots()) == 3


def test_a_pipeline_with_a_history_of_its_own_does_not_slip_into_another_s_identity(
    table: MakeDomainTable, ledger: MakeLedger
) -> None:
    """`ledger rebuild` takes on the id of the lake's markers only when this ledger never committed anything."""
    theirs = table().fill(0)
    theirs.run()
    ctx = ledger()
    mine = with_ledger(table().fill(0), ctx)
    mine.run()
    pipeline = ctx.pipeline
    assert refusal(lambda: rebuild(ctx, theirs.spec)) is TARGET_FOREIGN
    assert ctx.ledger.pipeline() == pipeline
    check_end(mine)


# ---- the source is made again ----------------------------------------------------------------------------------------


def make_again(t: DomainTable) -> None:
    t.sql("DROP TABLE {table} SYNC")
    t.sql(DDL)


def test_rule_2_a_source_that_was_dropped_and_made_again_is_refused_until_it_is_accepted(
    table: MakeDomainTable,
) -> None:
    t = table().fill(0, 1)
    t.run()
    t.sql(f"CREATE TABLE {t.source.rstrip('`')}_copy` AS {t.source}")
    t.sql(f"INSERT INTO {t.source.rstrip('`')}_copy` SELECT * FROM {{table}}")
    t.sql(f"EXCHANGE TABLES {{table}} AND {t.source.rstrip('`')}_copy`")
    t.sql(f"DROP TABLE {t.source.rstrip('`')}_copy` SYNC")
    t.fill(3)
    t.insert(1, rows=2)
    assert refusal(t.check) is SOURCE_CHANGED_IDENTITY
    accept_source(t.ctx, t.spec)
    run = t.run()
    assert sorted((w.rows, w.ledger_rows) for w in run.check.plan.windows) == [(10, 0), (12, 10)]
    assert t.lake_ids() == t.source_ids()


@pytest.mark.parametrize("deletes", ["keep", "follow"])
def test_accepting_an_emptied_source_keeps_what_the_lake_holds(table: MakeDomainTable, deletes: str) -> None:
    """Also when deletes are followed: a table that was made again has deleted nothing."""
    t = table(f"deletes: {deletes}\n").fill(0, 1)
    t.run()
    make_again(t)
    t.fill(3)
    accept_source(t.ctx, t.spec)
    run = t.run()
    assert run.rows == 10
    assert {x.reason for x in run.check.left} == {Leave.KEPT}
    assert len(run.check.left) == 2
    assert t.lake_ids() == list(range(1, 31))
    t.verified()
    assert t.run().rows == 0
    t.consistent()
    t.unverifiable = "verified above; by now its oldest windows are in the lake only"


@pytest.mark.parametrize("deletes", ["keep", "follow"])
def test_rule_2_a_rebuild_on_a_source_that_was_made_again_keeps_what_the_lake_holds(
    table: MakeDomainTable, ledger: Callable[[], Context], deletes: str
) -> None:
    """The ledger is lost, and with it what it knew of the source: the markers know. Also when it is lost once more."""
    ctx = ledger()
    t = with_ledger(table(f"deletes: {deletes}\n").fill(0, 1, 2), ctx)
    t.run()
    make_again(t)
    t.insert(1, rows=3).fill(4)
    for first in (True, False):
        lose(ctx)
        rebuild(ctx, t.spec)
        run = t.run()
        assert run.rows == (10 if first else 0)
        assert {x.reason for x in run.check.left} <= {Leave.SHRUNK, Leave.EXPIRING, Leave.KEPT}
        assert len(run.check.left) == 3
        assert t.lake_ids() == [*range(1, 31), *range(34, 44)]


def test_what_the_lake_lost_beyond_the_horizon_is_late_after_a_rebuild_not_before_the_start(
    table: MakeDomainTable,
) -> None:
    """Accounting goes on where it began; what is missing is counted, verify is not content, and reconcile heals it."""
    t = table(spec=SPEC.replace("horizon: 2d", "horizon: 1h")).fill(0, 30, 60)
    t.run()
    t.lake().delete("id <= 10")
    assert refusal(t.check) is TARGET_ROWS_REMOVED
    rebuild(t.ctx, t.spec)
    run = t.run()
    assert run.check.seen.look.late_rows == 10
    assert run.check.seen.look.rows_before_start == 0
    assert not verify(t.ctx, t.spec).ok
    assert t.run(from_us=t.at(0), to_us=t.at(1)).rows == 10
    assert t.lake_ids() == t.source_ids()


def test_a_rebuild_that_dies_between_marker_and_ledger_is_done_again(table: MakeDomainTable, tmp_path: Path) -> None:
    t = table().fill(0, 1)
    t.run()
    t.insert(1, rows=2).insert(3)
    (tmp_path / "rebuild-planted").touch()
    assert one_step(tmp_path, "rebuild", t.identity) == -signal.SIGKILL
    assert not list(tmp_path.iterdir())
    assert refusal(t.check) is LEDGER_DISAGREES
    rebuild(t.ctx, t.spec)
    assert t.run().rows == 22
    assert t.lake_ids() == t.source_ids()


def test_verify_leaves_out_only_the_windows_that_a_recovery_marked(table: MakeDomainTable) -> None:
    """What lies before them is compared as ever."""
    t = table().fill(0, 2, 4)
    t.run()
    t.mutate(f"DELETE WHERE ts >= fromUnixTimestamp64Micro(toInt64({t.at(2)})) AND id % 2 = 0 AND id <= 20")
    assert accept_source(t.ctx, t.spec).kept == 1
    left_out = (Span(t.at(2), t.at(3)),)
    assert t.verified().left_out == left_out
    t.mutate("UPDATE size = size + 1 WHERE id = 3")
    report = verify(t.ctx, t.spec)
    assert [d.source.window for d in report.differences] == [t.number(0)]
    assert not all(s.equal for s in report.sums), "PyIceberg sees it too"
    assert t.run().rows == 10
    assert t.verified().left_out == left_out
    with pytest.raises(OffloadError, match="begun to expire"):
        verify(t.ctx, t.spec, t.at(2), t.at(3))


def test_what_is_frozen_for_a_table_does_not_change_by_editing_the_spec(table: MakeDomainTable) -> None:
    """Rule 6: cursor and width."""
    t = table().fill(0)
    t.run()
    t.write_spec(SPEC.replace("window: 5m", "window: 10m"))
    assert refusal(t.check) is WINDOW_CHANGED
    t.write_spec(SPEC)
    assert t.run().rows == 0
