"""Who may do what: the shipped SQL is all that a run needs; the real servers refuse what it does not grant."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import s3fs
import yaml
from pyiceberg.catalog import load_catalog

from include.offload.context import open_context
from include.offload.errors import SOURCE_QUERY_FAILED, SOURCE_REFUSED_LOGIN, OffloadError
from include.offload.ledger.migrate import upgrade
from include.offload.settings import ROOT, load
from include.offload.source.client import Client, parse_uri
from include.offload.spec.load import load_spec
from include.offload.steps import RunRequest, check_extent, ship, update_watermark
from include.offload.verify import verify
from local import k2, secrets
from local.clickhouse_access import shipped
from tests.support.domain import Domain, inline
from tests.support.own_front import OwnFront, own_front
from tests.support.stack import Servers

pytestmark = pytest.mark.timeout(120)
SPEC = (ROOT / "dags" / "tables" / "k2" / "silver_trades.yaml").read_text()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnFront]:
    """ClickHouse with the k2 tables, one that nobody listed, and exactly the rights of deploy/sql/clickhouse.sql."""
    with own_front(tmp_path_factory.mktemp("front"), "--listed") as running:
        with client(running, "k2_admin") as admin:
            admin.command("CREATE DATABASE IF NOT EXISTS k2")
            for statement in k2.ddl():
                admin.command(statement)
            admin.command("CREATE TABLE k2.payroll (name String) ENGINE = MergeTree ORDER BY name")
            admin.command("INSERT INTO k2.payroll VALUES ('not for the lake')")
            now = int(time.time()) * 1_000_000
            trades = k2.trades_sql(k2.EXCHANGES[0], 0, 2_000, now - 3 * 3_600_000_000, now - 3_600_000_000)
            admin.command(f"INSERT INTO k2.{k2.EXCHANGES[0].table} {trades}")
        yield running


def client(front: OwnFront, user: str, **settings: object) -> Client:
    return Client(parse_uri(front.uri(user)), settings=settings, comment="permissions", table=None)


def refused(act: Callable[[], object], *codes: int) -> None:
    with pytest.raises(OffloadError) as error:
        act()
    assert error.value.kind in {SOURCE_REFUSED_LOGIN, SOURCE_QUERY_FAILED}
    assert re.search(rf"Code: ({'|'.join(map(str, codes))})\.", str(error.value)), error.value


def test_the_shipped_grants_are_enough_for_a_whole_run(domain: Domain, front: OwnFront) -> None:
    """Check, ship, watermark, verify by two readers; and the front's log names no system table beyond the granted."""
    name = f"granted_{domain.session}_{time.time_ns():x}"
    file = domain.servers.tables / "dom" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(SPEC + "source: {database: k2, table: silver_trades}\nhorizon: 2d\n")
    ctx = open_context(load(clickhouse_uri=front.uri("offload")))
    try:
        spec = load_spec(f"dom.{name}", domain.servers.tables).model_copy(
            update={"target": load_spec("k2.silver_trades", ROOT / "dags" / "tables").target.model_copy(
                update={"namespace": "dom", "table": name}
            )}
        )  # fmt: skip
        plan = check_extent(ctx, spec, RunRequest("granted")).plan
        assert ship(ctx, plan.plan_id, inline).rows == 2_000
        update_watermark(ctx, spec, plan.plan_id)
        report = verify(ctx, spec)
        assert report.ok, report
        assert report.lake_rows == 2_000
    finally:
        file.unlink()
        ctx.close()
    granted = {g.split()[-1] for g in shipped()["offload"].grants if " system." in g}
    assert set(re.findall(r" offload: .*?\b(?:FROM|JOIN) (system\.\w+)", front.log.read_text())) <= granted


def test_the_code_asks_no_system_table_that_is_not_granted() -> None:
    asked = {
        found
        for path in (ROOT / "include").rglob("*.py")
        for found in re.findall(r"FROM (system\.\w+)", path.read_text(encoding="utf-8"))
    }
    granted = {g.split()[-1] for g in shipped()["offload"].grants if " system." in g}
    # clickhouse-connect itself asks for the settings when it connects
    assert asked | {"system.settings"} == granted


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM k2.payroll",
        "SELECT name FROM merge('k2', 'payroll')",
        "INSERT INTO k2.silver_trades (trade_id) VALUES ('x')",
        "ALTER TABLE k2.silver_trades DELETE WHERE 1",
        "DROP TABLE k2.silver_trades",
        "TRUNCATE TABLE k2.silver_trades",
        "CREATE TABLE k2.mine (x Int8) ENGINE = Memory",
        "SYSTEM STOP TTL MERGES k2.silver_trades",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM system.users",
        "GRANT SELECT ON *.* TO offload",
        "SET readonly = 0",
    ],
)
def test_the_reader_is_refused_what_is_not_granted(front: OwnFront, statement: str) -> None:
    with client(front, "offload") as reader:
        # 636: merge() finds no table that may be read
        refused(lambda: reader.command(statement), 497, 164, 636)
    with client(front, "k2_admin") as admin:
        assert admin.query("SELECT count() FROM k2.payroll") == [(1,)]


def test_the_profile_bounds_what_a_spec_may_ask_for(front: OwnFront) -> None:
    """Code 452: a query may lower its limits, and raise them up to the administrator's bound."""
    with client(front, "offload") as reader:
        assert reader.query("SELECT getSetting('max_threads'), getSetting('readonly')") == [(2, 2)]
    with client(front, "offload", max_threads=16, max_memory_usage=2**30) as reader:
        assert reader.query("SELECT getSetting('max_threads')") == [(16,)]
    for settings in ({"max_threads": 17}, {"max_memory_usage": 2**35}, {"max_memory_usage": 0}):
        with client(front, "offload", **settings) as reader:
            refused(lambda r=reader: r.query("SELECT 1"), 452)  # type: ignore[misc]


def test_the_guard_stops_ttl_merges_and_nothing_else(front: OwnFront) -> None:
    with client(front, "offload_guard") as guard:
        guard.command("SYSTEM STOP TTL MERGES k2.silver_trades")
        guard.command("SYSTEM START TTL MERGES k2.silver_trades")
        for statement in (
            "SELECT count() FROM k2.silver_trades",
            "SYSTEM STOP MERGES k2.silver_trades",
            "INSERT INTO k2.payroll VALUES ('x')",
            "DROP TABLE k2.payroll",
        ):
            refused(lambda s=statement: guard.command(s), 497)  # type: ignore[misc]


def test_the_stack_gives_the_guard_a_login_of_its_own(data_stack: Servers) -> None:
    endpoint = parse_uri(data_stack.secret("offload_clickhouse_guard_uri"))
    assert endpoint.user == "offload_guard"
    with Client(endpoint, settings={}, comment="permissions", table=None) as guard:
        assert guard.query("SELECT 1") == [(1,)]


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------


def postgres(servers: Servers, role: str, database: str) -> psycopg.Connection[Any]:
    uri = servers.secret({"offload_ledger": "offload_ledger_uri", "airflow": "airflow_db_uri"}[role])
    return psycopg.connect(f"{uri.rpartition('/')[0]}/{database}", connect_timeout=5, autocommit=True)


@pytest.mark.parametrize(
    ("role", "database"),
    [("offload_ledger", d) for d in ("airflow", "iceberg", "postgres", "template1")]
    + [("airflow", d) for d in ("offload", "iceberg", "postgres")],
)
def test_a_role_can_not_even_connect_elsewhere(data_stack: Servers, role: str, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        postgres(data_stack, role, database)


def test_the_ledgers_role_owns_a_schema_and_nothing_more(data_stack: Servers) -> None:
    with postgres(data_stack, "offload_ledger", "offload") as c:
        rights = c.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit FROM pg_roles"
            " WHERE rolname = current_user"
        ).fetchone()
        assert rights == (False,) * 6
        assert c.execute("SELECT nspname FROM pg_namespace WHERE nspowner = current_user::regrole").fetchall() == [
            ("offload",)
        ]
        for statement in (
            "CREATE TABLE public.mine (x int)",
            "CREATE SCHEMA mine",
            "CREATE DATABASE mine",
            "CREATE ROLE mine",
            "DROP DATABASE airflow",
            "ALTER DATABASE offload SET search_path = mine",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT passwd FROM pg_shadow",
        ):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidCatalogName)):
                c.execute(statement.encode())
    # the schema is there, so the upgrade needs no right on the database
    upgrade(data_stack.secret("offload_ledger_uri"))


# ---- the object store and the catalog -------------------------------------------------------------------------------


def catalog_properties(servers: Servers, name: str) -> dict[str, str]:
    found = yaml.safe_load((servers.home / "secrets" / ".pyiceberg.yaml").read_text())["catalog"][name]
    return {key: str(value) for key, value in found.items()}


def store(servers: Servers, name: str) -> s3fs.S3FileSystem:
    properties = catalog_properties(servers, name)
    return s3fs.S3FileSystem(
        key=properties["s3.access-key-id"],
        secret=properties["s3.secret-access-key"],
        client_kwargs={"endpoint_url": properties["s3.endpoint"], "region_name": properties["s3.region"]},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def test_a_store_key_reaches_its_own_bucket_only(data_stack: Servers) -> None:
    ours, others = store(data_stack, "lake"), store(data_stack, "lake_sql")
    others.pipe("sqllake/permissions/x", b"not ours")
    assert others.cat("sqllake/permissions/x") == b"not ours"
    assert ours.ls("lake") is not None
    for act in (
        lambda: ours.cat("sqllake/permissions/x"),
        lambda: ours.pipe("sqllake/permissions/y", b"1"),
        lambda: ours.ls("sqllake"),
        lambda: ours.rm_file("sqllake/permissions/x"),
        lambda: ours.mkdir("a-bucket-of-ours"),
        lambda: others.ls("lake"),
    ):
        with pytest.raises(PermissionError):
            act()
    # deleting many at once answers with an error a key, and no failure of the whole
    ours.rm("sqllake/permissions/x")
    assert others.cat("sqllake/permissions/x") == b"not ours"
    others.rm("sqllake/permissions/x")


def test_the_catalogs_credential_reaches_its_own_warehouse_only(data_stack: Servers) -> None:
    properties = catalog_properties(data_stack, "lake")
    other = catalog_properties(data_stack, "lake_sql")
    key = f"{other['s3.access-key-id']}:{other['s3.secret-access-key']}"
    with closing(load_catalog("lake", **properties)) as catalog:
        assert catalog.list_namespaces() is not None
    with pytest.raises(Exception, match=r"not found|not authorized|Forbidden") as denied:
        load_catalog("lake", **{**properties, "credential": key}).list_namespaces()
    assert key not in str(denied.value)


def test_no_identity_of_the_store_may_do_everything(data_stack: Servers) -> None:
    for identity in json.loads(data_stack.secret("s3.json"))["identities"]:
        assert all(action.partition(":")[2] for action in identity["actions"]), identity["name"]


# ---- files ----------------------------------------------------------------------------------------------------------


def test_secrets_are_files_for_their_owner_alone(data_stack: Servers) -> None:
    """And what a set-up without a umask of its own leaves open, the next start closes."""
    folder = data_stack.home / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {p.name for p in folder.iterdir()} >= set(secrets.GENERATED)
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir() if p.is_file()} == {
        p.name: 0o600 for p in folder.iterdir() if p.is_file()
    }


def test_the_places_of_secrets_are_outside_git() -> None:
    places = [".run/secrets/offload_ledger_uri", ".run/compose-secrets/offload.env", ".env", ".run/jobs/secrets-x.env"]
    done = subprocess.run(["git", "check-ignore", *places], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == places


def test_a_secret_that_was_opened_to_others_is_closed_by_the_next_start(tmp_path: Path) -> None:
    from local.paths import Home

    home = Home(tmp_path / "home")
    secrets.ensure(home)
    home.secrets.chmod(0o755)
    (home.secrets / "s3_secret_key").chmod(0o644)
    (home.secrets / ".pyiceberg.yaml").chmod(0o644)
    secrets.ensure(home)
    assert stat.S_IMODE(home.secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in home.secrets.iterdir()} == {0o600}
