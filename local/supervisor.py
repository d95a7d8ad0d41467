"""supervisord runs the servers: its configuration is generated, its control socket is for the owner only.

- Every server carries `OFFLOAD_STACK=<home>` in its environment. Children inherit it, so that whatever a server leaves
  behind (a Spark JVM whose Airflow task was killed, say) is found by that mark and ended by its process id.
- A socket's path may have 107 bytes at most: a deep home puts it into a private directory of the temporary directory.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from local import secrets
from local.paths import ROOT, Home, venv_bin
from local.services import Service

MARK = "OFFLOAD_STACK"
LONGEST_SOCKET_PATH = 100


class Supervisor:
    """The process manager of one home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.config = home.etc / "supervisord.conf"
        self.pid_file = home.run / "supervisord.pid"
        socket = home.run / "supervisor.sock"
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            name = f"offload-{os.geteuid()}-{hashlib.sha256(os.fsencode(home.root)).hexdigest()[:12]}"
            private = Path(tempfile.gettempdir()) / name
            private.mkdir(mode=0o700, exist_ok=True)
            socket = private / "supervisor.sock"
        self.socket = socket

    def call(self, method: str, *arguments: object) -> Any:
        """A call to supervisord. Raises OSError when it does not run, xmlrpc.client.Fault when it refuses."""
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        try:
            server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(server.supervisor, method)(*arguments)
        finally:
            transport.close()

    def runs(self) -> bool:
        """Whether supervisord answers."""
        try:
            return bool(self.call("getState")["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error):
            return False

    def states(self) -> dict[str, Mapping[str, Any]]:
        """What supervisord says of every server it knows; empty when it does not run."""
        try:
            return {str(info["name"]): info for info in self.call("getAllProcessInfo")}
        except (OSError, xmlrpc.client.Error):
            return {}

    def configure(self, services: Iterable[Service]) -> None:
        """Write the configuration. Paths are quoted; a `%` would be read as an expansion and is doubled."""
        lines = [
            "[unix_http_server]",
            f"file={_plain(self.socket)}",
            "chmod=0600",
            "[supervisord]",
            f"logfile={_plain(self.home.logs / 'supervisord.log')}",
            f"pidfile={_plain(self.pid_file)}",
            f"childlogdir={_plain(self.home.logs)}",
            f"directory={_plain(ROOT)}",
            "loglevel=info",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for service in services:
            environment = {MARK: str(self.home.root), **service.environment(self.home)}
            lines += [
                f"[program:{service.name}]",
                f"command={_plain(shlex.join(service.command(self.home)))}",
                "environment=" + ",".join(f'{k}="{_plain(v)}"' for k, v in environment.items()),
                "autostart=false",
                "autorestart=true",
                "startsecs=1",
                "startretries=3",
                f"stopsignal={service.stop_signal}",
                f"stopwaitsecs={service.stop_s}",
                # the signal goes to the server itself; what is left of its group after the wait is killed
                "stopasgroup=false",
                "killasgroup=true",
                "redirect_stderr=true",
                f"stdout_logfile={_plain(self.log_of(service.name))}",
                "stdout_logfile_maxbytes=50MB",
                "stdout_logfile_backups=2",
            ]
        secrets.write(self.config, "\n".join(lines) + "\n")

    def log_of(self, name: str) -> Path:
        return self.home.logs / f"{name}.log"

    def ensure(self, limit_s: float = 15.0) -> None:
        """Start supervisord, or let a running one read the new configuration. Raises RuntimeError with its words."""
        if self.runs():
            added, changed, removed = self.call("reloadConfig")[0]
            running = {name for name, info in self.states().items() if info["statename"] == "RUNNING"}
            for name in [*removed, *changed]:
                # a running server keeps its old configuration until it is stopped
                if name not in running:
                    self.call("removeProcessGroup", name)
            for name in [*added, *changed]:
                if name not in running:
                    self.call("addProcessGroup", name)
            return
        self.socket.unlink(missing_ok=True)
        clean = {k: v for k, v in os.environ.items() if k != MARK}
        started = subprocess.run(
            [str(venv_bin("supervisord")), "-c", str(self.config)],
            check=False,
            capture_output=True,
            text=True,
            env=clean | {MARK: str(self.home.root)},
            timeout=60,
        )
        deadline = time.monotonic() + limit_s
        while not self.runs():
            if started.returncode != 0 or time.monotonic() > deadline:
                raise RuntimeError(f"supervisord did not start: {started.stderr.strip() or started.stdout.strip()}")
            time.sleep(0.05)

    def start(self, name: str) -> None:
        """Start a server that is not running."""
        state = self.states().get(name, {}).get("statename")
        if state not in {"RUNNING", "STARTING"}:
            self.call("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Ask a server to stop; returns at once."""
        if self.states().get(name, {}).get("statename") in {"RUNNING", "STARTING", "BACKOFF"}:
            self.call("stopProcess", name, False)

    def shut_down(self, limit_s: float = 20.0) -> None:
        """End supervisord, when all its servers have stopped."""
        try:
            pid = int(self.call("getPID"))
            process = psutil.Process(pid)
            self.call("shutdown")
            process.wait(limit_s)
        except (OSError, xmlrpc.client.Error, psutil.NoSuchProcess):
            return
        except psutil.TimeoutExpired:
            process.kill()

    def marked(self) -> list[psutil.Process]:
        """Every process that descends from this stack's servers, wherever it went; never the caller itself."""
        own = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
        found = []
        for process in psutil.process_iter():
            if process.pid in own:
                continue
            try:
                if process.environ().get(MARK) == str(self.home.root):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def end_left_over(self, limit_s: float = 5.0) -> list[int]:
        """End, by process id, whatever the servers left behind. The ids that had to be ended."""
        left = self.marked()
        for process in left:
            _signal(process, "terminate")
        _, stubborn = psutil.wait_procs(left, timeout=limit_s)
        for process in stubborn:
            _signal(process, "kill")
        psutil.wait_procs(stubborn, timeout=limit_s)
        return [process.pid for process in left]


def _signal(process: psutil.Process, action: str) -> None:
    try:
        getattr(process, action)()
    except psutil.NoSuchProcess:
        return


def _plain(value: object) -> str:
    text = str(value).replace("%", "%%")
    if "\n" in text or '"' in text:
        raise ValueError(f"{text!r} can not stand in supervisord's configuration: no quotes or line ends in paths")
    return text
