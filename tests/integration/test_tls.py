"""TLS to ClickHouse and PostgreSQL is configuration: a whole run through it, and not a byte to a server not trusted.

Neither embedded server speaks TLS (chdb's front does not, the PostgreSQL of the wheel is built without OpenSSL), so a
proxy of the test's ends it in front of them; what is tested is our side: URI, connection, job, and refusals.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from include.offload.context import open_context
from include.offload.errors import LEDGER_UNREACHABLE, SETTING_MISSING, TLS_UNTRUSTED, OffloadError
from include.offload.settings import ROOT, load
from include.offload.source.client import Client, parse_uri
from tests.support.domain import Domain, DomainTable, MakeDomainTable, said, spark_submit
from tests.support.tls import Authority, TlsProxy, authority

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA that signed the servers' certificate."""
    return authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that signed nothing of ours."""
    return authority(tmp_path_factory.mktemp("ca"), "stranger")


@pytest.fixture(scope="module")
def clickhouse(domain: Domain, ours: Authority) -> Iterator[TlsProxy]:
    from local import ports

    proxy = TlsProxy(ports.port("CLICKHOUSE"), ours)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def postgres(domain: Domain, ours: Authority) -> Iterator[TlsProxy]:
    from local import ports

    proxy = TlsProxy(ports.port("POSTGRES"), ours, postgres=True)
    yield proxy
    proxy.close()


def clickhouse_uri(domain: Domain, proxy: TlsProxy, options: str) -> str:
    password = domain.servers.secret("clickhouse_password")
    return f"https://offload:{quote(password, safe='')}@127.0.0.1:{proxy.port}/{options}"


def ledger_uri(domain: Domain, proxy: TlsProxy, options: str) -> str:
    password = domain.servers.secret("ledger_password")
    return f"postgresql://offload_ledger:{quote(password, safe='')}@127.0.0.1:{proxy.port}/offload{options}"


def verify_full(ca: Authority) -> str:
    return f"?sslmode=verify-full&sslrootcert={quote(str(ca.ca), safe='')}"


def connect(uri: str) -> None:
    with Client(parse_uri(uri), settings={}, comment="tls", table=None) as client:
        assert client.query("SELECT 1") == [(1,)]


def test_a_whole_run_and_the_spark_job_through_tls(
    domain: Domain,
    table: MakeDomainTable,
    clickhouse: TlsProxy,
    postgres: TlsProxy,
    ours: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From Airflow's connections to URIs to a 0600 file to the job: the options arrive at every stage."""
    from airflow.sdk import Connection

    from include.orchestration import context
    from include.orchestration.spark import secrets_file

    ca = {"ca_cert": str(ours.ca)}
    fields: dict[str, Any] = {"host": "127.0.0.1", "conn_id": "tls"}
    uris = {
        "clickhouse_uri": context.clickhouse_uri(
            Connection(
                conn_type="clickhouse",
                port=clickhouse.port,
                login="offload",
                password=domain.servers.secret("clickhouse_password"),
                extra=json.dumps({"secure": True, **ca}),
                **fields,
            )
        ),
        "ledger_uri": context.ledger_uri(
            Connection(
                conn_type="postgres",
                port=postgres.port,
                login="offload_ledger",
                password=domain.servers.secret("ledger_password"),
                schema="offload",
                extra=json.dumps({"sslmode": "verify-full", "sslrootcert": str(ours.ca)}),
                **fields,
            )
        ),
    }
    t = table(settings=load(**uris)).fill(0, 1)
    plan = t.check().plan
    assert plan.replica == f"127.0.0.1:{clickhouse.port}"
    before = (clickhouse.received, postgres.received)
    assert min(before) > 0, "planning went another way"
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path))
    with secrets_file(uris) as path:
        monkeypatch.setenv("OFFLOAD_HOME", str(domain.servers.home))
        monkeypatch.setenv("OFFLOAD_SECRETS_FILE", path)
        (outcome,) = said(spark_submit(domain, plan.plan_id), "RESULT")
    assert (outcome["status"], outcome["rows"]) == ("committed", 20)
    assert clickhouse.received > before[0]
    assert postgres.received > before[1]
    t.watermark(plan.plan_id)
    assert t.lake_ids() == t.source_ids()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_clickhouse_without_a_check_of_the_certificate(domain: Domain, clickhouse: TlsProxy) -> None:
    before = clickhouse.received
    connect(clickhouse_uri(domain, clickhouse, "?verify=false"))
    assert clickhouse.received > before


@pytest.mark.parametrize("options", ["?ca_cert={wrong}", "", "?ca_cert=/no/such/file.pem", "?verify=true"])
def test_a_clickhouse_that_is_not_trusted_gets_nothing(
    domain: Domain, clickhouse: TlsProxy, stranger: Authority, options: str
) -> None:
    uri = clickhouse_uri(domain, clickhouse, options.replace("{wrong}", quote(str(stranger.ca), safe="")))
    before = clickhouse.received
    with pytest.raises(OffloadError) as refused:
        connect(uri)
    assert refused.value.kind is TLS_UNTRUSTED, refused.value
    assert domain.servers.secret("clickhouse_password") not in str(refused.value)
    assert clickhouse.received == before


def test_another_replica_does_not_stand_in_for_one_that_is_not_trusted(
    domain: Domain, table: MakeDomainTable, clickhouse: TlsProxy, stranger: Authority
) -> None:
    """Going on with the next replica would hide it."""
    uri = clickhouse_uri(domain, clickhouse, f"?ca_cert={quote(str(stranger.ca), safe='')}")
    good = domain.servers.secret("offload_clickhouse_uri")
    t = table(settings=load(clickhouse_uri=f"{uri},{good}")).fill(0)
    t.unverifiable = "nothing was offloaded"
    if t.ctx.endpoints(t.spec)[0].name != parse_uri(uri).name:
        # which replica a table asks first depends on its name
        t.ctx.close()
        t.ctx = open_context(load(clickhouse_uri=f"{good},{uri}"))
    refuses(t)


def refuses(t: DomainTable) -> None:
    with pytest.raises(OffloadError) as refused:
        t.check()
    assert refused.value.kind is TLS_UNTRUSTED, refused.value


@pytest.mark.parametrize("missing", [False, True], ids=["another CA", "no such file"])
def test_a_postgresql_that_is_not_trusted_gets_nothing(
    domain: Domain, table: MakeDomainTable, postgres: TlsProxy, stranger: Authority, missing: bool, tmp_path: Path
) -> None:
    options = f"?sslmode=verify-full&sslrootcert={tmp_path}/none.pem" if missing else verify_full(stranger)
    t = table(settings=load(ledger_uri=ledger_uri(domain, postgres, options))).fill(0)
    before = postgres.received
    refuses(t)
    assert postgres.received == before
    t.unverifiable = "nothing was offloaded"


def test_a_postgresql_without_tls_is_not_talked_to_when_tls_is_asked_for(
    domain: Domain, table: MakeDomainTable, ours: Authority
) -> None:
    from local import ports

    plain = ledger_uri(domain, type("Plain", (), {"port": ports.port("POSTGRES")})(), verify_full(ours))
    t = table(settings=load(ledger_uri=plain)).fill(0)
    with pytest.raises(OffloadError) as refused:
        t.check()
    assert refused.value.kind is LEDGER_UNREACHABLE
    assert "SSL" in str(refused.value)
    t.unverifiable = "nothing was offloaded"


CATALOG_PROGRAM = """
import sys
from include.offload.errors import OffloadError
from include.offload.lake.catalog import open_catalog
from include.offload.lake.reach import reaching
try:
    with reaching():
        catalog = open_catalog("lake")
        catalog.create_namespace_if_not_exists("dom")
        table = catalog.load_table(sys.argv[1])
        print(table.scan().to_arrow().num_rows)
except OffloadError as error:
    print(error.id)
"""


@pytest.mark.parametrize("trusted", [True, False])
def test_the_catalog_and_the_store_through_tls(
    domain: Domain, table: MakeDomainTable, ours: Authority, stranger: Authority, tmp_path: Path, trusted: bool
) -> None:
    """Their libraries take a CA from the environment only, so in a process of its own."""
    from local import ports

    t = table().fill(0)
    t.run()
    proxies = [TlsProxy(ports.port(name), ours) for name in ("ICEBERG", "S3")]
    configured = domain.servers.secret(".pyiceberg.yaml")
    for name, proxy in zip(("ICEBERG", "S3"), proxies, strict=True):
        configured = configured.replace(f"http://127.0.0.1:{ports.port(name)}", f"https://127.0.0.1:{proxy.port}")
    (tmp_path / ".pyiceberg.yaml").write_text(configured + "\n")
    # the catalog's CA is right in both: so both get as far as the store
    files = {"REQUESTS_CA_BUNDLE": str(ours.ca), "SSL_CERT_FILE": str(ours.ca if trusted else stranger.ca)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CATALOG_PROGRAM, ".".join(t.target)],
            cwd=ROOT, env={**os.environ, **files, "PYICEBERG_HOME": str(tmp_path)}, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
    finally:
        for proxy in proxies:
            proxy.close()
    assert done.stdout.split() == ["10" if trusted else TLS_UNTRUSTED.id], done.stderr[-1000:]
    assert (proxies[0].received > 0, proxies[1].received > 0) == (True, trusted)


@pytest.mark.parametrize(
    "uri",
    [
        "https://u:geheim@h:1/?verfy=false",
        "https://u:geheim@h:1/?verify=maybe",
        "https://u:geheim@h:1/?ca=/x.pem",
        "http://u:geheim@h:1/?ca_cert=/x.pem",
        "http://u:geheim@h:1/?verify=false",
    ],
)
def test_a_tls_setting_that_would_not_count_is_refused(uri: str) -> None:
    with pytest.raises(OffloadError) as refused:
        parse_uri(uri)
    assert refused.value.kind is SETTING_MISSING
    assert "geheim" not in str(refused.value)
