"""Two replicas, of which one dies while a job reads it: the retry goes on with the other and stays exact (rule 11).

The one-machine ClickHouse has no replicated tables. The second replica is another server process with data of its own:
its table has the same UUID, and every statement of a test goes to both, unless the test lets one miss some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote_plus, urlsplit

import pytest

from include.offload.errors import (
    RANGE_REFUSED,
    SOURCE_QUERY_FAILED,
    SOURCE_STREAM_BROKEN,
    SOURCE_UNREACHABLE,
    OffloadError,
)
from include.offload.model import Plan
from include.offload.source.client import Client, parse_uri
from tests.support.between import between, mid_stream
from tests.support.domain import DATABASE, DDL, SPEC, Domain, DomainTable, MakeDomainTable, said, spark_submit
from tests.support.own_front import OwnFront, own_front
from tests.support.wire import Proxy, Request, running

pytestmark = pytest.mark.timeout(180)
BY_SYM = SPEC.replace('"day(ts)"', "sym")
DEATHS = (SOURCE_UNREACHABLE, SOURCE_STREAM_BROKEN, SOURCE_QUERY_FAILED)
WIDE = "source: {limits: {memory: 1GiB, threads: 1}}\n"


@dataclass
class Both:
    """The administrator's client of both. `deaf`: whether the lasting one misses what is said now; `missed`: what."""

    dying: Client
    lasting: Client
    deaf: bool = False
    missed: list[str] = field(default_factory=list)

    def command(self, sql: str) -> None:
        self.dying.command(sql)
        if self.deaf:
            self.missed.append(sql)
        else:
            self.lasting.command(sql)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.lasting.query(sql)

    def catch_up(self) -> None:
        """The lasting one gets what it missed, as from a replica that came back."""
        self.deaf = False
        for sql in self.missed:
            self.lasting.command(sql)
        self.missed.clear()


@dataclass
class Pair:
    """A table on both replicas, read from the dying one first."""

    t: DomainTable
    both: Both
    front: OwnFront
    lasting: str

    def check(self) -> Plan:
        """A plan of the replica that is going to die."""
        plan = self.t.check().plan
        assert plan.replica == self.front.name
        return plan

    def kill(self) -> None:
        """From here on only the lasting one is told anything."""
        self.front.kill()
        self.t.domain = replace(self.t.domain, admin=self.both.lasting)

    def ends_well(self) -> None:
        """The next run brings the lake to where the lasting one is, and the one after that has nothing to do."""
        t = self.t
        assert t.run().check.plan.replica == self.lasting
        assert t.lake_ids() == t.source_ids()
        assert not t.run().check.plan.touches_lake
        assert t.stored() == sorted(self.named()), "no attempt left a file behind"

    def named(self) -> set[str]:
        """The data files that any snapshot names: what was replaced stays for those who look back."""
        lake = self.t.lake()
        scans = [lake.scan(snapshot_id=s.snapshot_id) for s in lake.snapshots()]
        return {str(task.file.file_path) for scan in scans for task in scan.plan_files()}


@pytest.fixture
def front(tmp_path: Any) -> Iterator[OwnFront]:
    with own_front(tmp_path) as running:
        yield running


@pytest.fixture
def pair(table: MakeDomainTable, domain: Domain, front: OwnFront) -> Iterator[Pair]:
    t = table(WIDE, spec=BY_SYM)
    ((uuid,),) = t.ask(f"SELECT toString(uuid) FROM system.tables WHERE database = '{DATABASE}' AND name = '{t.name}'")
    with Client(parse_uri(front.uri("k2_admin")), settings={}, comment="two replicas", table=None) as dying:
        dying.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        dying.command(DDL.replace("{table}", f"{t.source} UUID '{uuid}'"))
        both = Both(dying, domain.admin)
        stack, own = domain.servers.secret("offload_clickhouse_uri"), front.uri("offload")
        t.ctx = first_of(domain, t, own, stack)
        t.domain = replace(domain, admin=both)  # type: ignore[arg-type]
        yield Pair(t, both, front, parse_uri(stack).name)
        # the fixture of the table drops it where it lasts
        t.domain = domain


def first_of(domain: Domain, t: DomainTable, wanted: str, other: str) -> Any:
    """A context in which this table is read from `wanted` first: which one that is depends on the table's name."""
    for uris in (f"{wanted},{other}", f"{other},{wanted}"):
        ctx = domain.context(clickhouse_uri=uris)
        if ctx.endpoints(t.spec)[0].name == parse_uri(wanted).name:
            return ctx
    raise AssertionError("no order of two begins with either")


def two_slices(t: DomainTable) -> DomainTable:
    """The first has far more bytes than fit between ClickHouse and its reader at once."""
    return t.insert(0, rows=80_000, sym="a", note="n" * 1_000).insert(0, sym="b")


@pytest.mark.parametrize("moment", [between, mid_stream], ids=["between slices", "in the middle of one"])
def test_rule_11_a_retry_goes_on_with_the_other_replica(pair: Pair, moment: Any) -> None:
    t = two_slices(pair.t)
    plan = pair.check()
    assert len(plan.slices) == 2
    with pytest.raises(OffloadError) as died:
        t.ship(plan.plan_id, moment(pair.kill))
    assert died.value.kind in DEATHS
    assert died.value.kind.retry
    assert t.operations() == []
    assert t.stored() == [], "the attempt that failed left no file"
    outcome = t.ship(plan.plan_id)
    assert (outcome.status, outcome.rows, outcome.pending) == ("committed", 80_010, ())
    assert t.watermark(plan.plan_id).watermark_us == plan.watermark_after
    assert t.lake_ids() == t.source_ids() == list(range(1, 80_011))
    pair.ends_well()


def test_rule_11_a_dead_replica_is_passed_over_when_the_job_begins(pair: Pair) -> None:
    """It died after planning; there is no failed attempt in between."""
    t = pair.t.fill(0, 1)
    plan = pair.check()
    pair.kill()
    outcome = t.ship(plan.plan_id)
    assert (outcome.rows, outcome.pending) == (20, ())
    t.watermark(plan.plan_id)
    pair.ends_well()


def test_rule_11_rows_that_the_other_lacks_are_not_taken_for_gone(pair: Pair) -> None:
    """Of a window that it has in part nothing is shipped, and the watermark waits for it."""
    t = pair.t.insert(0).insert(1)
    pair.both.deaf = True
    t.insert(1, rows=3)
    plan = pair.check()
    assert plan.rows == 23
    pair.kill()
    outcome = t.ship(plan.plan_id)
    assert (outcome.rows, outcome.pending) == (10, (t.number(1),))
    assert t.watermark(plan.plan_id).watermark_us == t.at(1)
    assert t.lake_ids() == list(range(1, 11))
    pair.both.catch_up()
    assert t.run().rows == 13
    pair.ends_well()


def test_rule_11_a_mutation_that_the_other_has_not_applied_waits(pair: Pair) -> None:
    """As many rows, other values: only the hash tells."""
    t = pair.t.insert(0).insert(1)
    pair.both.deaf = True
    t.mutate("UPDATE price = price + 1 WHERE id = 11")
    plan = pair.check()
    pair.kill()
    outcome = t.ship(plan.plan_id)
    assert (outcome.rows, outcome.pending) == (10, (t.number(1),))
    t.watermark(plan.plan_id)
    pair.both.catch_up()
    assert t.run().rows == 10
    pair.ends_well()


def test_rule_11_late_rows_that_the_other_lacks_replace_nothing(pair: Pair) -> None:
    """What the lake holds of the window stays; the look at data blocks sees that one is missing there."""
    t = pair.t.insert(0).insert(1)
    t.run()
    pair.both.deaf = True
    t.insert(0, rows=4)
    plan = pair.check()
    pair.kill()
    before = t.snapshots()
    with pytest.raises(OffloadError) as refused:
        t.ship(plan.plan_id)
    assert refused.value.kind is RANGE_REFUSED
    assert t.snapshots() == before
    assert t.stored() == sorted(t.files())
    pair.both.catch_up()
    assert t.run().rows == 14
    pair.ends_well()


def test_rule_11_a_server_with_another_table_of_that_name_does_not_stand_in(pair: Pair, domain: Domain) -> None:
    t = pair.t.insert(0)
    plan = pair.check()
    domain.admin.command(f"DROP TABLE {t.source} SYNC")
    domain.admin.command(DDL.replace("{table}", t.source))
    pair.kill()
    t.unverifiable = "the source was made again, empty"
    with pytest.raises(OffloadError, match="holds another table") as refused:
        t.ship(plan.plan_id)
    assert refused.value.kind is SOURCE_UNREACHABLE
    assert t.snapshots() == []


@pytest.mark.long
def test_rule_11_the_spark_job_is_tried_again_on_the_other(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real jobs: under the first its replica dies when asked for rows, the second commits from the other."""
    t, own, stack = two_slices(pair.t), urlsplit(pair.front.uri("offload")), pair.t.domain.servers
    with running(f"http://{pair.front.name}", lambda uri: Proxy(uri, ships)) as wire:
        dying = f"http://{own.username}:{own.password}@{urlsplit(wire.uri).netloc}/"
        t.ctx.close()
        t.ctx = first_of(t.domain, t, dying, stack.secret("offload_clickhouse_uri"))
        plan = t.check().plan
        assert plan.replica == parse_uri(dying).name
        wire.fault = lambda _: pair.kill()
        monkeypatch.setenv("OFFLOAD_CLICKHOUSE_URI", ",".join(t.ctx.settings.clickhouse_uris()))
        (refused,) = said(spark_submit(t.domain, plan.plan_id), "ERROR")
        assert refused["id"] in {kind.id for kind in DEATHS}
        assert t.operations() == []
        again = spark_submit(t.domain, plan.plan_id)
        (result,) = said(again, "RESULT")
    assert (result["status"], result["rows"], result["pending"]) == ("committed", 80_010, 0)
    assert f"this attempt reads {pair.lasting}" in again.stdout, "where Spark puts what Python logs"
    t.watermark(plan.plan_id)
    pair.ends_well()


def ships(request: Request) -> bool:
    """Whether it asks for the rows of a slice."""
    return "log_comment=offload ship" in unquote_plus(request.path)
