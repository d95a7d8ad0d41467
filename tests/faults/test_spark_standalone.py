"""The offload job on a real Spark standalone cluster: a master and two workers that share no disk with the driver.

Each worker has one core, so that of the two lanes of a job each runs on a worker of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

import pytest

from include.offload.model import Plan
from include.offload.source.client import parse_uri
from local.spark_cluster import Server, SparkCluster, spark_cluster
from tests.support.domain import SPEC, Domain, DomainTable, MakeDomainTable, said, spark_submit
from tests.support.wire import Answer, Proxy, Request, running

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
SYMBOLS = ("a", "b", "c", "d")
ROWS = 5_000
BY_SYM = SPEC.replace('"day(ts)"', "sym")


@pytest.fixture
def cluster() -> Iterator[SparkCluster]:
    with spark_cluster(workers=2, cores=1) as running_:
        yield running_


def four_slices(table: MakeDomainTable) -> DomainTable:
    """One for each symbol: two in each lane."""
    t = table(spec=BY_SYM)
    for symbol in SYMBOLS:
        t.insert(0, rows=ROWS, sym=symbol, note="n" * 200)
    return t


def planned(t: DomainTable) -> Plan:
    plan = t.check().plan
    assert (len(plan.slices), t.spec.slice.concurrency) == (4, 2)
    return plan


def test_a_job_on_two_workers_that_share_no_disk_with_its_driver(
    table: MakeDomainTable, domain: Domain, cluster: SparkCluster
) -> None:
    t = four_slices(table)
    plan = planned(t)
    done = spark_submit(domain, plan.plan_id, on=cluster.submit_options())
    (result,) = said(done, "RESULT")
    assert (result["status"], result["rows"], result["files"], result["pending"]) == ("committed", 4 * ROWS, 4, 0)
    assert said(done, "PROGRESS")[-1]["slices_done"] == 4
    for worker in cluster.workers:
        assert code_of(worker) == 1, "the code came over the network, into a directory of the worker's own"
    t.watermark(plan.plan_id)
    assert t.lake_ids() == t.source_ids()
    assert t.stored() == sorted(t.files())
    (again,) = said(spark_submit(domain, plan.plan_id, on=cluster.submit_options()), "RESULT")
    assert again["status"] == "already-committed"


def code_of(worker: Server) -> int:
    """How many executors of a worker got the domain's code."""
    return len(list((worker.home / "work").rglob("offload_code.zip")))


@dataclass
class Halfway:
    """Lets two slices pass, holds the next two until both are there, and kills a worker while they wait.

    By then each of the workers has written a file and asked for the rows of another.
    """

    victim: Server
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    dead: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Request) -> Answer:
        with self.lock:
            self.asked += 1
            number = self.asked
        if number == 4:
            self.victim.kill()
            self.dead.set()
        elif number == 3:
            assert self.dead.wait(60), "the other lane never asked for its second slice"
        return request.send()


def test_a_worker_that_dies_under_a_job_costs_a_retry_and_no_row(
    table: MakeDomainTable, domain: Domain, cluster: SparkCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane of the dead one runs again on the other, from its first slice; what it had written stays an orphan."""
    t = four_slices(table)
    halfway = Halfway(cluster.workers[0])
    source = domain.servers.secret("offload_clickhouse_uri")
    server = parse_uri(source).name
    with running(f"http://{server}", lambda uri: Proxy(uri, ships, halfway)) as wire:
        monkeypatch.setenv("OFFLOAD_CLICKHOUSE_URI", source.replace(server, parse_uri(wire.uri).name))
        t.ctx.close()
        t.ctx = domain.context()
        plan = planned(t)
        done = spark_submit(domain, plan.plan_id, on=cluster.submit_options())
        (result,) = said(done, "RESULT")
    assert halfway.dead.is_set()
    assert "Lost executor" in done.stderr + done.stdout
    assert (result["status"], result["rows"], result["files"], result["pending"]) == ("committed", 4 * ROWS, 4, 0)
    assert halfway.asked == 6, "both slices of the lost lane were read again, and no other"
    t.watermark(plan.plan_id)
    assert t.lake_ids() == t.source_ids()
    named, stored = set(t.files()), set(t.stored())
    assert named < stored
    assert len(stored - named) == 1, "no attempt deletes another's file; orphan removal does"
    assert not t.run().check.plan.touches_lake


def ships(request: Request) -> bool:
    """Whether it asks for the rows of a slice."""
    return "log_comment=offload ship" in unquote_plus(request.path)
