"""A process that dies at any of the named points: the next try, and the next run, lose nothing and double nothing."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

import pytest

from tests.support.domain import DomainTable, MakeDomainTable
from tests.support.one_step import one_step

pytestmark = pytest.mark.timeout(180)
IN_SHIP = ("mid-stream", "file-uploaded", "audited", "before-commit", "after-commit")


def crash(crash_dir: Path, point: str, *arguments: str) -> None:
    """A step that dies at `point`."""
    (crash_dir / point).touch()
    assert one_step(crash_dir, *arguments) == -signal.SIGKILL
    assert not list(crash_dir.iterdir()), "the point was never reached"


def crashed_ship(t: DomainTable, crash_dir: Path, point: str) -> uuid.UUID:
    """A run whose job died at `point`; its plan."""
    check = t.check("the run")
    assert check.plan.rows == 21
    crash(crash_dir, point, "ship", str(check.plan.plan_id))
    return check.plan.plan_id


def changed_table(table: MakeDomainTable) -> DomainTable:
    """A table whose next plan appends a window and replaces another."""
    t = table().fill(0, 1)
    t.run()
    return t.insert(1, rows=1).insert(3, rows=10)


@pytest.mark.parametrize("point", IN_SHIP)
def test_the_same_job_tried_again_finishes(table: MakeDomainTable, tmp_path: Path, point: str) -> None:
    t = changed_table(table)
    plan = crashed_ship(t, tmp_path, point)
    landed = point == "after-commit"
    assert len(t.snapshots()) == (2 if landed else 1)
    outcome = t.ship(plan)
    assert outcome.status == ("already-committed" if landed else "committed")
    assert outcome.rows == 21
    assert t.watermark(plan).emitted
    assert len(t.snapshots()) == 2
    assert t.lake_ids() == t.source_ids()


@pytest.mark.parametrize("point", IN_SHIP)
def test_the_next_run_picks_up_what_the_dead_one_left(table: MakeDomainTable, tmp_path: Path, point: str) -> None:
    t = changed_table(table)
    plan = crashed_ship(t, tmp_path, point)
    t.insert(5, rows=3)
    run = t.run("the next run")
    assert run.rows == (3 if point == "after-commit" else 24)
    assert t.lake_ids() == t.source_ids()
    assert len(t.snapshots()) == (3 if point == "after-commit" else 2)
    assert t.plan_status(plan) == ("committed" if point == "after-commit" else "superseded")


@pytest.mark.parametrize("point", IN_SHIP)
def test_the_very_first_job_may_die_too(table: MakeDomainTable, tmp_path: Path, point: str) -> None:
    """Then the Iceberg table may stand there without a snapshot, or with one that the ledger does not know."""
    t = table().fill(0, 1)
    check = t.check("the run")
    crash(tmp_path, point, "ship", str(check.plan.plan_id))
    run = t.run("the next run")
    assert run.rows == (0 if point == "after-commit" else 20)
    assert t.lake_ids() == t.source_ids()
    assert len(t.snapshots()) == 1


def test_a_death_after_planning_leaves_a_plan_that_nobody_ships(table: MakeDomainTable, tmp_path: Path) -> None:
    t = table().fill(0, 1)
    crash(tmp_path, "plan-frozen", "check", t.identity, "the run")
    assert t.run("the run").rows == 20
    assert len(t.snapshots()) == 1


def test_a_death_after_the_ledger_was_written_changes_nothing(table: MakeDomainTable, tmp_path: Path) -> None:
    t = table().fill(0, 1)
    check = t.check("the run")
    t.ship(check.plan.plan_id)
    crash(tmp_path, "ledger-written", "watermark", t.identity, str(check.plan.plan_id))
    result = t.watermark(check.plan.plan_id)
    assert (result.rows, result.watermark_us) == (20, check.plan.scan.hi)
    assert t.run().rows == 0


def test_a_step_in_a_process_of_its_own_ends_well_when_nothing_kills_it(table: MakeDomainTable, tmp_path: Path) -> None:
    """Else the tests above would pass on any failure."""
    t = table().fill(0)
    plan = str(t.check().plan.plan_id)
    assert one_step(tmp_path, "ship", plan) == 0
    assert one_step(tmp_path, "watermark", t.identity, plan) == 0
    assert t.lake_ids() == t.source_ids()
