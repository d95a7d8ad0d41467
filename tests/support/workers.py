"""Two workers of pytest-xdist, each with servers of its own: which tests stay together, and on which ports.

Tests of Airflow, of whole stacks and of the page wait more than they compute: they run one after the other in one
worker, beside the others, which compute.
"""

from __future__ import annotations

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.stack import PORT_BASE

PORTS_OF_A_WORKER = 3_000
"""Between the ports of two workers' servers; a stack and the ones that a test starts beside it need 500."""
WHOLE_SERVERS = (
    "tests/ui/",
    "tests/runbooks/",
    "tests/integration/stack/",
    "tests/integration/test_airflow_",
    "tests/integration/test_dashboards.py",
    "tests/integration/test_metrics_pipeline.py",
    "tests/faults/test_airflow_deaths.py",
    "tests/faults/test_source_away.py",
)


class ServersTogether(LoadScopeScheduling):
    """A file stays in one worker, and all that need whole servers stay in one, the first to begin."""

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if nodeid.startswith(WHOLE_SERVERS) else nodeid.split("::", 1)[0]


def ports(config: pytest.Config) -> None:
    """In a worker: servers on ports of its own. Raises UsageError where one stack is to be kept."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is None:
        return
    if os.environ.get("OFFLOAD_KEEP_STACK", "0") != "0":
        raise pytest.UsageError("OFFLOAD_KEEP_STACK keeps one stack: run without -n")
    base = int(os.environ.get("OFFLOAD_TEST_PORT_BASE", PORT_BASE)) + PORTS_OF_A_WORKER * int(worker.removeprefix("gw"))
    os.environ["OFFLOAD_TEST_PORT_BASE"] = str(base)


def order(items: list[pytest.Item]) -> None:
    """What takes longest begins first. Raises UsageError for a test that needs whole servers and is not listed."""
    for item in items:
        if "full_stack" in getattr(item, "fixturenames", ()) and not item.nodeid.startswith(WHOLE_SERVERS):
            raise pytest.UsageError(f"{item.nodeid} needs whole servers: name its file in tests/support/workers.py")
    items.sort(key=lambda item: not item.nodeid.startswith(WHOLE_SERVERS))
