"""Real faults of the one-machine stack, by the name that a scenario gives them.

Each is caused by other means than a runbook's commands use where there are others, and `proof` looks at the machine
itself: processes, ports, files, rows, seconds. It does not ask what the runbook's commands ask.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from local.runbooks import watch
from local.runbooks.exercise import Fault
from local.runbooks.proof import insist
from local.runbooks.stage import Stage

MakeFault = Callable[[Stage], Fault]
FAULTS: dict[str, MakeFault] = {}
"""Every fault, by the name that scenarios use."""
FREEZES_S = 30.0
STOPS_S = 60.0
"""The longest that the process manager takes: it kills what has not ended by then."""


def fault(make: MakeFault) -> MakeFault:
    """Registers a fault under its function's name."""
    FAULTS[make.__name__] = make
    return make


def _in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group
    except ProcessLookupError:
        return False


def pid_of(stage: Stage, service: str) -> int | None:
    (status,) = stage.stack.status([service])
    return status.pid


def running(stage: Stage) -> list[psutil.Process]:
    """The servers of the stack, as the kernel lists them: children of its process manager that have not ended.

    The manager itself is not asked, as `stack status` asks it: if that lied, the fault would be proved by the lie.
    """
    try:
        manager = psutil.Process(int(stage.stack.supervisor.pid_file.read_text(encoding="utf-8")))
        return [one for one in manager.children() if one.status() != psutil.STATUS_ZOMBIE]
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return []


def _words(process: psutil.Process) -> tuple[str, ...]:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return tuple(process.cmdline())
    return ()


def stopped(stage: Stage, *services: str) -> Fault:
    """Servers that somebody stopped: no process of their command line is left."""
    known: dict[str, tuple[str, ...]] = {}

    def cause() -> None:
        for service in services:
            pid = pid_of(stage, service)
            known[service] = next((_words(one) for one in running(stage) if one.pid == pid), ())
            insist(known[service], f"{service} is not found among the processes, so nothing would be proved")
        for service in services:
            stage.stack.supervisor.stop(service)
        # asked, not done: a scheduler ends the task at hand first
        watch.until(proof, STOPS_S, f"an end of {', '.join(services)}")

    def proof() -> bool:
        return bool(known) and not {_words(one) for one in running(stage)} & set(known.values())

    return Fault(cause, proof, undo=lambda: stage.stack.start(list(services)))


def frozen(stage: Stage, service: str) -> Fault:
    """SIGSTOP of a server and all processes of its group: alive for a process list, and it does nothing.

    A job that runs in a group of its own goes on: a stop of the server would leave it behind, frozen for ever.
    """
    still: list[psutil.Process] = []

    def cause() -> None:
        pid = pid_of(stage, service)
        insist(pid is not None, f"{service} does not run")
        process = psutil.Process(pid)
        group = os.getpgid(process.pid)
        still.extend([process, *(one for one in process.children(recursive=True) if _in_group(one, group))])
        for one in still:
            one.send_signal(signal.SIGSTOP)
        end = time.monotonic() + FREEZES_S
        # a process that waits for a disk stops when it comes back
        while any(one.is_running() and one.status() != psutil.STATUS_STOPPED for one in still):
            insist(time.monotonic() < end, f"{service} does not stop within {FREEZES_S:.0f} s")
            time.sleep(0.1)

    def proof() -> bool:
        return any(one.is_running() and one.status() == psutil.STATUS_STOPPED for one in still)

    def undo() -> None:
        for one in still:
            if one.is_running():
                one.send_signal(signal.SIGCONT)
        stage.stack.start([service])

    return Fault(cause, proof, undo)
