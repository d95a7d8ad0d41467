"""Faults of jobs and of the ledger: killed, forgotten, doubled, cut off. Each returns whether it really happened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from include.offload.errors import OffloadError
from include.offload.ledger.migrate import upgrade
from include.offload.steps import ship, update_watermark
from tests.support.domain import inline, meanwhile, said, spark_submit
from tests.torture.acts import go_on, landed, refused, wired, work
from tests.torture.story import SPARK_POINTS, Fault
from tests.torture.world import World, tried


def losing() -> None:
    """An answer that does not come."""
    raise ConnectionError("reset by peer")


# ---- kills -----------------------------------------------------------------------------------------------------------


def kill(w: World, fault: Fault) -> bool:
    point = fault.kind.removeprefix("kill at ")
    plan = work(w)
    if point == "plan-frozen":
        w.in_process(point, "check", w.table.identity, "killed")
        w.arrive(fault.during)
        return True
    if point in {"windows-written", "ledger-written"}:
        landed(w.ship(plan.plan_id))
        w.in_process(point, "watermark", w.table.identity, str(plan.plan_id))
    else:
        w.in_process(point, "ship", str(plan.plan_id))
    w.arrive(fault.during)
    go_on(w, plan, fault.pick)
    return True


def spark(w: World, fault: Fault) -> bool:
    """The real job, killed at a point or not at all."""
    plan = work(w)
    point = SPARK_POINTS[fault.pick % len(SPARK_POINTS)]
    if point:
        (w.crashes / point).touch()
    done = spark_submit(w.domain, plan.plan_id, w.crashes)
    assert not list(w.crashes.iterdir()), f"{point} was not reached: {done.stderr[-2000:]}"
    if point:
        assert done.returncode != 0, f"killed at {point}, and yet: {done.stdout[-500:]}"
    else:
        assert said(done, "RESULT")[0]["status"] == "committed"
    w.arrive(fault.during)
    go_on(w, plan, fault.pick)
    return True


# ---- forgotten jobs --------------------------------------------------------------------------------------------------


def zombie_first(w: World, fault: Fault) -> bool:
    old = work(w)
    w.arrive(fault.during)
    new = work(w)
    landed(w.ship(old.plan_id))
    refused(w.ship(new.plan_id))
    if fault.pick % 2:
        w.finish(old.plan_id)
    return True


def zombie_late(w: World, fault: Fault) -> bool:
    old = work(w)
    w.arrive(fault.during)
    new = work(w)
    landed(w.ship(new.plan_id))
    if fault.pick % 2:
        w.finish(new.plan_id)
    refused(w.ship(old.plan_id))
    # and one that is older still, whatever became of it
    w.ship(w.plans[fault.pick % len(w.plans)])
    return True


def zombie_in_flight(w: World, fault: Fault) -> bool:
    old = work(w)
    w.fresh()
    asleep = w.table.ctx

    def others_pass() -> None:
        w.table.ctx = w.domain.context()
        w.arrive(fault.during)
        w.run()

    done = tried(lambda: ship(asleep, old.plan_id, meanwhile(others_pass)))
    asleep.close()
    refused(done)
    refused(w.finish(old.plan_id))
    return True


def zombie_after_rebuild(w: World, fault: Fault) -> bool:
    w.landed()
    w.arrive(fault.during)
    old = work(w)
    w.rebuild()
    refused(w.ship(old.plan_id))
    return True


# ---- at once ---------------------------------------------------------------------------------------------------------


def one_plan_twice(w: World, fault: Fault) -> bool:
    plan = work(w)
    codes = w.at_once(*[("ship", str(plan.plan_id))] * 2)
    assert 0 in codes, "neither of two jobs of one plan landed it"
    w.arrive(fault.during)
    if fault.pick % 2:
        w.finish(plan.plan_id)
    return True


def two_plans(w: World, fault: Fault) -> bool:
    one = work(w)
    w.arrive(fault.during)
    two = work(w)
    codes = w.at_once(("ship", str(one.plan_id)), ("ship", str(two.plan_id)))
    assert sorted(codes) == [0, 1], f"of two plans with one predecessor exactly one lands, not {codes}"
    return True


def watermark_twice(w: World, fault: Fault) -> bool:
    plan = work(w)
    landed(w.ship(plan.plan_id))
    w.arrive(fault.during)
    codes = w.at_once(*[("watermark", w.table.identity, str(plan.plan_id))] * 2)
    assert 0 in codes, "neither of two tasks recorded the plan"
    return True


# ---- the ledger ------------------------------------------------------------------------------------------------------


def ledger_lost(w: World, fault: Fault) -> bool:
    if fault.pick % 2:
        work(w)
    w.table.ctx.close()
    w.domain.terminate()
    w.domain.ledger("DROP SCHEMA offload CASCADE")
    upgrade(w.domain.uri)
    w.watermark = None
    w.arrive(fault.during)
    if fault.pick % 3:
        w.rebuild()
    return True


def ledger_restored(w: World, fault: Fault) -> bool:
    """From a copy made before a plan, with the plan, or with what its attempt shipped."""
    name, copy = w.domain.name, f"{w.domain.name}_copy"

    def back_up() -> None:
        w.table.ctx.close()
        w.domain.terminate()
        w.domain.postgres("CREATE DATABASE {} TEMPLATE {} OWNER offload_ledger", copy, name)

    stage = fault.pick % 3
    if stage == 0:
        back_up()
    plan = work(w)
    if stage == 1:
        back_up()
    landed(w.ship(plan.plan_id))
    if stage == 2:
        back_up()
    if fault.pick % 2:
        w.finish(plan.plan_id)
        w.arrive(fault.during)
        w.run()
    else:
        w.arrive(fault.during)
    w.table.ctx.close()
    w.domain.postgres("DROP DATABASE {} WITH (FORCE)", name)
    w.domain.postgres("ALTER DATABASE {} RENAME TO {}", copy, name)
    w.watermark = None
    return True


def backends(w: World, fault: Fault) -> bool:
    plan = work(w)
    if fault.pick % 3 == 0:
        done = w.ship(plan.plan_id, meanwhile(w.domain.terminate))
    elif fault.pick % 3 == 1:
        with wired(w, before=w.domain.terminate) as wire:
            done = tried(lambda: ship(w.table.ctx, plan.plan_id, inline))
            assert wire.sent
    else:
        with storm(w):
            done = w.ship(plan.plan_id)
    w.arrive(fault.during)
    if isinstance(done, OffloadError):
        assert done.kind.retry, str(done)
        go_on(w, plan, fault.pick // 3)
        return True
    w.fresh()
    with storm(w):
        recorded = tried(lambda: update_watermark(w.table.ctx, w.table.spec, plan.plan_id))
    assert not isinstance(recorded, OffloadError) or recorded.kind.retry, str(recorded)
    return True


@contextmanager
def storm(w: World) -> Iterator[None]:
    """Sessions of the ledger end again and again."""
    over = threading.Event()

    def blow() -> None:
        while not over.wait(0.01):
            w.domain.terminate()

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# ---- the wire --------------------------------------------------------------------------------------------------------


def answer_lost(w: World, fault: Fault) -> bool:
    plan = work(w)
    with wired(w, after=losing) as wire:
        landed(tried(lambda: ship(w.table.ctx, plan.plan_id, inline)))
        assert wire.sent == ["commit"]
    w.arrive(fault.during)
    return True


def request_lost(w: World, fault: Fault) -> bool:
    plan = work(w)
    with wired(w, before=losing):
        done = tried(lambda: ship(w.table.ctx, plan.plan_id, inline))
    assert isinstance(done, OffloadError) and done.kind.retry, f"{done}"
    w.arrive(fault.during)
    go_on(w, plan, fault.pick)
    return True


# ---- no fault at all, but often the cause of one ---------------------------------------------------------------------


def rows_while_reading(w: World, fault: Fault) -> bool:
    landed(w.ship(work(w).plan_id, meanwhile(lambda: w.arrive(fault.during))))
    return True


def merge_while_reading(w: World, fault: Fault) -> bool:
    w.arrive(fault.during)
    landed(w.ship(work(w).plan_id, meanwhile(w.merge)))
    return True


def forced(w: World, fault: Fault) -> bool:
    """A range that was asked for by hand, shipped again though nothing changed."""
    w.run()
    w.arrive(fault.during)
    lo = w.table.at(-20 + fault.pick % 60)
    w.run(from_us=lo, to_us=lo + 3_600_000_000 * (1 + fault.pick % 3), force=True)
    return True


def cleared(w: World, fault: Fault) -> bool:
    """The same run again, and again."""
    w.run("cleared")
    w.arrive(fault.during)
    w.run("cleared")
    w.run("cleared")
    return True
