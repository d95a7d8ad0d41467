"""A PostgreSQL of a test's own, with a ledger in it: it can be killed without harm to Airflow's database."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from include.offload.ledger.migrate import upgrade
from local.postgres import NOBODY, as_server, binaries
from tests.support.airflow_driver import poll


@dataclass
class OwnPostgres:
    """`uri`: of the ledger, for its owner."""

    data: Path
    port: int
    uri: str = field(repr=False)
    _server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, or start again, and wait until it takes logins: after a kill it replays its log first."""

        def answers() -> bool:
            if self._server is None or self._server.poll() is not None:
                # a server finds its dead predecessor's memory still in use until the last session noticed
                command = [str(binaries() / "postgres"), "-D", str(self.data), "-p", str(self.port)]
                options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "jit=off"]
                with (self.data.parent / "postgres.log").open("ab") as log:
                    self._server = subprocess.Popen(as_server([*command, *options]), stdout=log, stderr=log)
            try:
                psycopg.connect(self.uri, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        poll(answers, 60, "PostgreSQL gave no answer", every_s=0.1)

    def kill(self) -> None:
        """SIGKILL; its sessions end by themselves."""
        assert self._server is not None
        self._server.kill()
        self._server.wait(10)

    def kill_and_start(self) -> None:
        self.kill()
        self.start()

    @contextmanager
    def dies_at_a_write_to(self, table: str) -> Iterator[None]:
        """While the block runs, writes to this table wait; the server is killed as soon as one does."""
        over = threading.Event()
        with psycopg.connect(self.uri, autocommit=True) as watching:
            holding = psycopg.connect(self.uri)
            # readers pass
            holding.execute(f"LOCK TABLE {table} IN SHARE MODE")

            def waits() -> bool:
                found = watching.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
                return found is not None or over.is_set()

            def watch() -> None:
                poll(waits, 60, f"nobody wrote to {table}", every_s=0.02)
                if not over.is_set():
                    self.kill()

            thread = threading.Thread(target=watch)
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
                # not committed: the server is dead
                holding.close()
        assert self._server is not None and self._server.poll() is not None, f"nobody waited to write to {table}"


@contextmanager
def own_postgres(folder: Path) -> Iterator[OwnPostgres]:
    """A cluster in this folder, with a ledger at the newest revision."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    password = secrets.token_urlsafe(12)
    data = folder / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(data, NOBODY, NOBODY)
    file = folder / "password"
    file.write_text(password)
    options = ["--username=offload", "--auth=scram-sha-256", f"--pwfile={file}", "--no-sync", "--no-instructions"]
    command = [str(binaries() / "initdb"), *options, "--encoding=UTF8", "--locale=C", f"--pgdata={data}"]
    subprocess.run(as_server(command), check=True, capture_output=True, cwd="/")
    server = OwnPostgres(data, port, f"postgresql://offload:{password}@127.0.0.1:{port}/postgres")
    try:
        server.start()
        upgrade(server.uri)
        yield server
    finally:
        server.kill()
