"""S3 and the catalog fail on the wire while a job writes or commits; the servers behind the proxies are the real ones.

A failed attempt leaves no snapshot; the same plan, tried again, lands once. When a test ends, both verifiers read its
table and the ledger is held against the lake.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from include.offload.errors import (
    AUDIT_FAILED,
    CATALOG_UNREACHABLE,
    COMMIT_UNKNOWN,
    STORE_REFUSED,
    ErrorKind,
    OffloadError,
)
from tests.support.domain import Domain, DomainTable, MakeDomainTable
from tests.support.wire import Answer, CatalogProxy, Fault, Request, StoreProxy, answer_lost, running

pytestmark = pytest.mark.timeout(120)


def refused(act: Callable[[], object], kind: ErrorKind) -> OffloadError:
    with pytest.raises(OffloadError) as found:
        act()
    assert found.value.kind is kind, str(found.value)
    assert kind.retry
    return found.value


Through = Callable[[dict[str, str]], DomainTable]


@pytest.fixture
def through(t: DomainTable) -> Iterator[Through]:
    """The same table, driven by a job that reaches the catalog, or its files, through a proxy."""
    made: list[DomainTable] = []

    def make(environment: dict[str, str]) -> DomainTable:
        with pytest.MonkeyPatch.context() as env:
            for name, value in environment.items():
                env.setenv(name, value)
            made.append(replace(t, ctx=t.domain.context()))
            assert made[-1].ctx.catalog.name == "lake"
        return made[-1]

    yield make
    for other in made:
        other.ctx.close()


@pytest.fixture
def t(table: MakeDomainTable) -> DomainTable:
    """A table whose next plan appends a window and replaces another, in two files."""
    t = table().fill(0, 1)
    t.run()
    return t.insert(1, rows=1).insert(3, rows=10)


@pytest.fixture
def store(domain: Domain) -> Iterator[StoreProxy]:
    """A way to the real S3 on which a file that is written meets a fault."""
    from local import ports

    with running(
        f"http://127.0.0.1:{ports.port('S3')}", lambda uri: StoreProxy(uri, lambda r: r.method in {"PUT", "POST"})
    ) as proxy:
        yield proxy


def lands_once(t: DomainTable, plan: uuid.UUID, snapshots: int = 2, *, status: str = "committed") -> None:
    """The next attempt, by a job that nothing disturbs; and no file of a failed one counts."""
    assert len(t.snapshots()) == (snapshots if status == "already-committed" else snapshots - 1)
    outcome = t.ship(plan)
    assert (outcome.status, outcome.rows) == (status, 21)
    assert t.watermark(plan).emitted
    assert len(t.snapshots()) == snapshots
    assert t.lake_ids() == t.source_ids()
    summary = t.snapshots()[-1].summary
    assert summary is not None
    assert summary["total-records"] == "31"
    assert summary["total-data-files"] == str(len(t.files()))


# ---- S3 --------------------------------------------------------------------------------------------------------------


def s3_error(status: int, code: str) -> Fault:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made by a test</Message></Error>".encode()
    return lambda _: Answer(status, (("Content-Type", "application/xml"),), body)


def half(request: Request) -> None:
    """The connection breaks when S3 has half of the file."""
    request.send_half()


STORE_FAULTS = {
    "refuses a data file": ("/data/", s3_error(403, "AccessDenied")),
    "is full": ("/data/", s3_error(507, "XMinioStorageFull")),
    "breaks off in a data file": ("/data/", half),
    "fails at a manifest": ("/metadata/", s3_error(500, "InternalError")),
    "takes a manifest and does not say so": ("/metadata/", answer_lost),
}


def meet(store: StoreProxy, where: str, fault: Fault) -> None:
    """Files of this directory meet the fault while they are written."""
    store.meets, store.fault = (lambda r: r.method in {"PUT", "POST"} and where in r.path), fault


@pytest.mark.parametrize(("where", "fault"), STORE_FAULTS.values(), ids=STORE_FAULTS.keys())
def test_a_store_that_fails_while_a_file_is_written(
    t: DomainTable, through: Through, store: StoreProxy, where: str, fault: Fault
) -> None:
    """Rules 13 and 14: data files and manifests alike are nothing until the one commit."""
    plan = t.check().plan.plan_id
    meet(store, where, fault)
    error = refused(lambda: through(store.store_environment()).ship(plan), STORE_REFUSED)
    assert store.met
    assert error.table == t.identity
    assert "AWS Error" in error.cause, "the first error, not that nothing could be deleted"
    lands_once(t, plan)


def test_a_store_that_never_answers(t: DomainTable, through: Through, store: StoreProxy) -> None:
    """The library's own time-outs end it."""
    plan = t.check().plan.plan_id

    def silent(_: Request) -> None:
        store.over.wait(60)

    meet(store, "/data/", silent)
    error = refused(lambda: through(store.store_environment()).ship(plan), STORE_REFUSED)
    assert store.met
    assert "AWS Error" in error.cause
    lands_once(t, plan)


def test_a_store_that_is_overloaded_for_a_moment(t: DomainTable, through: Through, store: StoreProxy) -> None:
    """A try that is refused is made again within the attempt."""
    plan = t.check().plan.plan_id
    refusals = [s3_error(503, "SlowDown")] * 2
    lock = threading.Lock()

    def once_or_twice(request: Request) -> Answer | None:
        with lock:
            fault = refusals.pop() if refusals else Request.send
        return fault(request)

    store.fault = once_or_twice
    other = through(store.store_environment())
    assert other.ship(plan).status == "committed"
    assert not refusals
    lands_once(t, plan, status="already-committed")


def test_a_store_that_says_yes_and_has_half_of_a_file(t: DomainTable, through: Through, store: StoreProxy) -> None:
    """Rule 13: what the store has is held against what was written, not against what it said before."""
    plan = t.check().plan.plan_id

    def has_half(request: Request) -> Answer:
        answer = request.send()
        assert answer.length is not None
        return replace(answer, length=answer.length // 2)

    before = {file.rsplit("/", 1)[-1] for file in t.files()}
    store.meets = lambda r: r.method == "HEAD" and r.path.rsplit("/", 1)[-1] not in before and "/data/" in r.path
    store.fault = has_half
    refused(lambda: through(store.store_environment()).ship(plan), AUDIT_FAILED)
    assert store.met
    lands_once(t, plan)


# ---- the catalog -----------------------------------------------------------------------------------------------------

each_status = pytest.mark.parametrize("status", [500, 503])
"""Two exceptions of PyIceberg: 500, 502 and 504 are one."""


def http_error(status: int) -> Answer:
    body = b'{"error": {"message": "made by a test", "type": "ServerError", "code": %d}}' % status
    return Answer(status, (("Content-Type", "application/json"),), body)


@each_status
def test_a_catalog_that_fails_after_it_committed(
    t: DomainTable, through: Through, proxy: CatalogProxy, status: int
) -> None:
    """Rule 16: the table decides, not the answer."""
    plan = t.check().plan.plan_id

    def committed(request: Request) -> Answer:
        assert request.send().status == 200
        return http_error(status)

    proxy.fault = committed
    assert through(proxy.catalog_environment()).ship(plan).status == "committed"
    assert len(proxy.commits) == 1
    lands_once(t, plan, status="already-committed")


@each_status
def test_a_catalog_that_fails_before_it_committed(
    t: DomainTable, through: Through, proxy: CatalogProxy, status: int
) -> None:
    plan = t.check().plan.plan_id
    proxy.fault = lambda _: http_error(status)
    error = refused(lambda: through(proxy.catalog_environment()).ship(plan), COMMIT_UNKNOWN)
    assert len(proxy.commits) == 1
    assert "made by a test" in error.cause
    lands_once(t, plan)


def test_a_catalog_that_commits_and_then_is_gone(t: DomainTable, through: Through, proxy: CatalogProxy) -> None:
    """Neither the commit nor the look at the table is answered: unknown, until the next attempt looks first."""
    plan = t.check().plan.plan_id
    proxy.meets = lambda r: r.commits or bool(proxy.met)

    def gone(request: Request) -> Answer:
        if request.commits:
            assert request.send().status == 200
        return http_error(502)

    proxy.fault = gone
    refused(lambda: through(proxy.catalog_environment()).ship(plan), COMMIT_UNKNOWN)
    assert len(proxy.commits) == 1
    assert len(proxy.met) > 1
    lands_once(t, plan, status="already-committed")


def test_a_catalog_that_fails_whatever_it_is_asked(t: DomainTable, through: Through, proxy: CatalogProxy) -> None:
    plan = t.check().plan.plan_id
    other = through(proxy.catalog_environment())
    proxy.meets, proxy.fault = (lambda r: "/tables/" in r.path), (lambda _: http_error(503))
    refused(lambda: other.ship(plan), CATALOG_UNREACHABLE)
    refused(other.check, CATALOG_UNREACHABLE)
    proxy.meets = lambda r: False
    assert other.ship(plan).status == "committed"
    lands_once(t, plan, status="already-committed")
