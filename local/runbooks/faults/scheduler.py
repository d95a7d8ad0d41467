"""Faults of iceberg-scheduler-recovery.md."""

from __future__ import annotations

import configparser
import os
import signal
import subprocess
import sys
import time

import psutil

from local.ports import HOST, port
from local.runbooks.exercise import Fault
from local.runbooks.faults.common import fault, frozen, pid_of, stopped
from local.runbooks.faults.failure import gone, listens
from local.runbooks.proof import insist
from local.runbooks.stage import Stage
from local.supervisor import MARK

SQUATTER = "import socket, time; s = socket.create_server(('{host}', {port}));\nwhile True: time.sleep(60)"
"""A program that holds a port and does nothing with it."""
LIMIT_S = 60.0


@fault
def scheduler_not_started(stage: Stage) -> Fault:
    """Somebody stopped it, or nobody started it after a reboot."""
    return stopped(stage, "airflow-scheduler")


@fault
def scheduler_crashed(stage: Stage) -> Fault:
    """Its configuration was damaged, then it died: each time that it is started again it ends with an error."""
    file = stage.stack.home.airflow / "airflow.cfg"

    def unreadable() -> bool:
        try:
            configparser.ConfigParser(interpolation=None).read(file)
        except configparser.Error:
            return True
        return False

    def cause() -> None:
        pid = pid_of(stage, "airflow-scheduler")
        insist(pid is not None, "the scheduler does not run")
        with file.open("a", encoding="utf-8") as text:
            text.write("\n[scheduler\nheartbeat ==\n")
        os.kill(int(pid or 0), signal.SIGKILL)

    def undo() -> None:
        # the start writes the configuration anew
        stage.stack.stop(["airflow-scheduler"])
        stage.stack.start(["airflow-scheduler"])

    return Fault(cause, unreadable, undo)


@fault
def scheduler_hung(stage: Stage) -> Fault:
    """It runs, and does nothing."""
    return frozen(stage, "airflow-scheduler")


@fault
def exporter_stopped(stage: Stage) -> Fault:
    """statsd_exporter is gone: nothing is measured."""
    return Fault(
        lambda: gone(stage, "statsd-exporter", "STATSD_METRICS"),
        lambda: not listens("STATSD_METRICS"),
        lambda: stage.stack.start(["statsd-exporter"]),
    )


@fault
def dag_processor_stopped(stage: Stage) -> Fault:
    """The DAG processor is gone: new and changed specs are not seen."""
    return stopped(stage, "airflow-dag-processor")


@fault
def port_held_by_left_over(stage: Stage) -> Fault:
    """A process that an earlier start left behind holds the API server's port: Airflow can not start."""
    squatters: list[psutil.Popen] = []

    def cause() -> None:
        stage.stack.stop(["airflow"])
        program = SQUATTER.format(host=HOST, port=port("AIRFLOW"))
        squatters.append(
            psutil.Popen(
                [sys.executable, "-c", program],
                env={**os.environ, MARK: str(stage.stack.home.root)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        end = time.monotonic() + LIMIT_S
        while not listens("AIRFLOW"):
            insist(time.monotonic() < end, "nobody took the port")
            time.sleep(0.1)

    def holds() -> bool:
        return any(one.poll() is None for one in squatters)

    def undo() -> None:
        for one in squatters:
            if one.poll() is None:
                one.kill()
                one.wait(LIMIT_S)
        # the page stops everything; what the stage wants beside the servers is started again here
        stage.stack.start(["all", "k2-trickle"])

    return Fault(cause, holds, undo)
