"""A table that is three days behind: bounded plans, oldest first, each row once; one backfill at a time."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from include.offload.errors import BACKFILL_RUNNING, OffloadError
from include.offload.ledger.claims import CLAIM_KEY, claimed
from include.offload.ledger.store import ALONE_KEY
from include.offload.steps import CheckResult, RunRequest, check_extent, ship, update_watermark
from include.offload.windows import Span
from tests.support.airflow_driver import poll
from tests.support.domain import Domain, DomainTable, MakeDomainTable, inline

pytestmark = pytest.mark.timeout(180)

DAYS = 3
A_DAY = 288
"""Windows of five minutes in a day."""
APART = 24
"""A window with rows every two hours: three days are 36 of them."""
WINDOWS = range(-DAYS * A_DAY, 0, APART)
ROWS = 10
BOUND = 90
"""Rows of a plan: nine windows with rows, so three days are four plans."""


def behind(make: MakeDomainTable, more: str = f"plan: {{rows: {BOUND}}}\n") -> DomainTable:
    """Three days of history that nobody offloaded."""
    t = make(more)
    first = t.at(WINDOWS[0])
    t.sql(
        "INSERT INTO {table} (ts, id, sym) SELECT"
        f" fromUnixTimestamp64Micro(toInt64({first}) + intDiv(number, {ROWS}) * {APART} * 300000000"
        f" + number % {ROWS} * 1000000, 'UTC'), number, 'a' FROM numbers({len(WINDOWS) * ROWS})"
    )
    return t


def plans(t: DomainTable, span: Span) -> Iterator[CheckResult]:
    """What a backfill does, without Spark: one bounded plan after the other, each shipped."""
    at = span.lo
    while True:
        checked = check_extent(t.ctx, t.spec, RunRequest("backfill", at, span.hi, bounded=True))
        if checked.plan.touches_lake:
            ship(t.ctx, checked.plan.plan_id, inline)
        update_watermark(t.ctx, t.spec, checked.plan.plan_id)
        yield checked
        if checked.cut_us is None:
            return
        at = checked.cut_us


def whole(t: DomainTable) -> Span:
    return Span(t.at(WINDOWS[0]), t.at(WINDOWS[-1] + 1))


def test_three_days_catch_up_in_bounded_runs_oldest_first(table: MakeDomainTable) -> None:
    """Scheduled runs: each says where it was cut, until one is not."""
    t = behind(table)
    shipped, cuts = [], []
    for _ in range(len(WINDOWS)):
        run = t.run()
        assert run.rows <= BOUND
        shipped.append(run.rows)
        assert t.lake_ids() == t.source_ids()[: sum(shipped)], "the oldest first, each once"
        if run.check.cut_us is None:
            break
        cuts.append(run.check.cut_us)
        assert run.watermark.watermark_us == run.check.cut_us, "the next begins where this one was cut"
    assert shipped == [BOUND] * 4
    assert cuts == sorted(set(cuts))
    assert t.lake_ids() == t.source_ids()


def test_bytes_bound_a_plan_as_rows_do(table: MakeDomainTable) -> None:
    """A megabyte, the least that a spec may say, of rows of 20 kB each: a plan takes at most about 50."""
    t = table("plan: {bytes: 1MiB}\n")
    for window in range(-9, 0):
        t.insert(window, rows=20, note="x")
    t.sql("INSERT INTO {table} (ts, id, sym, note) SELECT ts, id + 1000, sym, repeat('y', 40000) FROM {table}")
    first = t.run()
    assert first.check.cut_us is not None
    assert any("plan.bytes is 1,048,576" in line for line in first.check.notes)
    assert 0 < first.rows <= 80
    rows = [first.rows]
    while rows[-1]:
        rows.append(t.run().rows)
    assert sum(rows) == 360
    assert t.lake_ids() == t.source_ids()


def test_a_backfill_of_three_days_is_a_chain_of_bounded_plans(table: MakeDomainTable) -> None:
    t = behind(table)
    done = list(plans(t, whole(t)))
    assert [c.plan.rows for c in done] == [BOUND] * 4
    for before, after in zip(done, done[1:], strict=False):
        assert after.plan.predecessor == before.plan.plan_id
        assert after.plan.scan.lo == before.plan.scan.hi
    assert t.lake_ids() == t.source_ids()


def test_the_second_start_passes_over_what_is_shipped_by_hash(table: MakeDomainTable) -> None:
    """Stopped after two plans; meanwhile a shipped window changed: that one is replaced, the others are left alone."""
    t = behind(table)
    first = plans(t, whole(t))
    next(first), next(first)
    first.close()
    assert len(t.lake_ids()) == 2 * BOUND
    t.insert(WINDOWS[1], rows=3)
    again = list(plans(t, whole(t)))
    assert sum(c.plan.rows for c in again) == 2 * BOUND + ROWS + 3
    replaced = [w for c in again for w in c.plan.windows if w.action == "replace"]
    assert [w.window for w in replaced] == [t.number(WINDOWS[1])]
    assert t.lake_ids() == t.source_ids()
    snapshots = len(t.snapshots())
    assert all(not c.plan.touches_lake for c in plans(t, whole(t)))
    assert len(t.snapshots()) == snapshots, "a third start commits nothing"


def test_a_range_that_was_shipped_is_bounded_too(table: MakeDomainTable) -> None:
    """Where every window changed, a plan replaces no more than a run may ship."""
    t = behind(table, "plan: {rows: 1000}\n")
    assert t.run().rows == len(WINDOWS) * ROWS
    t.mutate("UPDATE note = 'changed' WHERE true")
    t.write_spec(more=f"plan: {{rows: {BOUND}}}\n")
    done = list(plans(t, whole(t)))
    assert [c.plan.rows for c in done] == [BOUND] * 4
    assert {w.action for c in done for w in c.plan.windows} == {"replace"}
    assert t.lake_ids() == t.source_ids()


def test_the_schedule_may_land_in_between(table: MakeDomainTable) -> None:
    """A run of the DAG between two plans of a backfill: both go on, and no window is there twice."""
    t = behind(table)
    first = plans(t, whole(t))
    next(first)
    assert t.run().rows == BOUND
    assert [c.plan.rows for c in first] == [0, BOUND, BOUND]
    assert t.lake_ids() == t.source_ids()


# ---- one at a time ---------------------------------------------------------------------------------------------------


def test_a_second_backfill_of_a_table_is_refused_and_told_who_has_it(table: MakeDomainTable, domain: Domain) -> None:
    t, other = table(), table()
    t.unverifiable = other.unverifiable = "nothing is offloaded"
    ours, theirs = domain.context(), domain.context()
    try:
        with claimed(ours.ledger, t.identity):
            with pytest.raises(OffloadError) as refused, claimed(theirs.ledger, t.identity):
                pass
            assert refused.value.kind is BACKFILL_RUNNING
            assert "offload backfill, process " in refused.value.cause
            with claimed(theirs.ledger, other.identity):
                pass
        with claimed(theirs.ledger, t.identity):
            pass
    finally:
        ours.close()
        theirs.close()


def test_a_dead_lock_session_fails_nobody_and_is_taken_again(table: MakeDomainTable, domain: Domain) -> None:
    """PostgreSQL ends the session that holds the lock: the plan of the moment lands, and the lock comes back."""
    t = table().fill(0)
    ours, theirs = domain.context(), domain.context()
    try:
        with claimed(ours.ledger, t.identity) as claim:
            end_holders(domain)
            t.run()
            claim.sure()
            with pytest.raises(OffloadError) as refused, claimed(theirs.ledger, t.identity):
                pass
            assert refused.value.kind is BACKFILL_RUNNING
            end_holders(domain)
        with claimed(ours.ledger, t.identity) as claim:
            end_holders(domain)
            with claimed(theirs.ledger, t.identity), pytest.raises(OffloadError) as lost:
                claim.sure()
            assert lost.value.kind is BACKFILL_RUNNING
    finally:
        ours.close()
        theirs.close()
    assert t.lake_ids() == t.source_ids()


def end_holders(domain: Domain) -> None:
    """End every session that holds the lock of a backfill, and wait until PostgreSQL has."""
    held = f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = {CLAIM_KEY}"
    assert domain.ledger(f"SELECT pg_terminate_backend(pid) FROM ({held}) held")  # noqa: S608
    poll(lambda: not domain.ledger(held), 10, "a session outlived its end", every_s=0.05)


def test_the_session_that_makes_the_table_alone_may_die_when_it_is_made(table: MakeDomainTable, domain: Domain) -> None:
    """`alone` guards the creation; that its session died meanwhile is no reason to fail the job."""
    t = table().fill(0)
    t.check()
    with t.ctx.ledger.alone(t.identity):
        ended = domain.ledger(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE locktype = 'advisory'"
            " AND pid <> pg_backend_pid() AND classid::bigint = %s",
            ALONE_KEY,
        )
        assert ended
    with t.ctx.ledger.begin() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    t.run()
