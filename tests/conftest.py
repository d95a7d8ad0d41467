"""For all tests: the servers that they may ask for, and Hypothesis with the same examples on every machine
(`HYPOTHESIS_PROFILE=search` looks further)."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.support.fixtures import airflow, data_stack, full_stack, make_table
from tests.support.stack import PORT_BASE

__all__ = ["airflow", "data_stack", "full_stack", "make_table"]

# a shell without job control starts what it puts into the background deaf to Ctrl-C, and so every process that we start
signal.signal(signal.SIGINT, signal.default_int_handler)

# no deadline: the time of one example says nothing on a shared machine
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

PORTS_OF_A_WORKER = 3_000
"""Between the ports of two workers' servers; a stack and the ones that a test starts beside it need 500."""
WAITING = {"full_stack", "stage", "stack", "other", "monitored"}
"""Who asks for one of these waits for whole servers more than it computes: they all run in one worker."""


def pytest_configure(config: pytest.Config) -> None:
    """With `-n`, each worker has servers of its own."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is None:
        return
    base = int(os.environ.get("OFFLOAD_TEST_PORT_BASE", PORT_BASE)) + PORTS_OF_A_WORKER * int(worker.removeprefix("gw"))
    os.environ["OFFLOAD_TEST_PORT_BASE"] = str(base)
    if os.environ.get("OFFLOAD_KEEP_STACK", "0") != "0":
        raise pytest.UsageError("OFFLOAD_KEEP_STACK keeps one stack: run with WORKERS=0")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n`, a file stays in one worker, and so do all that wait for Airflow or for a stack of their own."""
    for item in items:
        needs = set(getattr(item, "fixturenames", ()))
        item.add_marker(pytest.mark.xdist_group("servers" if needs & WAITING else item.location[0]))
