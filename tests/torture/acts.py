"""What every fault is made of: a plan with rows, a job that must land or must not, and a task whose wire is tapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from include.offload.errors import PLAN_SUPERSEDED, OffloadError
from include.offload.model import Outcome, Plan
from tests.support.faulty import Faulty
from tests.torture.world import World


def refused(done: object) -> None:
    """Whoever was passed must not land."""
    assert isinstance(done, OffloadError), f"a plan that was passed ended with {done}"
    assert done.kind is PLAN_SUPERSEDED, str(done)


def landed(done: Outcome | OffloadError) -> None:
    """Nothing stood in its way."""
    if isinstance(done, OffloadError):
        raise AssertionError("a job that nothing disturbed was refused") from done


class NothingToShipError(Exception):
    """Rows arrived, and all of them into windows that the plan said it leaves as they are."""


def work(w: World) -> Plan:
    """A plan with rows. Raises NothingToShipError."""
    plan = w.plan()
    if w.kept and not plan.touches_lake:
        raise NothingToShipError
    assert plan.touches_lake, "the rows that arrived are in no plan"
    return plan


def go_on(w: World, plan: Plan, pick: int) -> None:
    """What comes after a failed job: the task tried again, a whole new run, or nothing yet."""
    if pick % 3 == 0:
        done = w.ship(plan.plan_id)
        if not isinstance(done, OffloadError):
            w.finish(plan.plan_id)
    elif pick % 3 == 1:
        w.run()


@contextmanager
def wired(w: World, **happens: Callable[[], object]) -> Iterator[Faulty]:
    """A task whose catalog has something happen around its first commit."""
    w.fresh()
    wire = Faulty(w.table.ctx.catalog, **happens)
    w.table.ctx.__dict__["catalog"] = wire
    yield wire
