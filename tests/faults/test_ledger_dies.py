"""The ledger's PostgreSQL dies by SIGKILL at each moment of a run, and comes back: nothing is lost, nothing is doubled.

The server is the test's own. What is lost with its data, or restored from a backup:
tests/integration/test_domain_recovery.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from include.offload.errors import LEDGER_UNREACHABLE, OffloadError
from include.offload.lake.shipping import SliceTask
from include.offload.model import ShippedFile
from tests.support.domain import Domain, DomainTable, MakeDomainTable, inline, meanwhile
from tests.support.faulty import Faulty
from tests.support.ledgers import check_end, with_ledger
from tests.support.own_postgres import OwnPostgres, own_postgres

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    with own_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def t(table: MakeDomainTable, domain: Domain, postgres: OwnPostgres) -> Iterator[DomainTable]:
    """A table whose next plan appends a window and replaces another. Both verifiers read it when the test ends."""
    postgres.start()
    ctx = domain.context(ledger_uri=postgres.uri)
    t = with_ledger(table().fill(0, 1), ctx)
    t.run()
    yield t.insert(1, rows=1).insert(3, rows=10)
    t.run("one more")
    check_end(t)
    assert t.lake_ids() == t.source_ids()
    ctx.close()


def away(act: Callable[[], object]) -> None:
    with pytest.raises(OffloadError) as refused:
        act()
    assert refused.value.kind is LEDGER_UNREACHABLE, str(refused.value)
    assert refused.value.kind.retry


def planned(t: DomainTable) -> uuid.UUID:
    return t.check("the run").plan.plan_id


def while_planning(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    with postgres.dies_at_a_write_to("offload.plans"):
        away(lambda: t.check("the run"))
    postgres.start()
    return planned(t)


def before_the_job(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    plan = planned(t)
    postgres.kill()
    away(lambda: t.ship(plan))
    return plan


def while_reading(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    plan = planned(t)
    away(lambda: t.ship(plan, meanwhile(postgres.kill)))
    return plan


def when_all_is_read(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    plan = planned(t)

    def read(slices: Sequence[SliceTask]) -> Iterable[ShippedFile]:
        files = list(inline(slices))
        postgres.kill()
        return files

    away(lambda: t.ship(plan, read))
    return plan


def writing_what_was_shipped(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    plan = planned(t)
    with postgres.dies_at_a_write_to("offload.attempts"):
        away(lambda: t.ship(plan))
    return plan


def while_committing(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    """The commit itself needs no ledger; what was shipped is in it already, and survives."""
    plan = planned(t)
    real = t.ctx.catalog
    t.ctx.__dict__["catalog"] = Faulty(real, before=postgres.kill)
    assert t.ship(plan).status == "committed"
    t.ctx.__dict__["catalog"] = real
    away(lambda: t.watermark(plan))
    return plan


def before_the_watermark(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    plan = planned(t)
    assert t.ship(plan).status == "committed"
    postgres.kill()
    away(lambda: t.watermark(plan))
    return plan


def windows_written_watermark_not(t: DomainTable, postgres: OwnPostgres) -> uuid.UUID:
    plan = planned(t)
    assert t.ship(plan).status == "committed"
    with postgres.dies_at_a_write_to("offload.watermarks"):
        away(lambda: t.watermark(plan))
    return plan


@dataclass(frozen=True)
class Death:
    """`landed`: the commit is in the lake all the same."""

    die: Callable[[DomainTable, OwnPostgres], uuid.UUID]
    landed: bool = False


DEATHS = [
    Death(while_planning),
    Death(before_the_job),
    Death(while_reading),
    Death(when_all_is_read),
    Death(writing_what_was_shipped),
    Death(while_committing, landed=True),
    Death(before_the_watermark, landed=True),
    Death(windows_written_watermark_not, landed=True),
]


def name_of(death: Death) -> str:
    return death.die.__name__.replace("_", " ")


@pytest.mark.parametrize("death", DEATHS, ids=name_of)
def test_the_same_step_tried_again_finishes(t: DomainTable, postgres: OwnPostgres, death: Death) -> None:
    plan = death.die(t, postgres)
    assert len(t.snapshots()) == (2 if death.landed else 1)
    postgres.start()
    assert t.ship(plan).status == ("already-committed" if death.landed else "committed")
    result = t.watermark(plan)
    assert (result.emitted, result.rows) == (True, 21)
    assert not t.watermark(plan).emitted
    assert len(t.snapshots()) == 2


@pytest.mark.parametrize("death", [DEATHS[2], DEATHS[4], DEATHS[7]], ids=name_of)
def test_the_next_run_picks_up_what_was_left(t: DomainTable, postgres: OwnPostgres, death: Death) -> None:
    death.die(t, postgres)
    postgres.start()
    t.insert(5, rows=3)
    assert t.run("the next run").rows == (3 if death.landed else 24)
    assert len(t.snapshots()) == (3 if death.landed else 2)


def test_a_ledger_that_is_back_in_time_is_not_missed(t: DomainTable, postgres: OwnPostgres) -> None:
    """It was killed and came back while ClickHouse was read: the connections that it took along are made again."""
    plan = planned(t)
    assert t.ship(plan, meanwhile(postgres.kill_and_start)).status == "committed"
    postgres.kill_and_start()
    assert t.watermark(plan).emitted
    assert len(t.snapshots()) == 2
