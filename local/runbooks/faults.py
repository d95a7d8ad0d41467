"""Real faults of the one-machine stack, by the name that a scenario gives them.

Each is caused by other means than a runbook's commands use, and `proof` looks at the machine itself: processes, ports,
files, rows.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil

from local.runbooks.exercise import Fault
from local.runbooks.stage import Stage

MakeFault = Callable[[Stage], Fault]
FAULTS: dict[str, MakeFault] = {}
"""Every fault, by the name that scenarios use."""


def fault(make: MakeFault) -> MakeFault:
    """Registers a fault under its function's name."""
    FAULTS[make.__name__] = make
    return make


def _pid(stage: Stage, service: str) -> int | None:
    (status,) = stage.stack.status([service])
    return status.pid


def _stopped(stage: Stage, service: str) -> Fault:
    return Fault(
        cause=lambda: stage.stack.supervisor.stop(service),
        proof=lambda: _pid(stage, service) is None,
        undo=lambda: stage.stack.start([service]),
    )


def _frozen(stage: Stage, service: str) -> Fault:
    """SIGSTOP of a server and all its processes: alive for a process list, and it does nothing."""
    frozen: list[psutil.Process] = []

    def cause() -> None:
        pid = _pid(stage, service)
        assert pid is not None, f"{service} does not run"
        process = psutil.Process(pid)
        frozen.extend([process, *process.children(recursive=True)])
        for one in frozen:
            one.send_signal(signal.SIGSTOP)

    def proof() -> bool:
        return any(one.is_running() and one.status() == psutil.STATUS_STOPPED for one in frozen)

    def undo() -> None:
        for one in frozen:
            if one.is_running() and one.status() == psutil.STATUS_STOPPED:
                one.send_signal(signal.SIGCONT)
        stage.stack.start([service])

    return Fault(cause, proof, undo)


@fault
def scheduler_not_started(stage: Stage) -> Fault:
    """Somebody stopped it, or nobody started it after a reboot."""
    return _stopped(stage, "airflow-scheduler")


@fault
def scheduler_hung(stage: Stage) -> Fault:
    """It runs, and does nothing."""
    return _frozen(stage, "airflow-scheduler")


@fault
def exporter_stopped(stage: Stage) -> Fault:
    """statsd_exporter is gone: nothing is measured."""
    return _stopped(stage, "statsd-exporter")
