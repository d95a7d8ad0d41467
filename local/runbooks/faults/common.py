"""Real faults of the one-machine stack, by the name that a scenario gives them.

Each is caused by other means than a runbook's commands use, and `proof` looks at the machine itself: processes, ports,
files, rows.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil

from local.runbooks.exercise import Fault
from local.runbooks.proof import insist
from local.runbooks.stage import Stage

MakeFault = Callable[[Stage], Fault]
FAULTS: dict[str, MakeFault] = {}
"""Every fault, by the name that scenarios use."""
FREEZES_S = 30.0


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


def stopped(stage: Stage, service: str) -> Fault:
    return Fault(
        cause=lambda: stage.stack.supervisor.stop(service),
        proof=lambda: pid_of(stage, service) is None,
        undo=lambda: stage.stack.start([service]),
    )


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
