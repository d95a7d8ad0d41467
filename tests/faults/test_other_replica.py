"""What a replica does not have yet is not gone (rule 9): the look at a source says whose it is.

The one-machine ClickHouse has no replicated tables. A second replica is the same server behind a proxy, which hides the
newest data block and its rows (`additional_table_filters`): what a replica that has not fetched it yet would say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

import pytest

from include.offload.context import Context
from include.offload.model import EXPIRED_LONG_AGO
from include.offload.planning import Leave
from tests.support.domain import COLUMNS, Domain, DomainTable, MakeDomainTable
from tests.support.wire import Answer, Proxy, Request, running

pytestmark = pytest.mark.timeout(120)
BY_SYM = "CREATE TABLE {table} (" + COLUMNS + ") ENGINE = MergeTree ORDER BY (sym, ts) PARTITION BY sym"
DELAY = b"SELECT max(absolute_delay) FROM system.replicas"


@dataclass
class Replica(Proxy):
    """`hides`: a filter for each table by name, as ClickHouse takes it; `delay_s`: what it says of itself."""

    hides: str = ""
    delay_s: int = 0

    def answer(self, request: Request) -> Answer:
        told = f"SELECT max(toUInt64({self.delay_s})) FROM system.tables".encode()
        path = request.path + (f"&additional_table_filters={quote(self.hides)}" if self.hides else "")
        return replace(request, path=path, body=request.body.replace(DELAY, told)).send()


@pytest.fixture
def replica(domain: Domain) -> Iterator[Replica]:
    known = urlsplit(domain.servers.secret("offload_clickhouse_uri"))
    with running(f"http://127.0.0.1:{known.port}", lambda uri: Replica(uri, lambda r: "query_id" in r.path)) as proxy:
        proxy.fault = proxy.answer
        yield proxy


@pytest.fixture
def two(table: MakeDomainTable, domain: Domain, replica: Replica) -> Iterator[tuple[DomainTable, Context]]:
    """A table with two data blocks in one window, shipped from the first replica; and a way to the second."""
    t = table("deletes: follow\n", ddl=BY_SYM).insert(0, sym="a").insert(0, sym="b")
    t.run()
    known = urlsplit(domain.servers.secret("offload_clickhouse_uri"))
    uri = f"http://{known.username}:{known.password}@{urlsplit(replica.uri).netloc}/"
    other = domain.context(clickhouse_uri=uri)
    first = t.ctx
    yield t, other
    t.ctx = first
    other.close()


def lacks_the_newest(t: DomainTable) -> str:
    block = f"NOT (table = \\'{t.name}\\' AND partition = \\'b\\')"
    return f"{{'{t.identity}': 'sym != \\'b\\'', 'system.parts': '{block}'}}"


def test_a_block_that_the_next_replica_lacks_costs_no_window_its_life(
    two: tuple[DomainTable, Context], replica: Replica
) -> None:
    """It is left alone for this run, and the first replica goes on where it was."""
    t, other = two
    first, t.ctx = t.ctx, other
    replica.hides = lacks_the_newest(t)
    assert t.source_ids() == list(range(1, 21))
    run = t.run()
    assert [(x.reason, x.rows) for x in run.check.left] == [(Leave.KEPT, 10)]
    assert t.lake_ids() == list(range(1, 21))
    assert set(t.expiries().values()) == {None}
    t.ctx = first
    t.insert(0, sym="b", rows=2)
    assert t.run().rows == 22
    assert t.lake_ids() == list(range(1, 23))


def test_windows_that_the_next_replica_has_whole_are_shipped_from_it(
    two: tuple[DomainTable, Context], replica: Replica
) -> None:
    t, t.ctx = two
    replica.hides = lacks_the_newest(t)
    t.insert(3, sym="a", rows=5)
    assert t.run().rows == 5
    t.insert(3, sym="a", rows=1)
    run = t.run()
    assert run.rows == 6
    assert t.lake_ids() == list(range(1, 27))


def test_what_is_gone_on_both_replicas_is_gone_at_the_second_look(two: tuple[DomainTable, Context]) -> None:
    t, other = two
    t.sql("ALTER TABLE {table} DROP PARTITION 'b'")
    first, t.ctx = t.ctx, other
    for expiry in (None, EXPIRED_LONG_AGO):
        assert [x.reason for x in t.run().check.left] == [Leave.KEPT]
        assert set(t.expiries().values()) == {expiry}
    t.ctx = first
    assert [x.reason for x in t.run().check.left] == [Leave.KEPT]
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = "ClickHouse lost rows that the lake keeps"


def test_what_a_replica_lacks_while_it_is_behind_is_not_gone(
    two: tuple[DomainTable, Context], replica: Replica
) -> None:
    """The same replica, less than settle behind: by a second."""
    t, t.ctx = two
    t.run()
    replica.hides, replica.delay_s = lacks_the_newest(t), 1
    for _ in range(2):
        assert [x.reason for x in t.run().check.left] == [Leave.KEPT]
        assert set(t.expiries().values()) == {None}
    replica.hides, replica.delay_s = "", 0
    assert t.run().check.left == ()
    assert t.lake_ids() == t.source_ids()


def test_a_look_after_a_failover_forgets_no_block(two: tuple[DomainTable, Context]) -> None:
    """A partition that goes after it is seen at once: the second replica had all blocks of the first."""
    t, t.ctx = two
    t.run()
    t.sql("ALTER TABLE {table} DROP PARTITION 'b'")
    t.run()
    assert set(t.expiries().values()) == {EXPIRED_LONG_AGO}
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = "ClickHouse lost rows that the lake keeps"
