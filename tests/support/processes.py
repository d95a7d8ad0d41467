"""The processes of a running job, found by what they were started with: for tests that kill one of them."""

from __future__ import annotations

import psutil

from include.offload.airflow_rest import DagRun
from local.paths import Home
from local.supervisor import Supervisor
from tests.support.airflow_driver import Driver, poll
from tests.support.stack import Servers


def processes_of(plan: str) -> list[psutil.Process]:
    """Whatever runs with this plan in its command line: spark-submit, its JVM, the job."""
    return [p for p in psutil.process_iter(["cmdline"]) if plan in (p.info["cmdline"] or [])]


def server(servers: Servers, name: str) -> psutil.Process:
    """A server of the stack, by its service's name; not what keeps it (local/keeper.py)."""
    told = Supervisor(Home(servers.home)).call("getAllProcessInfo")
    (pid,) = (p["pid"] for p in told if p["name"] == name)
    found = psutil.Process(pid)
    return found.children()[0] if "local.keeper" in found.cmdline() else found


def running_job(airflow: Driver, run: DagRun) -> str:
    """Wait until the job of a run's plan runs under Airflow; the plan's id."""
    poll(lambda: airflow.states(run)["offload"] == "running", 300, "offload did not start")
    plan = str(airflow.plan(run)["plan_id"])
    poll(lambda: len(processes_of(plan)) >= 2, 120, "the job did not start", every_s=0.1)
    return plan


def worker_of(plan: str, scheduler: psutil.Process) -> psutil.Process:
    """The executor's worker that runs a plan's task: the scheduler's child among the job's ancestors."""
    (worker,) = {a for p in processes_of(plan) for a in p.parents() if a.ppid() == scheduler.pid}
    return worker
