"""Faults of iceberg-scheduler-recovery.md."""

from __future__ import annotations

from local.runbooks.exercise import Fault
from local.runbooks.faults.common import fault, frozen, stopped
from local.runbooks.stage import Stage


@fault
def scheduler_not_started(stage: Stage) -> Fault:
    """Somebody stopped it, or nobody started it after a reboot."""
    return stopped(stage, "airflow-scheduler")


@fault
def scheduler_hung(stage: Stage) -> Fault:
    """It runs, and does nothing."""
    return frozen(stage, "airflow-scheduler")


@fault
def exporterstopped(stage: Stage) -> Fault:
    """statsd_exporter is gone: nothing is measured."""
    return stopped(stage, "statsd-exporter")
