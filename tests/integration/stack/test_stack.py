"""Start, stop and look: loopback only, no secret in sight, errors that say what to do, no process left."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg
import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import OAuthError, UnauthorizedError

from local import ports, secrets
from local.services import BY_NAME
from local.stack import Progress, Stack, StackError, Status
from local.supervisor import MARK
from tests.support.airflow_driver import poll


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A second stack on other ports; stopped and removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="offload-other-"))
    monkeypatch.setenv("OFFLOAD_HOME", str(home))
    monkeypatch.setenv("OFFLOAD_PORT_BASE", "27700")
    made = Stack(home)
    yield made
    made.stop()
    shutil.rmtree(home, ignore_errors=True)


def everything(stack: Stack) -> list[psutil.Process]:
    return [process for process in stack.supervisor.marked() if process.is_running()]


def test_every_server_answers_and_says_where(stack: Stack) -> None:
    def settled() -> dict[str, Status] | None:
        """supervisord calls a server STARTING for its first second."""
        found = {status.service: status for status in stack.status(["data"])}
        return None if any(status.state == "STARTING" for status in found.values()) else found

    found = poll(settled, 20, "a server is still starting")
    assert set(found) == {"postgres", "clickhouse", "seaweedfs", "statsd-exporter"}
    for status in found.values():
        assert (status.state, status.answers) == ("RUNNING", True)
        assert status.pid and Path(status.log).exists()
    assert found["clickhouse"].ports == {"CLICKHOUSE": ports.port("CLICKHOUSE")}


def bound(stack: Stack) -> set[tuple[str, int]]:
    """The address of every socket of the stack's servers that waits for somebody, or is not connected."""
    found = set()
    for process in everything(stack):
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                waits = connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
                if waits and not connection.raddr:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_all_listen_on_loopback_and_where_they_said(stack: Stack) -> None:
    """A client's socket may be unconnected for a moment, and a server opens its ports one after the other."""
    said = {("127.0.0.1", ports.port(name)) for status in stack.status(["data"]) for name in status.ports}
    looks: list[set[tuple[str, int]]] = []

    def as_said() -> bool:
        looks.append(bound(stack))
        return looks[-1] == said

    with suppress(TimeoutError):
        poll(as_said, 20, "other addresses than said")
    assert looks[-1] == said


def test_no_secret_is_on_a_command_line_and_none_can_be_read_by_others(stack: Stack) -> None:
    values = [secrets.read(stack.home, name) for name in secrets.GENERATED]
    for process in everything(stack):
        line = " ".join(process.cmdline())
        assert not [name for name, value in zip(secrets.GENERATED, values, strict=True) if value in line]
    assert stack.home.secrets.stat().st_mode & 0o777 == 0o700
    for path in stack.home.secrets.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    configuration = stack.supervisor.config.read_text()
    assert not [value for value in values if value in configuration]


def test_starting_again_keeps_what_runs(stack: Stack) -> None:
    before = {status.service: status.pid for status in stack.status(["data"])}
    passwords = {name: secrets.read(stack.home, name) for name in secrets.GENERATED}
    stack.start(["data"])
    assert {status.service: status.pid for status in stack.status(["data"])} == before
    assert {name: secrets.read(stack.home, name) for name in secrets.GENERATED} == passwords


def test_roles_reach_their_own_database_only(stack: Stack) -> None:
    with psycopg.connect(secrets.read(stack.home, "offload_ledger_uri")) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == ("offload_ledger", "offload")
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
    foreign = secrets.read(stack.home, "offload_ledger_uri").removesuffix("/offload") + "/airflow"
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(foreign)
    anyone = f"postgresql://postgres:wrong@127.0.0.1:{ports.port('POSTGRES')}/postgres"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(anyone)


@pytest.mark.parametrize("name", ["lake", "lake_sql"])
def test_both_catalogs_keep_a_table(stack: Stack, name: str) -> None:
    rows = pa.table({"a": pa.array([1, 2, 3]), "b": ["x", "y", None]})
    # closing: a SQL catalog keeps connections open
    with closing(load_catalog(name, **_catalog_properties(stack, name))) as catalog:
        catalog.create_namespace_if_not_exists("probe")
        table = catalog.create_table("probe.t", schema=rows.schema)
        try:
            table.append(rows)
            assert catalog.load_table("probe.t").scan().to_arrow().sort_by("a").to_pylist() == rows.to_pylist()
        finally:
            catalog.drop_table("probe.t")
        assert catalog.list_tables("probe") == []


def test_the_catalog_refuses_a_wrong_credential(stack: Stack) -> None:
    properties = _catalog_properties(stack, "lake")
    with pytest.raises(OAuthError):
        load_catalog("lake", **{**properties, "credential": "offload:wrong"})
    with pytest.raises(UnauthorizedError):
        load_catalog("lake", **{k: v for k, v in properties.items() if k != "credential"}).list_namespaces()


def _catalog_properties(stack: Stack, name: str) -> dict[str, str]:
    import yaml

    found = yaml.safe_load((stack.home.secrets / ".pyiceberg.yaml").read_text())["catalog"][name]
    return {key: str(value) for key, value in found.items()}


def test_a_taken_port_is_named_with_its_variable(other: Stack) -> None:
    with socket.socket() as squatter:
        squatter.bind((ports.HOST, ports.port("STATSD_METRICS")))
        squatter.listen()
        with pytest.raises(StackError, match=r"port 27705 of statsd-exporter .* OFFLOAD_PORT_STATSD_METRICS"):
            other.start(["statsd-exporter"])
    assert everything(other) == []


def test_a_server_that_can_not_start_shows_its_last_words(other: Stack) -> None:
    other.home.make()
    # a file where its data directory should be
    other.home.clickhouse.write_text("")
    with pytest.raises(StackError, match=r"(?s)clickhouse does not stay up\. Last lines of .*FileExistsError"):
        other.start(["clickhouse"])


def test_stop_leaves_no_process_whatever_ran_away(other: Stack) -> None:
    seen: list[Progress] = []
    other.start(["statsd-exporter", "postgres"], on_progress=seen.append)
    assert {p.service for p in seen if p.state == "ready"} == {"statsd-exporter", "postgres"}
    # in a session of its own and with another parent, like a Spark JVM whose task was killed
    stray = subprocess.Popen(
        ["/bin/sleep", "600"], start_new_session=True, env={"PATH": "/bin", MARK: str(other.home.root)}
    )
    assert len(everything(other)) >= 4
    assert other.stop() == [stray.pid]
    assert stray.wait(5) is not None
    assert everything(other) == []
    assert all(ports.is_free(name) for name in (*BY_NAME["postgres"].ports, *BY_NAME["statsd-exporter"].ports))
    assert other.stop() == []


def test_a_killed_supervisor_leaves_nothing_that_stop_does_not_end(other: Stack) -> None:
    other.start(["statsd-exporter"])
    (orphan,) = (p for p in everything(other) if "statsd_exporter" in p.name())
    psutil.Process(int(other.supervisor.call("getPID"))).kill()
    assert orphan.is_running()
    assert orphan.pid in other.stop()
    assert everything(other) == []


def test_data_outlives_stop_and_purge_ends_it(other: Stack) -> None:
    other.start(["postgres"])
    uri = secrets.read(other.home, "offload_ledger_uri")
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE TABLE offload.kept AS SELECT 42 AS answer")
    with pytest.raises(StackError, match="still runs"):
        other.purge()
    other.stop()
    other.start(["postgres"])
    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT answer FROM offload.kept").fetchone() == (42,)
    other.stop()
    foreign = other.home.root / "somebody-elses"
    foreign.write_text("")
    other.purge()
    assert list(other.home.root.iterdir()) == [foreign]
