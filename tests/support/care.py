"""Maintenance of a test's table: planned here, run by the real Spark job, the way an operator does it by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from include.offload.cli.maintain import command
from include.offload.maintenance.model import RESULT, Care, MaintenancePlan, MaintenanceResult
from include.offload.maintenance.planning import plan_maintenance
from include.offload.maintenance.reporting import now_us
from include.offload.settings import Settings, load
from local.spark import spark_env, spark_submit_command
from tests.support.domain import Domain, DomainTable, said

LIMIT_S = 240


def planned(t: DomainTable, *only: Care, later_s: float = 0) -> MaintenancePlan:
    """The plan of a table, of these steps alone if any are named. later_s: as if so much time had passed."""
    plan = plan_maintenance(t.ctx, t.spec, now_us() + round(later_s * 1_000_000))
    return replace(plan, steps=tuple(s for s in plan.steps if not only or s.care in only))


class Job:
    """`spark-submit spark_jobs/maintain.py` at work, in a process group of its own."""

    def __init__(self, domain: Domain, plan: MaintenancePlan, settings: Settings, **environment: str) -> None:
        submit = command(plan, settings, no_wait=True)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the job ends
        self._process = subprocess.Popen(
            [*spark_submit_command(), *submit[1:]],
            env={**os.environ, **spark_env(), **environment},
            cwd=domain.servers.home,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )

    def kill(self) -> None:
        """SIGKILL to its JVM and its Python, and wait until they are gone."""
        os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.wait(LIMIT_S) == -signal.SIGKILL

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        out, _ = self._process.communicate(timeout=LIMIT_S)
        self._log.seek(0)
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, out, self._log.read())

    def result(self) -> MaintenanceResult:
        """What it says when it ended well."""
        return RESULT.validate_python(said(self.ended(), "RESULT")[0])

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


@contextmanager
def running(
    domain: Domain, plan: MaintenancePlan, settings: Settings | None = None, **environment: str
) -> Iterator[Job]:
    """The job, which does not wait for an offload; it is killed when the block is left before it ended."""
    job = Job(domain, plan, settings or load(), **environment)
    try:
        yield job
    finally:
        job.close()


def maintained(domain: Domain, plan: MaintenancePlan) -> MaintenanceResult:
    """Run a plan to its end."""
    with running(domain, plan) as job:
        return job.result()
