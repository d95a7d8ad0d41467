"""ClickHouse's answer is lost on its way, and what comes instead says 200 and holds no byte: that is not "no rows".

A proxy drops the body of real answers; a load balancer or a gateway in front of ClickHouse can do that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from include.offload.errors import SOURCE_STREAM_BROKEN, OffloadError
from include.offload.settings import load
from include.offload.verify import verify
from tests.support.domain import Domain, DomainTable, MakeDomainTable
from tests.support.wire import Answer, Proxy, Request, running

pytestmark = pytest.mark.timeout(120)
QUESTIONS = {
    "extent": b"sum(cityHash64",
    "count": b"SELECT count() FROM `",
    "parts": b"FROM system.parts",
    "table": b"FROM system.tables",
    "columns": b"FROM system.columns",
    "replica": b"FROM system.replicas",
    "mutations": b"FROM system.mutations",
}


def emptied(request: Request) -> Answer:
    answer = request.send()
    assert answer.status == 200, answer.body
    return replace(answer, body=b"")


@pytest.fixture
def front(domain: Domain) -> Iterator[Proxy]:
    known = urlsplit(domain.servers.secret("offload_clickhouse_uri"))
    with running(f"http://127.0.0.1:{known.port}", lambda uri: Proxy(uri, lambda _: False)) as proxy:
        yield proxy


def through(make: MakeDomainTable, domain: Domain, front: Proxy) -> DomainTable:
    known = urlsplit(domain.servers.secret("offload_clickhouse_uri"))
    uri = f"http://{known.username}:{known.password}@{urlsplit(front.uri).netloc}/"
    return make(settings=load(clickhouse_uri=uri))


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_empty_answer_fails_the_check_and_moves_nothing(
    table: MakeDomainTable, domain: Domain, front: Proxy, question: str
) -> None:
    t = through(table, domain, front).fill(0, 1)
    front.meets, front.fault = (lambda r: QUESTIONS[question] in r.body), emptied
    with pytest.raises(OffloadError) as refused:
        t.run()
    assert refused.value.kind is SOURCE_STREAM_BROKEN, refused.value
    assert front.met
    assert t.empty_time() == []
    assert not t.exists()
    front.meets = lambda _: False
    assert t.run().rows == 20
    assert t.lake_ids() == t.source_ids()


def test_one_answer_that_is_lost_is_asked_for_again(table: MakeDomainTable, domain: Domain, front: Proxy) -> None:
    t = through(table, domain, front).fill(0, 1)
    front.meets, front.fault = (lambda r: QUESTIONS["extent"] in r.body and not front.met), emptied
    assert t.run().rows == 20
    assert len(front.met) == 1
    assert t.lake_ids() == t.source_ids()


def test_an_empty_answer_is_no_equality(table: MakeDomainTable, domain: Domain, front: Proxy) -> None:
    """Both sides of verify would be empty, and equal."""
    t = through(table, domain, front).fill(0)
    t.run()
    front.meets, front.fault = (lambda r: b"cityHash64" in r.body), emptied
    with pytest.raises(OffloadError) as refused:
        verify(t.ctx, t.spec)
    assert refused.value.kind is SOURCE_STREAM_BROKEN
    front.meets = lambda _: False
