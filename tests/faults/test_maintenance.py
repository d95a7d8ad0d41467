"""Maintenance by real Spark on real servers: it does its work, and no interleaving with an offload costs a row.

The job runs through `spark-submit`, as an operator does it by hand. A proxy holds its commit where it and an offload
have to meet. When a test ends, both verifiers read its table and the ledger is held against the lake.
"""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from dataclasses import replace

import pytest
from pyiceberg.table.snapshots import Operation

from include.offload.errors import ICEBERG_RUNTIME_MISSING, MAINTENANCE_RUNNING, OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.rewriting import data_path
from include.offload.ledger.care import alone
from include.offload.maintenance.model import Care, MaintenancePlan, plan_from_json
from include.offload.maintenance.planning import MIN_FILES
from include.offload.maintenance.reporting import now_us
from include.offload.maintenance.running import maintain
from include.offload.recovery import accept_source, rebuild
from include.offload.settings import load
from tests.support.airflow_bag import ROOT
from tests.support.care import LIMIT_S, maintained, planned, running
from tests.support.domain import SPEC, Domain, DomainTable, MakeDomainTable, afterwards, said
from tests.support.wire import Answer, CatalogProxy, Request

pytestmark = pytest.mark.timeout(600)

HOURLY = SPEC.replace("day(ts)", "hour(ts)") + "maintenance: {snapshots: 1}\n"
"""Window 0 is six hours ago at a full hour: windows 0 to 11 are one settled partition, 12 to 23 the next."""
RUNS = MIN_FILES
LATER_S = 6 * 86_400
"""All snapshots of a test are old by then."""


class Gate:
    """Holds the first commit that comes through a proxy until it is opened. sent_first: with its answer in hand."""

    def __init__(self, *, sent_first: bool = False, lost: bool = False) -> None:
        self.sent_first = sent_first
        self.lost = lost
        self.came = threading.Event()
        self.opened = threading.Event()

    def __call__(self, request: Request) -> Answer | None:
        answer = request.send() if self.sent_first else None
        self.came.set()
        assert self.opened.wait(LIMIT_S), "nobody opened the gate"
        return None if self.lost else answer or request.send()

    def wait(self) -> None:
        assert self.came.wait(LIMIT_S), "no commit came"


@pytest.fixture
def t(table: MakeDomainTable) -> DomainTable:
    """Two settled hours with just enough small files to be compacted, and one with a single file."""
    made = table(spec=HOURLY)
    made.fill(36)
    for window in range(RUNS):
        made.fill(window, 12 + window)
        made.run()
    return made


def exact(t: DomainTable) -> None:
    assert t.lake_ids() == t.source_ids()
    t.verified()
    t.consistent()


def statuses(t: DomainTable, domain: Domain, plan: MaintenancePlan) -> list[tuple[Care, str]]:
    return [(s.care, s.status) for s in maintained(domain, plan).steps]


def at(plan: MaintenancePlan, care: Care, older_than_us: int) -> MaintenancePlan:
    """The plan with another instant for one of its steps."""
    return replace(
        plan, steps=tuple(replace(s, older_than_us=older_than_us) if s.care is care else s for s in plan.steps)
    )


def test_every_step_does_its_work_and_the_chain_goes_on(t: DomainTable, domain: Domain) -> None:
    """Rules 3 and 4: the marker's snapshot outlives its age, so that a rebuild finds its summary."""
    # not enough of any hour, but of manifests
    for window in (37, 38, 39, 48, 49, 50, 51):
        t.fill(window)
        t.run()
    last = markers.parse(t.lake().properties)
    assert last is not None
    plan = planned(t, Care.COMPACT, Care.MANIFESTS, Care.EXPIRE, later_s=LATER_S)
    result = maintained(domain, plan)
    assert [(s.care, s.status) for s in result.steps] == [
        (Care.COMPACT, "done"),
        (Care.COMPACT, "done"),
        (Care.MANIFESTS, "done"),
        (Care.EXPIRE, "done"),
    ]
    assert (result.before.files - result.after.files) == 2 * RUNS - 2
    assert result.after.manifests < result.before.manifests
    assert result.after.metadata_bytes < result.before.metadata_bytes
    kept = t.snapshots()
    assert kept[0].snapshot_id == last.snapshot_id
    assert [s.summary and s.summary.operation for s in kept[1:]] == [Operation.REPLACE] * 3
    assert markers.recover(t.lake()) == last
    exact(t)
    t.fill(45).insert(3, rows=4)
    assert t.run().rows == 24
    exact(t)
    rebuild(t.ctx, t.spec)
    assert t.run().rows == 0


def test_nothing_to_do_is_seen_in_the_metadata(table: MakeDomainTable) -> None:
    """Fewer small files than are worth a rewrite, few manifests, young snapshots; orphans only the store can show."""
    t = table(spec=HOURLY)
    for window in range(4):
        t.fill(window)
        t.run()
    plan = planned(t)
    assert [s.care for s in plan.steps] == [Care.ORPHANS]
    assert {s.care for s in plan.skipped} == set(Care) - {Care.ORPHANS}


def test_a_file_is_no_orphan_while_four_of_the_longest_jobs_could_run(table: MakeDomainTable) -> None:
    """Rule 13: also where the spec's age is shorter."""
    day_us = 86_400_000_000
    for job_timeout_s, days in ((3600, 3), (86_400, 4)):
        t = table(settings=load(job_timeout_s=job_timeout_s)).fill(0)
        t.run()
        before = now_us()
        (step,) = planned(t, Care.ORPHANS).steps
        assert step.older_than_us is not None
        assert before <= step.older_than_us + days * day_us <= now_us()


def test_the_command_line_says_what_it_would_do(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    dry = [str(ROOT / "bin" / "offload"), "maintain", t.identity, "--dry-run", "--json"]
    done = subprocess.run(dry, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    plan = plan_from_json(done.stdout)
    assert (plan.table, plan.before.files, [s.care for s in plan.steps]) == (t.identity, 1, [Care.ORPHANS])


def test_statistics_are_computed_once_a_snapshot(table: MakeDomainTable, domain: Domain) -> None:
    t = table(spec=SPEC + "maintenance: {statistics: true}\n").fill(0)
    t.run()
    assert statuses(t, domain, planned(t, Care.STATISTICS)) == [(Care.STATISTICS, "done")]
    assert [s.snapshot_id for s in t.lake().metadata.statistics] == [t.lake().metadata.current_snapshot_id]
    assert planned(t, Care.STATISTICS).steps == ()
    t.fill(1)
    assert t.run().rows == 10
    assert len(planned(t, Care.STATISTICS).steps) == 1


# ---- at the same moment ----------------------------------------------------------------------------------------------


def test_an_offload_that_commits_first_wins(t: DomainTable, domain: Domain, proxy: CatalogProxy) -> None:
    """Compaction is about to commit when an offload replaces a window of its files: Iceberg refuses the rewrite."""
    gate = proxy.fault = Gate()
    with running(domain, planned(t, Care.COMPACT), **proxy.catalog_environment()) as job:
        gate.wait()
        t.insert(3, rows=5).fill(37)
        assert t.run().rows == 25
        gate.opened.set()
        steps = job.result().steps
    assert [s.status for s in steps] == ["overtaken", "done"]
    exact(t)
    assert statuses(t, domain, planned(t, Care.COMPACT)) == [(Care.COMPACT, "done")]
    assert len(t.files()) == 4
    exact(t)


def test_an_append_elsewhere_disturbs_nobody(t: DomainTable, domain: Domain, proxy: CatalogProxy) -> None:
    gate = proxy.fault = Gate()
    with running(domain, planned(t, Care.COMPACT), **proxy.catalog_environment()) as job:
        gate.wait()
        t.fill(37)
        assert t.run().rows == 10
        gate.opened.set()
        assert [s.status for s in job.result().steps] == ["done", "done"]
    exact(t)
    assert len(t.files()) == 4


def test_maintenance_between_reading_and_committing_an_offload(t: DomainTable, domain: Domain) -> None:
    """Rule 1: the offload rebases over all of it; rule 13: its files are young, and stay."""
    orphan = data_path(t.lake(), uuid.uuid4(), "00000-0-left")
    with t.lake().io.new_output(orphan).create() as file:
        file.write(b"left by a job that died")
    old = now_us()
    while now_us() < old + 2_000_000:
        # S3 tells the time of a file in seconds
        time.sleep(0.1)
    cut = now_us()
    while now_us() < cut + 1_000_000:
        time.sleep(0.1)
    young = data_path(t.lake(), uuid.uuid4(), "00000-0-young")

    def care() -> None:
        with t.lake().io.new_output(young).create() as file:
            file.write(b"of a job that may live")
        live = set(t.stored()) - set(t.files())
        assert len(live) == 4, "two files of the attempt, the young one and the orphan"
        result = maintained(domain, at(planned(t, later_s=LATER_S), Care.ORPHANS, cut))
        assert {s.status for s in result.steps} == {"done"}
        (orphans,) = (s for s in result.steps if s.care is Care.ORPHANS)
        assert orphans.figures == {"removed_files": 1}
        assert live - set(t.stored()) == {orphan}

    t.insert(3, rows=5).fill(37)
    assert t.run(run_tasks=afterwards(care)).rows == 25
    exact(t)
    assert set(t.files()) < set(t.stored())
    assert young in t.stored()


@pytest.mark.parametrize("landed", [False, True], ids=["before-its-commit", "after-its-commit"])
def test_maintenance_that_is_killed_leaves_nothing_that_the_next_does_not_mend(
    t: DomainTable, domain: Domain, proxy: CatalogProxy, landed: bool
) -> None:
    gate = proxy.fault = Gate(sent_first=landed, lost=True)
    with running(domain, planned(t), **proxy.catalog_environment()) as job:
        gate.wait()
        job.kill()
        gate.opened.set()
    exact(t)
    t.insert(3, rows=5).fill(37)
    assert t.run().rows == 25
    exact(t)
    left = set(t.stored()) - set(t.files())
    assert left, "the compacted files of the commit that never came, or those that it replaced"
    again = planned(t, Care.COMPACT, Care.EXPIRE, Care.ORPHANS, later_s=LATER_S)
    assert {s.status for s in maintained(domain, again).steps} == {"done"}
    exact(t)
    # none of all files is left that no snapshot names; the marker's own snapshot still names some
    known = {e["file_path"] for e in t.lake().inspect.all_files().to_pylist()}
    assert set(t.stored()) == known


@pytest.mark.parametrize("care", [Care.STATISTICS, Care.ORPHANS])
def test_spark_without_icebergs_runtime_is_told_so(table: MakeDomainTable, domain: Domain, care: Care) -> None:
    """By SQL and by Iceberg's own API; nothing was done."""
    t = table(spec=SPEC + "maintenance: {statistics: true}\n").fill(0)
    t.run()
    with running(domain, planned(t, care), load(iceberg_jars="")) as job:
        (error,) = said(job.ended(), "ERROR")
    assert error["id"] == ICEBERG_RUNTIME_MISSING.id


def test_maintenance_waits_for_an_offload_and_then_leaves_it_to_the_next(t: DomainTable) -> None:
    class Never:
        def call(self, sql: str) -> dict[str, int]:
            raise AssertionError(sql)

        def remove_orphans(self, plan: MaintenancePlan, older_than_ms: int) -> int:
            raise AssertionError(plan)

    t.fill(38)
    t.check()
    result = maintain(t.ctx, planned(t), Never(), patience_s=0)
    assert {s.status for s in result.steps} == {"put off"}
    t.run()


def test_only_one_maintenance_of_a_table_at_a_time(t: DomainTable) -> None:
    other = t.domain.context()
    with alone(t.ctx.ledger, t.identity):
        with pytest.raises(OffloadError) as refused, alone(other.ledger, t.identity):
            pass
        assert refused.value.kind is MAINTENANCE_RUNNING
        with alone(other.ledger, "another.table"):
            pass
    with alone(other.ledger, t.identity):
        pass
    other.close()


def test_an_expired_snapshot_is_not_all_that_knows_an_earlier_source(table: MakeDomainTable) -> None:
    """Rule 2: a rebuild protects what another source shipped, and learns of that source from the summaries."""
    t = table().fill(0)
    t.run()
    first = markers.parse(t.lake().properties)
    t.create()
    t.fill(0, 1)
    accept_source(t.ctx, t.spec)
    t.run()
    known = markers.sources(t.lake())
    assert first is not None
    assert len(known) == 2
    before = t.lake().metadata.current_snapshot_id
    markers.remember_sources(t.ctx.catalog, t.lake())
    markers.remember_sources(t.ctx.catalog, t.lake())
    assert t.lake().metadata.current_snapshot_id == before
    t.lake().maintenance.expire_snapshots().by_id(first.snapshot_id).commit()
    assert t.lake().snapshot_by_id(first.snapshot_id) is None
    assert markers.sources(t.lake()) == known
    t.fill(2)
    assert t.run().rows == 10
    assert markers.sources(t.lake()) == known
    t.unverifiable = "the second source holds other rows of the first window"
