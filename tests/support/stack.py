"""The one-machine stack for integration tests: a home, ports and table specs of its own.

`OFFLOAD_KEEP_STACK=1` leaves it running in `.run/test/` for debugging and for the next test run (any other value is
the directory to use); then `OFFLOAD_HOME=.run/test bin/offload stack stop` ends it. `OFFLOAD_TEST_PORT_BASE` moves its
ports.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.stack import Stack
from tests.support.airflow_bag import ROOT
from tests.support.airflow_driver import Driver

PORT_BASE = "27300"


@dataclass(frozen=True)
class Servers:
    """A running stack. `tables`: where its specs are; `crashes`: a file named after a crash point arms it."""

    home: Path
    tables: Path
    crashes: Path

    def secret(self, name: str) -> str:
        return (self.home / "secrets" / name).read_text().strip()

    def airflow(self) -> Driver:
        from local import ports

        return Driver(f"http://127.0.0.1:{ports.port('AIRFLOW')}", "admin", self.secret("airflow_admin_password"))


def _kept() -> Path | None:
    wish = os.environ.get("OFFLOAD_KEEP_STACK", "")
    if wish in {"", "0"}:
        return None
    return ROOT / ".run" / "test" if wish == "1" else Path(wish)


@contextmanager
def stack(names: list[str]) -> Iterator[Servers]:
    """Start these servers with this process's settings pointing at them."""
    home = _kept() or Path(tempfile.mkdtemp(prefix="offload-it-"))
    servers = Servers(home, home / "tables", home / "crashes")
    with pytest.MonkeyPatch.context() as env:
        for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "AIRFLOW", "PYICEBERG_"))]:
            if name not in {"OFFLOAD_KEEP_STACK", "OFFLOAD_TEST_PORT_BASE"}:
                env.delenv(name)
        env.setenv("OFFLOAD_HOME", str(home))
        env.setenv("OFFLOAD_PORT_BASE", os.environ.get("OFFLOAD_TEST_PORT_BASE", PORT_BASE))
        env.setenv("OFFLOAD_ALERT_PROFILE", "fast")
        env.setenv("OFFLOAD_TABLES", str(servers.tables))
        env.setenv("OFFLOAD_CRASH_DIR", str(servers.crashes))
        env.setenv("PYICEBERG_HOME", str(home / "secrets"))
        servers.crashes.mkdir(parents=True, exist_ok=True)
        if not servers.tables.exists():
            shutil.copytree(ROOT / "dags" / "tables", servers.tables)
        try:
            start(names)
            yield servers
        finally:
            if not _kept():
                said = _local("stop").stderr
                shutil.rmtree(home)
                assert "left-over" not in said, said


@contextmanager
def own_stack(names: list[str], port_base: str, **environment: str) -> Iterator[Stack]:
    """A throw-away stack beside the one that a session shares, in this process; it is stopped and removed at the end.

    Its settings are this process's as long as it lives, so a fixture of it must not outlive its module: pytest takes a
    package scope in a folder without __init__.py for the whole session.
    """
    home = Path(tempfile.mkdtemp(prefix="offload-own-"))
    own = {"OFFLOAD_HOME": str(home), "OFFLOAD_PORT_BASE": port_base, "PYICEBERG_HOME": str(home / "secrets")}
    with pytest.MonkeyPatch.context() as env:
        for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "PYICEBERG_"))]:
            env.delenv(name)
        for name, value in (own | environment).items():
            env.setenv(name, value)
        running = Stack(home)
        try:
            running.start(names)
            yield running
        finally:
            left = running.stop()
            shutil.rmtree(home)
        assert not left, f"processes that had to be killed: {left}"


def start(names: list[str]) -> None:
    """Start these servers or groups in the stack of this process's settings, in a process of its own."""
    done = _local("start", *names)
    assert done.returncode == 0, done.stderr


def stop(names: list[str]) -> None:
    """Stop these servers of the stack; their data stays."""
    done = _local("stop", *names)
    assert done.returncode == 0, done.stderr


def _local(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local", *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
