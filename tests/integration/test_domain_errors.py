"""Bad input: refused within seconds with id, table, cause and next step; nothing is committed, the next run works."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from include.offload.errors import (
    CATALOG_UNREACHABLE,
    CURSOR_UNFIT,
    FINAL_UNSAFE,
    LEDGER_UNREACHABLE,
    SCHEMA_NEEDS_ACCEPT,
    SETTING_MISSING,
    SOURCE_COLUMN_MISSING,
    SOURCE_QUERY_FAILED,
    SOURCE_REFUSED_LOGIN,
    SOURCE_TABLE_MISSING,
    SOURCE_UNREACHABLE,
    STORE_REFUSED,
    TYPE_NOT_LOSSLESS,
    ErrorKind,
    OffloadError,
)
from include.offload.settings import Settings, load
from include.offload.source.client import Client
from tests.support.domain import DDL, SPEC, Domain, DomainTable, MakeDomainTable

pytestmark = pytest.mark.timeout(120)
WITHIN_S = 20
"""The promise is seconds; this machine may be busy with other things."""


def refused(t: DomainTable, act: Callable[[], object], kind: ErrorKind) -> OffloadError:
    """The refusal, which names the table and what to do, came quickly."""
    began = time.monotonic()
    with pytest.raises(OffloadError) as found:
        act()
    error = found.value
    assert error.kind is kind, str(error)
    assert time.monotonic() - began < WITHIN_S
    assert error.table in {t.identity, None}
    assert "Next: " in str(error)
    assert "\n" not in str(error)
    return error


def nothing_happened(t: DomainTable) -> None:
    assert not t.exists()
    rows = t.domain.ledger(
        "SELECT count(*) FROM offload.plans JOIN offload.tables USING (table_id) WHERE identity = %s", t.identity
    )
    assert rows == [(0,)]


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


# ---- ClickHouse ------------------------------------------------------------------------------------------------------


def clickhouse(domain: Domain, *, password: str | None = None, port: int | None = None, user: str = "offload") -> str:
    known = urlsplit(domain.servers.secret("offload_clickhouse_uri"))
    return f"http://{user}:{password or known.password}@127.0.0.1:{port or known.port}/"


def with_settings(table: MakeDomainTable, settings: Settings, more: str = "") -> DomainTable:
    t = table(more, settings=settings)
    t.fill(0)
    t.unverifiable = "its servers can not be reached"
    return t


def test_a_wrong_password(table: MakeDomainTable, domain: Domain) -> None:
    t = with_settings(table, load(clickhouse_uri=clickhouse(domain, password="wrong-one")))
    error = refused(t, t.check, SOURCE_REFUSED_LOGIN)
    assert "wrong-one" not in str(error)
    nothing_happened(t)


def test_an_unknown_user(table: MakeDomainTable, domain: Domain) -> None:
    t = with_settings(table, load(clickhouse_uri=clickhouse(domain, user="stranger")))
    refused(t, t.check, SOURCE_REFUSED_LOGIN)


def test_a_server_that_is_not_there(table: MakeDomainTable, domain: Domain) -> None:
    t = with_settings(table, load(clickhouse_uri=clickhouse(domain, port=closed_port())))
    error = refused(t, t.check, SOURCE_UNREACHABLE)
    assert "127.0.0.1" in error.cause


def test_a_server_that_never_answers(table: MakeDomainTable, domain: Domain) -> None:
    """It takes connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        t = with_settings(table, load(clickhouse_uri=clickhouse(domain, port=silent.getsockname()[1])))
        refused(t, t.check, SOURCE_UNREACHABLE)


def test_a_replica_that_is_away_is_passed_over(table: MakeDomainTable, domain: Domain) -> None:
    uris = f"{clickhouse(domain, port=closed_port())},{clickhouse(domain)}"
    t = table(settings=load(clickhouse_uri=uris)).fill(0)
    assert t.run().rows == 10


def test_a_pinned_replica_that_left_the_configuration_is_refused(table: MakeDomainTable, domain: Domain) -> None:
    """Rule 11: what was planned on one replica is not read from another."""
    t = table().fill(0)
    plan = t.check().plan
    other = DomainTable(domain, t.name, domain.context(clickhouse_uri=clickhouse(domain, port=closed_port())))
    refused(t, lambda: other.ship(plan.plan_id), SOURCE_UNREACHABLE)
    other.ctx.close()
    assert t.run().rows == 10


def test_no_clickhouse_configured(table: MakeDomainTable, domain: Domain) -> None:
    t = with_settings(table, domain.context().settings.model_copy(update={"clickhouse_uri": None}))
    error = refused(t, t.check, SETTING_MISSING)
    assert "OFFLOAD_CLICKHOUSE_URI" in error.cause


def test_a_missing_table(table: MakeDomainTable) -> None:
    t = table(ddl=None)
    t.unverifiable = "it never existed"
    error = refused(t, t.check, SOURCE_TABLE_MISSING)
    assert t.name in error.cause
    nothing_happened(t)


def test_a_missing_database(table: MakeDomainTable) -> None:
    t = table("source: {database: no_such_database}\n", ddl=None)
    t.unverifiable = "it never existed"
    refused(t, t.check, SOURCE_TABLE_MISSING)


def test_a_table_that_is_dropped_between_planning_and_reading(table: MakeDomainTable) -> None:
    t = table().fill(0)
    plan = t.check().plan.plan_id
    t.sql("DROP TABLE {table} SYNC")
    refused(t, lambda: t.ship(plan), SOURCE_TABLE_MISSING)
    assert t.lake().current_snapshot() is None
    t.unverifiable = "it was dropped"


def test_a_column_that_is_dropped_between_planning_and_reading(table: MakeDomainTable) -> None:
    t = table().fill(0)
    plan = t.check().plan.plan_id
    t.mutate("DROP COLUMN note")
    refused(t, lambda: t.ship(plan), SOURCE_COLUMN_MISSING)
    assert t.lake().current_snapshot() is None
    t.unverifiable = "its target was made for a column that is gone"


@pytest.mark.parametrize(
    ("line", "kind", "names"),
    [
        ("cursor: nowhere", SOURCE_COLUMN_MISSING, "nowhere"),
        ("cursor: note", CURSOR_UNFIT, "note"),
        ("cursor: id", CURSOR_UNFIT, "id"),
        ("sequence: nowhere", SOURCE_COLUMN_MISSING, "nowhere"),
        ("columns: {exclude: [nowhere]}", SOURCE_COLUMN_MISSING, "nowhere"),
        ("source: {final: true}", FINAL_UNSAFE, "MergeTree"),
    ],
    ids=lambda v: v.replace(" ", "") if isinstance(v, str) else v.id,
)
def test_a_spec_that_does_not_fit_the_table(table: MakeDomainTable, line: str, kind: ErrorKind, names: str) -> None:
    key = line.partition(":")[0]
    spec = "".join(x + "\n" for x in SPEC.strip().splitlines() if not x.startswith(f"{key}:")) + line + "\n"
    t = table(spec=spec).fill(0)
    t.unverifiable = "it is never offloaded"
    error = refused(t, t.check, kind)
    assert names in error.cause
    nothing_happened(t)
    # mended, it works
    t.unverifiable = None
    t.write_spec(SPEC)
    assert t.run().rows == 10


def test_a_type_without_a_lossless_mapping(table: MakeDomainTable) -> None:
    t = table(ddl=DDL.replace("tags Array", "state AggregateFunction(sum, UInt64), tags Array"))
    t.unverifiable = "it is never offloaded"
    error = refused(t, t.check, TYPE_NOT_LOSSLESS)
    assert "state" in error.cause
    nothing_happened(t)


def test_a_column_that_is_dropped_in_clickhouse_is_refused_until_somebody_accepts_it(table: MakeDomainTable) -> None:
    """The rest of what may change is in test_domain_schema.py."""
    t = table().fill(0)
    t.run()
    t.mutate("DROP COLUMN note")
    error = refused(t, t.check, SCHEMA_NEEDS_ACCEPT)
    assert "note" in error.cause
    assert f"bin/offload schema accept {t.identity}" in error.next_step
    assert len(t.snapshots()) == 1


def test_a_query_that_needs_too_much_memory_fails_cleanly(table: MakeDomainTable) -> None:
    """The source is protected by the spec's limits; what does not fit is refused, not taken."""
    t = table()
    t.fill(0)
    t.sql("INSERT INTO {table} SELECT ts, id, sym, price, size, repeat('x', 1000000), tags FROM {table}")
    spec = t.spec.model_copy(deep=True)
    limits = spec.source.limits.model_copy(update={"memory": 1_000_000})
    tight = spec.model_copy(update={"source": spec.source.model_copy(update={"limits": limits})})
    error = refused(t, lambda: t.check(spec=tight), SOURCE_QUERY_FAILED)
    assert "MEMORY_LIMIT_EXCEEDED" in error.cause or "memory limit" in error.cause.lower()
    assert t.run().rows == 20


@pytest.mark.parametrize(
    "profile",
    [
        {"max_rows_to_group_by": 1, "group_by_overflow_mode": "any"},
        {"max_rows_to_read": 5, "read_overflow_mode": "break", "max_threads": 1, "max_block_size": 1},
        {"max_result_rows": 1, "result_overflow_mode": "break", "max_block_size": 1},
        {"limit": 1},
        {"offset": 1},
    ],
    ids=lambda p: next(iter(p)),
)
def test_a_profile_that_cuts_answers_short_loses_no_row(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch, profile: dict[str, object]
) -> None:
    """Settings that a user's profile may hold; those of a query win over it. All rows come, or none and an error."""
    t = table().fill(0, 1).fill(2, sym="b")
    own = Client._per_query
    with monkeypatch.context() as patch:
        patch.setattr(Client, "_per_query", lambda self: profile | own(self))
        try:
            assert t.run().rows == 30
        except OffloadError as error:
            assert error.kind is SOURCE_QUERY_FAILED, error
            assert not t.exists()
    t.run()
    assert t.lake_ids() == t.source_ids()


# ---- ledger ----------------------------------------------------------------------------------------------------------


def test_a_ledger_that_is_not_there(table: MakeDomainTable) -> None:
    t = with_settings(table, load(ledger_uri=f"postgresql://u:secret@127.0.0.1:{closed_port()}/offload"))
    error = refused(t, t.check, LEDGER_UNREACHABLE)
    assert "secret" not in str(error)


def test_a_ledger_that_refuses_the_login(table: MakeDomainTable, domain: Domain) -> None:
    known = urlsplit(domain.servers.secret("offload_ledger_uri"))
    uri = f"postgresql://{known.username}:wrong-one@127.0.0.1:{known.port}/offload"
    t = with_settings(table, load(ledger_uri=uri))
    error = refused(t, t.check, LEDGER_UNREACHABLE)
    assert "wrong-one" not in str(error)


# ---- catalog and store -----------------------------------------------------------------------------------------------


@contextmanager
def catalog_file(domain: Domain, tmp_path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """PyIceberg's configuration of the stack, changed."""
    known = (domain.servers.home / "secrets" / ".pyiceberg.yaml").read_text()
    changed = change(known)
    assert changed != known
    (tmp_path / ".pyiceberg.yaml").write_text(changed)
    with pytest.MonkeyPatch.context() as env:
        env.setenv("PYICEBERG_HOME", str(tmp_path))
        yield


def test_a_catalog_that_is_not_there(table: MakeDomainTable, domain: Domain, tmp_path: Path) -> None:
    from local import ports

    iceberg = ports.port("ICEBERG")
    with catalog_file(domain, tmp_path, lambda c: c.replace(f":{iceberg}", f":{closed_port()}")):
        t = with_settings(table, load())
        refused(t, t.check, CATALOG_UNREACHABLE)
    nothing_happened(t)


def test_a_catalog_that_refuses_the_login(table: MakeDomainTable, domain: Domain, tmp_path: Path) -> None:
    key = domain.servers.secret("s3_secret_key")
    with catalog_file(domain, tmp_path, lambda c: c.replace(key, "wrong-one")):
        t = with_settings(table, load())
        error = refused(t, t.check, CATALOG_UNREACHABLE)
        assert key not in str(error)


def test_a_catalog_that_is_not_configured(table: MakeDomainTable) -> None:
    t = with_settings(table, load(catalog="no_such_catalog"))
    error = refused(t, t.check, SETTING_MISSING)
    assert "no_such_catalog" in error.cause


def test_a_bucket_that_does_not_exist(table: MakeDomainTable, domain: Domain, tmp_path: Path) -> None:
    with catalog_file(domain, tmp_path, lambda c: c.replace("s3://lake/", "s3://no-such-bucket/")):
        t = with_settings(table, load())

        def run() -> None:
            t.ship(t.check().plan.plan_id)

        refused(t, run, CATALOG_UNREACHABLE)


def test_a_store_that_refuses_the_key(table: MakeDomainTable, domain: Domain, tmp_path: Path) -> None:
    """The SQL catalog knows no key: the store refuses when the table is made."""
    key = domain.servers.secret("s3_sql_secret_key")
    with catalog_file(domain, tmp_path, lambda c: c.replace(key, "wrong-one")):
        t = with_settings(table, load(catalog="lake_sql"))
        plan = t.check().plan.plan_id
        error = refused(t, lambda: t.ship(plan), STORE_REFUSED)
        assert "wrong-one" not in str(error)


def test_a_store_that_is_not_there(table: MakeDomainTable, domain: Domain, tmp_path: Path) -> None:
    from local import ports

    s3 = ports.port("S3")
    with catalog_file(domain, tmp_path, lambda c: c.replace(f":{s3}", f":{closed_port()}")):
        t = with_settings(table, load(catalog="lake_sql"))
        plan = t.check().plan.plan_id
        refused(t, lambda: t.ship(plan), STORE_REFUSED)


def test_a_login_in_an_error_does_not_reach_the_ledger(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.ctx.ledger.failed(t.identity, "OFL-501 could not connect to postgresql://me:geheim@db:5432/offload: refused")
    ((said,),) = t.domain.ledger("SELECT last_error FROM offload.watermarks WHERE table_name = %s", t.identity)
    assert "geheim" not in said
    assert said.startswith("OFL-501 could not connect to postgresql://")
