"""Which plans a run announces: its own, and those before it that landed and that no run lived to announce (rule 21)."""

from __future__ import annotations

from datetime import datetime

import pytest

from include.offload.recovery import rebuild
from include.orchestration.assets import BACKFILL_RUN, unannounced
from tests.support.domain import MakeDomainTable

pytestmark = pytest.mark.timeout(120)


def test_rule_21_all_plans_of_runs_that_died_in_a_row_are_announced_by_the_next_that_lives(
    table: MakeDomainTable,
) -> None:
    """The chain is walked back to the first plan that was announced; a rebuild's plan, without rows, is passed over."""
    t = table().fill(0)
    told = t.run().check.plan
    dead = []
    for window in (1, 2):
        t.fill(window)
        dead.append(t.run().check.plan)
    rebuild(t.ctx, t.spec)
    t.fill(3)
    newest = t.run().check.plan

    def known(since: datetime) -> set[str]:
        return {str(told.plan_id)}

    found = [p.plan_id for p in unannounced(t.ctx.ledger, newest, known)]
    assert found == [p.plan_id for p in reversed(dead)]
    assert unannounced(t.ctx.ledger, told, known) == [], "the first plan follows none"
    oldest = [p.plan_id for p in unannounced(t.ctx.ledger, newest, lambda since: set())]
    assert oldest == [*found, told.plan_id], "and where the chain begins the walk ends"


def test_rule_21_every_plan_of_a_long_backfill_is_announced_and_no_more_runs_that_died_than_before(
    table: MakeDomainTable,
) -> None:
    """The command line ships 25 plans, beyond the 20 runs that are looked back to: each is announced, once."""
    t = table().fill(0)
    told = t.run().check.plan
    shipped = []
    for window in range(1, 26):
        t.fill(window)
        shipped.append(t.run(f"{BACKFILL_RUN}{window}").check.plan)
    t.fill(30)
    newest = t.run().check.plan
    asked: list[datetime] = []

    def known(since: datetime) -> set[str]:
        asked.append(since)
        return {str(told.plan_id)}

    found = [p.plan_id for p in unannounced(t.ctx.ledger, newest, known)]
    assert found == [p.plan_id for p in reversed(shipped)]
    assert len(asked) <= 5, "Airflow is asked for all events since an instant: not once a plan"
