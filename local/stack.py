"""The one-machine stack: start, stop and look at its servers.

>>> from local.stack import Stack
>>> Stack().start(["postgres", "clickhouse"])  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from local import ports, secrets
from local.paths import Home, home
from local.services import SERVICES, Service, chosen
from local.supervisor import Supervisor

POLL_S = 0.1
LOG_LINES = 25
LIVES = 3
LIVE = frozenset({"RUNNING", "STARTING", "BACKOFF", "STOPPING"})


class StackError(RuntimeError):
    """A server that did not start, with its last words; or a port that somebody else holds."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of starting or stopping. `state`: starting, ready, stopping or stopped; `seconds` since its beginning."""

    service: str
    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """A server now. `state`: supervisord's word (RUNNING, STOPPED, BACKOFF, FATAL, …); `answers`: it works.

    taken: ports of a server that does not run, which another program holds: it can not start.
    """

    service: str
    state: str
    answers: bool
    pid: int | None
    uptime_s: int | None
    ports: dict[str, int]
    url: str | None
    log: str
    taken: tuple[int, ...] = ()


OnProgress = Callable[[Progress], None]


class Stack:
    """The servers of one home (`OFFLOAD_HOME`, else `.run/`)."""

    def __init__(self, root: Path | None = None) -> None:
        self.home: Home = home(root)
        self.supervisor = Supervisor(self.home)

    def start(self, names: list[str] | None = None, on_progress: OnProgress | None = None) -> None:
        """Start the named servers (all by default) and what they need; return when each one answers.

        A server that already runs is left alone. Raises StackError; what was started by then keeps running, so that
        its logs can be read and the next start goes on from there.
        """
        report = on_progress or (lambda _: None)
        services = _with_needs(chosen(names))
        self.home.make()
        with self._locked():
            secrets.ensure(self.home)
            try:
                self.supervisor.configure(SERVICES)
                states = self.supervisor.states()
                idle = [s for s in services if states.get(s.name, {}).get("statename") not in {"RUNNING", "STARTING"}]
                self._check_ports(idle)
                self.supervisor.ensure()
            except (FileNotFoundError, RuntimeError, ValueError) as error:
                raise error if isinstance(error, StackError) else StackError(str(error)) from error
            self._bring_up(services, report)

    def stop(self, names: list[str] | None = None, on_progress: OnProgress | None = None) -> list[int]:
        """Stop the named servers (all by default), dependents first. Data stays.

        Stopping all ends supervisord too, and then every process that descends from it. The ids of processes that
        did not end by themselves. Safe to call when nothing runs.
        """
        report = on_progress or (lambda _: None)
        whole = names is None or "all" in names
        services = chosen(names)
        if not self.home.root.exists():
            return []
        with self._locked():
            began = {service.name: time.monotonic() for service in services}
            states = self.supervisor.states()
            for wave in reversed(_waves(services)):
                live = [one for one in wave if states.get(one.name, {}).get("statename") in LIVE]
                for one in wave:
                    if one not in live and not whole:
                        # who named it is told, also when there is nothing to do
                        report(Progress(one.name, "was down", 0.0))
                for one in live:
                    report(Progress(one.name, "stopping", 0.0))
                    self.supervisor.stop(one.name)
                for one in live:
                    self._wait_stopped(one)
                    report(Progress(one.name, "stopped", time.monotonic() - began[one.name]))
            if not whole:
                return []
            self.supervisor.shut_down()
            return self.supervisor.end_left_over()

    def purge(self) -> None:
        """Remove all data, logs and passwords of a stopped stack. Raises StackError while a server runs."""
        running = [name for name, info in self.supervisor.states().items() if info["statename"] in LIVE]
        if running:
            raise StackError(f"{', '.join(running)} still runs: stop the stack before its data is removed")
        for path in self.home.own:
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.exists():
                shutil.rmtree(path)
        with contextlib.suppress(OSError):
            # only when nothing of anybody else lies there
            self.home.root.rmdir()

    def status(self, names: list[str] | None = None) -> list[Status]:
        """Every named server as it is now; asks each running one whether it answers."""
        states = self.supervisor.states()
        found = []
        for service in chosen(names):
            info = states.get(service.name, {})
            state = str(info.get("statename", "STOPPED"))
            # supervisord calls a server STARTING for its first second, though it may answer already
            running = state in {"RUNNING", "STARTING"}
            first = ports.port(service.ports[0]) if service.ports else None
            found.append(
                Status(
                    service.name,
                    state,
                    running and service.answers(self.home),
                    int(info["pid"]) if running else None,
                    int(info["now"]) - int(info["start"]) if running else None,
                    {name: ports.port(name) for name in service.ports},
                    service.url.format(port=first) if service.url else None,
                    str(self.supervisor.log_of(service.name)),
                    () if state in LIVE else tuple(ports.port(n) for n in service.ports if not ports.is_free(n)),
                )
            )
        return found

    def last_lines(self, names: list[str], count: int) -> dict[str, str]:
        """The end of each named server's log. Raises ValueError for an unknown name, StackError without a log."""
        found = {}
        for service in chosen(names):
            log = self.supervisor.log_of(service.name)
            if not log.exists():
                raise StackError(f"{service.name} has written no log yet ({log})")
            with log.open(errors="replace") as file:
                found[service.name] = "".join(deque(file, count))
        return found

    def _bring_up(self, services: tuple[Service, ...], report: OnProgress) -> None:
        for wave in _waves(services):
            began: dict[str, float] = {}
            for service in wave:
                if not service.answers(self.home):
                    report(Progress(service.name, "starting", 0.0))
                began[service.name] = time.monotonic()
                try:
                    service.prepare(self.home)
                except subprocess.CalledProcessError as error:
                    raise StackError(
                        f"{service.name} could not be prepared: {error}\n{error.stderr or error.stdout}"
                    ) from error
                self.supervisor.start(service.name)
            waiting = list(wave)
            lives: dict[str, set[int]] = {service.name: set() for service in wave}
            while waiting:
                for service in tuple(waiting):
                    if self._ready(service, began[service.name], lives[service.name]):
                        service.bootstrap(self.home)
                        waiting.remove(service)
                        report(Progress(service.name, "ready", time.monotonic() - began[service.name]))
                time.sleep(POLL_S)

    def _ready(self, service: Service, began: float, lives: set[int]) -> bool:
        """Whether it answers. Raises StackError when it dies again and again, or its time is up."""
        info = self.supervisor.states().get(service.name, {})
        state = str(info.get("statename", "STOPPED"))
        if info.get("pid"):
            lives.add(int(info["pid"]))
        # supervisord gives up on what dies within a second; slower deaths it would repeat for ever
        if state == "FATAL" or len(lives) > LIVES:
            self.supervisor.stop(service.name)
            raise StackError(f"{service.name} does not stay up. {self._last_words(service)}")
        if state in {"RUNNING", "STARTING"} and service.answers(self.home):
            return True
        if time.monotonic() - began > service.limit_s:
            raise StackError(
                f"{service.name} ({state}) gave no answer within {service.limit_s:.0f} s. {self._last_words(service)}"
            )
        return False

    def _wait_stopped(self, service: Service) -> None:
        deadline = time.monotonic() + service.stop_s + 10
        while self.supervisor.states().get(service.name, {}).get("statename") in LIVE:
            if time.monotonic() > deadline:
                raise StackError(f"{service.name} does not stop. {self._last_words(service)}")
            time.sleep(POLL_S)

    def _last_words(self, service: Service) -> str:
        log = self.supervisor.log_of(service.name)
        if not log.exists():
            return f"It wrote no log ({log})."
        with log.open(errors="replace") as file:
            lines = "".join(deque(file, LOG_LINES))
        return f"Last lines of {log}:\n{lines}"

    @staticmethod
    def _check_ports(services: list[Service]) -> None:
        for service in services:
            for name in service.ports:
                if not ports.is_free(name):
                    raise StackError(
                        f"port {ports.port(name)} of {service.name} is taken by another program: stop it, or choose "
                        f"another port with {ports.variable_of(name)}=… (or move all with OFFLOAD_PORT_BASE=…)"
                    )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One start or stop at a time for a home."""
        self.home.make()
        with (self.home.run / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _with_needs(services: tuple[Service, ...]) -> tuple[Service, ...]:
    names = {service.name for service in services}
    while True:
        more = names | {n for service in SERVICES if service.name in names for n in (*service.after, *service.needs)}
        if more == names:
            return tuple(service for service in SERVICES if service.name in names)
        names = more


def _waves(services: tuple[Service, ...]) -> list[list[Service]]:
    """The services in groups that can start at the same time; a service comes after all that it needs."""
    left = list(services)
    inside = {service.name for service in services}
    done: set[str] = set()
    waves: list[list[Service]] = []
    while left:
        wave = [s for s in left if all(need in done or need not in inside for need in s.after)]
        waves.append(wave)
        done |= {service.name for service in wave}
        left = [service for service in left if service not in wave]
    return waves
