"""A replica that lags more than settle fails the run (rule 11).

The one-machine ClickHouse has no replicated tables. So a proxy puts a number in the place of what
`system.replicas.absolute_delay` would say; everything else, and every row, is ClickHouse's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pytest

from include.offload.errors import REPLICA_LAGS, OffloadError
from include.offload.settings import load
from tests.support.domain import Domain, MakeDomainTable
from tests.support.wire import Answer, Proxy, Request, running

pytestmark = pytest.mark.timeout(120)
ASKED = b"SELECT max(absolute_delay) FROM system.replicas"


@dataclass
class Replica(Proxy):
    """`delay_s`: what the replica says of itself."""

    delay_s: int = 0

    def lags(self, request: Request) -> Answer:
        """The same question of the same table, but for the column that only a replicated one has."""
        told = f"SELECT max(toUInt64({self.delay_s})) FROM system.tables".encode()
        answer = replace(request, body=request.body.replace(ASKED, told)).send()
        assert answer.status == 200, answer.body
        return answer


@pytest.fixture
def replica(domain: Domain) -> Iterator[Replica]:
    known = urlsplit(domain.servers.secret("offload_clickhouse_uri"))
    with running(f"http://127.0.0.1:{known.port}", lambda uri: Replica(uri, lambda r: ASKED in r.body)) as proxy:
        proxy.fault = proxy.lags
        yield proxy


def uri_of(domain: Domain, replica: Replica) -> str:
    known = urlsplit(domain.servers.secret("offload_clickhouse_uri"))
    return f"http://{known.username}:{known.password}@{urlsplit(replica.uri).netloc}/"


def test_a_replica_that_lags_is_refused_until_it_caught_up(
    table: MakeDomainTable, domain: Domain, replica: Replica
) -> None:
    """Rows that it does not have yet would be verified as empty time; so nothing is planned."""
    t = table(settings=load(clickhouse_uri=uri_of(domain, replica))).fill(0, 1)
    replica.delay_s = 2
    with pytest.raises(OffloadError) as refused:
        t.check()
    assert refused.value.kind is REPLICA_LAGS
    assert refused.value.kind.retry
    assert "2 s behind, settle is 1 s" in refused.value.cause
    assert urlsplit(replica.uri).netloc in refused.value.cause
    assert not t.exists()
    assert len(replica.met) == 1
    replica.delay_s = 1
    assert t.run().rows == 20
    assert len(replica.met) == 2
    t.fill(3)
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()


def test_a_replica_that_lags_can_be_taken_out_of_the_connection(
    table: MakeDomainTable, domain: Domain, replica: Replica
) -> None:
    lagging, good = uri_of(domain, replica), domain.servers.secret("offload_clickhouse_uri")
    replica.delay_s = 3600
    t = table(settings=load(clickhouse_uri=lagging)).fill(0, 1)
    with pytest.raises(OffloadError) as refused:
        t.check()
    assert refused.value.kind is REPLICA_LAGS
    t.ctx.close()
    t.ctx = domain.context(clickhouse_uri=good)
    assert t.run().rows == 20
    assert len(replica.met) == 1
