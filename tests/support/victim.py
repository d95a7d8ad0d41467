"""A small server that an exercise stops or hangs, and the commands that a page of a test has for it.

`python tests/support/victim.py FOLDER start|ask-and-start|status|stop|hang|go-on`; `pid` and `port` are files in the
folder.
"""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

STARTED: list[subprocess.Popen[bytes]] = []
"""Kept, or Python would warn of a child that nobody waits for."""


class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802 - the name that the standard library asks for
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"victim_up 1\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


def process(folder: Path) -> psutil.Process | None:
    """The server's process, if it lives."""
    file = folder / "pid"
    if not file.exists():
        return None
    try:
        found = psutil.Process(int(file.read_text()))
        return found if found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def status(folder: Path) -> str:
    found = process(folder)
    if found is None:
        return "stopped"
    return "hung" if found.status() == psutil.STATUS_STOPPED else "running"


def start(folder: Path) -> str:
    """Starts it unless it lives; returns when it listens."""
    if process(folder) is None:
        child = subprocess.Popen(
            [sys.executable, __file__, str(folder), "serve"],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        STARTED.append(child)
        (folder / "pid").write_text(str(child.pid))
        end = time.monotonic() + 20
        while not any(c.status == psutil.CONN_LISTEN for c in psutil.Process(child.pid).net_connections()):
            assert child.poll() is None and time.monotonic() < end, "it does not listen"
            time.sleep(0.05)
    return "started"


def send(folder: Path, number: signal.Signals) -> None:
    found = process(folder)
    assert found is not None, "it does not run"
    found.send_signal(number)
    end = time.monotonic() + 10
    wanted = {signal.SIGKILL: "stopped", signal.SIGSTOP: "hung", signal.SIGCONT: "running"}[number]
    while status(folder) != wanted:
        assert time.monotonic() < end, f"it is {status(folder)}, not {wanted}"
        time.sleep(0.02)


def main() -> str:
    folder, act = Path(sys.argv[1]), sys.argv[2]
    if act == "serve":
        http.server.HTTPServer(("127.0.0.1", int((folder / "port").read_text())), Metrics).serve_forever()
    if act == "start":
        return start(folder)
    if act == "ask-and-start":
        sys.stdout.write("Start it? [y/N]: ")
        sys.stdout.flush()
        if sys.stdin.readline().strip() != "y":
            sys.stdout.write("Aborted.\n")
            sys.exit(1)
        return start(folder)
    if act == "go-on":
        send(folder, signal.SIGCONT)
        return "goes on"
    if act == "status":
        return status(folder)
    os.write(2, f"no such command: {act}\n".encode())
    sys.exit(2)


if __name__ == "__main__":
    sys.stdout.write(main() + "\n")
