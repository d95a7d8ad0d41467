"""A ClickHouse front of a test's own, with its own data and a free port."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.airflow_bag import ROOT
from tests.support.airflow_driver import poll

USERS = ("offload", "offload_guard", "k2_admin")


@dataclass(frozen=True)
class OwnFront:
    """`log`: what the front wrote; `passwords`: by user; `process`: the server itself."""

    port: int
    passwords: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """What a plan calls this replica."""
        return f"127.0.0.1:{self.port}"

    def uri(self, user: str) -> str:
        return f"http://{user}:{self.passwords[user]}@{self.name}/"

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.process.kill()
        self.process.wait(30)


@contextmanager
def own_front(folder: Path, *options: str) -> Iterator[OwnFront]:
    """Start it with these options of `python -m local.clickhouse_front`; its data goes into `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    passwords, written = {user: secrets.token_urlsafe(12) for user in USERS}, folder / "front.log"
    file = folder / "passwords.json"
    file.write_text(json.dumps(passwords))
    command = [sys.executable, "-m", "local.clickhouse_front", f"--port={port}", f"--data={folder / 'data'}"]
    with written.open("w") as log:
        process = subprocess.Popen([*command, f"--passwords={file}", *options], cwd=ROOT, stdout=log, stderr=log)
    front = OwnFront(port, passwords, written, process)

    def answers() -> bool:
        assert process.poll() is None, front.log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        poll(answers, 60, "the front gave no answer", every_s=0.1)
        yield front
    finally:
        process.terminate()
        process.wait(30)
