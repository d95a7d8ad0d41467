"""A process that dies by SIGKILL anywhere on the path: the next try, and the next run, lose nothing, double nothing.

Most points are hooks in the code (include/offload/crashpoint.py). Two lie between a request and its effect: there a
proxy holds the commit, or the answer to it, while the process is killed. When a test ends, both verifiers read its
table and the ledger is held against the lake.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from include.offload.crashpoint import POINTS
from include.offload.jobwords import Place
from tests.support.domain import DDL, Domain, DomainTable, MakeDomainTable, said, spark_submit
from tests.support.one_step import kill, one_step, start_step
from tests.support.wire import CatalogProxy, Held

pytestmark = pytest.mark.timeout(180)


@dataclass
class Scene:
    """What a death needs at hand."""

    t: DomainTable
    crashes: Path
    proxy: CatalogProxy

    def step_dies(self, point: str, *arguments: str) -> None:
        (self.crashes / point).touch()
        assert one_step(self.crashes, *arguments) == -signal.SIGKILL
        self.fired()

    def fired(self) -> None:
        assert not list(self.crashes.iterdir()), "the point was never reached"


Die = Callable[[Scene, str], uuid.UUID]


def planned(scene: Scene) -> uuid.UUID:
    check = scene.t.check("the run")
    assert check.plan.rows == 21
    return check.plan.plan_id


def in_check(scene: Scene, point: str) -> uuid.UUID:
    scene.step_dies(point, "check", scene.t.identity, "the run")
    ((plan,),) = scene.t.domain.ledger(
        "SELECT plan_id FROM offload.plans JOIN offload.tables USING (table_id)"
        " WHERE identity = %s AND status = 'open'",
        scene.t.identity,
    )
    assert isinstance(plan, uuid.UUID)
    return plan


def in_spark(scene: Scene, point: str) -> uuid.UUID:
    plan = planned(scene)
    (scene.crashes / point).touch()
    done = spark_submit(scene.t.domain, plan, scene.crashes)
    assert done.returncode != 0
    assert "OFFLOAD_RESULT" not in done.stdout
    scene.fired()
    return plan


def in_sparks_driver(scene: Scene, point: str) -> uuid.UUID:
    """The driver ships the slices itself: it dies, and with it the job."""
    plan = planned(scene)
    (scene.crashes / point).touch()
    done = spark_submit(scene.t.domain, plan, scene.crashes, place=Place.DRIVER)
    assert done.returncode != 0
    assert "OFFLOAD_RESULT" not in done.stdout
    assert "OFFLOAD_ERROR" not in done.stdout
    scene.fired()
    return plan


def in_ship(scene: Scene, point: str) -> uuid.UUID:
    plan = planned(scene)
    scene.step_dies(point, "ship", str(plan))
    return plan


def on_the_wire(scene: Scene, point: str) -> uuid.UUID:
    """The commit waits in a proxy while its sender is killed; then it goes its way."""
    plan = planned(scene)
    held = Held(sent_first=point == "answer lost")
    scene.proxy.fault = held
    job = start_step(scene.crashes, "ship", str(plan), **scene.proxy.catalog_environment())
    held.wait()
    before = len(scene.t.snapshots())
    kill(job)
    assert [a.status for a in held.release()] == [200]
    assert len(scene.proxy.commits) == 1
    assert before == (2 if held.sent_first else 1)
    return plan


def in_watermark(scene: Scene, point: str) -> uuid.UUID:
    plan = planned(scene)
    scene.t.ship(plan)
    scene.step_dies(point, "watermark", scene.t.identity, str(plan))
    return plan


@dataclass(frozen=True)
class Death:
    """Where a process dies. `landed`: its commit is in the lake all the same; `recorded`: the ledger knows it."""

    point: str
    die: Die
    landed: bool = False
    recorded: bool = False


DEATHS = {
    "plan frozen": Death("plan-frozen", in_check),
    "Spark started": Death("spark-started", in_spark),
    "mid-stream": Death("mid-stream", in_ship),
    "mid-stream in Spark's driver": Death("mid-stream", in_sparks_driver),
    "file uploaded": Death("file-uploaded", in_ship),
    "audited": Death("audited", in_ship),
    "commit staged": Death("before-commit", in_ship),
    "commit sent": Death("commit sent", on_the_wire, landed=True),
    "commit landed but its answer lost": Death("answer lost", on_the_wire, landed=True),
    "marker written, ledger not": Death("after-commit", in_ship, landed=True),
    "ledger written, watermark not": Death("windows-written", in_watermark, landed=True),
    "watermark written, nobody told": Death("ledger-written", in_watermark, landed=True, recorded=True),
}
ON_THE_WIRE = {"commit sent", "answer lost"}
each_death = pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS.keys())


@pytest.fixture
def scene(table: MakeDomainTable, tmp_path: Path, proxy: CatalogProxy) -> Scene:
    """A table whose next plan appends a window and replaces another."""
    t = table().fill(0, 1)
    t.run()
    return Scene(t.insert(1, rows=1).insert(3, rows=10), tmp_path, proxy)


def test_every_named_point_has_its_death() -> None:
    assert {d.point for d in DEATHS.values()} == {*POINTS, *ON_THE_WIRE}


@each_death
def test_the_same_step_tried_again_finishes(scene: Scene, death: Death) -> None:
    """Rules 13, 16, 17 and 21."""
    t = scene.t
    plan = death.die(scene, death.point)
    assert len(t.snapshots()) == (2 if death.landed else 1)
    if death.die is in_check:
        dead, plan = plan, t.check("the run").plan.plan_id
        assert plan != dead, "a plan is immutable: planning again makes a new one (rule 8)"
    if death.die is not in_watermark:
        outcome = t.ship(plan)
        assert outcome.status == ("already-committed" if death.landed else "committed")
        assert outcome.rows == 21
    result = t.watermark(plan)
    assert (result.emitted, result.rows, result.pending) == (not death.recorded, 21, 0)
    assert len(t.snapshots()) == 2
    assert t.row_count() == 31
    assert t.lake_ids() == t.source_ids()


@each_death
def test_the_next_run_picks_up_what_the_dead_one_left(scene: Scene, death: Death) -> None:
    """Rules 5 and 17: what landed is adopted; what did not land is planned again, and its plan never lands."""
    t = scene.t
    plan = death.die(scene, death.point)
    t.insert(5, rows=3)
    run = t.run("the next run")
    assert run.rows == (3 if death.landed else 24)
    assert len(t.snapshots()) == (3 if death.landed else 2)
    assert t.plan_status(plan) == ("committed" if death.landed else "superseded")
    assert t.lake_ids() == t.source_ids()
    t.run("one more")
    assert len(t.snapshots()) == (3 if death.landed else 2)


@pytest.mark.parametrize("death", [d for d in DEATHS.values() if d.die is in_ship], ids=lambda d: d.point)
def test_the_very_first_job_may_die_too(table: MakeDomainTable, tmp_path: Path, death: Death) -> None:
    """Then the Iceberg table may stand there without a snapshot, or with one that the ledger does not know."""
    t = table().fill(0, 1)
    check = t.check("the run")
    (tmp_path / death.point).touch()
    assert one_step(tmp_path, "ship", str(check.plan.plan_id)) == -signal.SIGKILL
    run = t.run("the next run")
    assert run.rows == (0 if death.landed else 20)
    assert t.lake_ids() == t.source_ids()
    assert len(t.snapshots()) == 1


def test_a_python_worker_of_spark_that_dies_in_a_slice_fails_the_job_and_nothing_else(scene: Scene) -> None:
    """The driver lives on and says so; the next try of the same plan lands."""
    t = scene.t
    plan = planned(scene)
    (scene.crashes / "mid-stream").touch()
    done = spark_submit(t.domain, plan, scene.crashes)
    scene.fired()
    (error,) = said(done, "ERROR")
    assert (done.returncode, error["id"], error["retry"]) == (1, "OFL-504", True)
    assert len(t.snapshots()) == 1
    assert t.ship(plan).rows == 21
    t.watermark(plan)
    assert t.lake_ids() == t.source_ids()


def test_a_step_in_a_process_of_its_own_ends_well_when_nothing_kills_it(
    table: MakeDomainTable, tmp_path: Path, proxy: CatalogProxy, domain: Domain
) -> None:
    """Else the tests above would pass on any failure."""
    t = table().fill(0)
    plan = str(t.check().plan.plan_id)
    assert one_step(tmp_path, "ship", plan, **proxy.catalog_environment()) == 0
    assert len(proxy.commits) == 1
    assert one_step(tmp_path, "watermark", t.identity, plan) == 0
    assert t.lake_ids() == t.source_ids()


def test_what_a_look_saw_go_is_remembered_though_its_check_dies(table: MakeDomainTable, tmp_path: Path) -> None:
    """Rule 18: the mark and the look that no longer sees the loss are one transaction."""
    by_sym = DDL.replace("PARTITION BY toDate(ts)", "PARTITION BY sym")
    t = table("deletes: follow\n", ddl=by_sym).insert(0, sym="a").insert(0, sym="b")
    t.run()
    t.sql("ALTER TABLE {table} DROP PARTITION 'a'")
    (tmp_path / "look-saved").touch()
    assert one_step(tmp_path, "check", t.identity, "dies") == -signal.SIGKILL
    assert not list(tmp_path.iterdir())
    t.run()
    t.run(from_us=t.at(0), to_us=t.at(1), force=True)
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = "ClickHouse lost rows that the lake keeps"
