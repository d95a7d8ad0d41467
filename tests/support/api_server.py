"""A second API server of the running Airflow, on a port of its own, with another auth manager."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from local import airflow
from local.paths import ROOT, Home
from tests.support.airflow_driver import poll
from tests.support.stack import Servers

STARTS_IN_S = 120
DENIED = "OFFLOAD_TEST_DENIED_DAGS"
"""For tests.support.denying: DAG ids that no user may read, separated by blanks."""
DENIED_RUNS = "OFFLOAD_TEST_DENIED_RUNS"
"""For the same: DAG ids that all may read, but not their runs."""
NOBODY = "nobody"
"""A user who may read no DAG."""
NO_ERRORS = "noerrors"
"""A user who may not read import errors."""


@contextmanager
def api_server(servers: Servers, **env: str) -> Iterator[str]:
    """Its URL. env: added to the environment of the stack's own API server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = (servers.home / "logs" / f"api-server-{port}.log").open("w")
    process = subprocess.Popen(
        [*airflow.command("api-server"), "--port", str(port)],
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={
            **os.environ,
            **airflow.environment(Home(servers.home)),
            "PYTHONPATH": str(ROOT),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__PORT": str(port),
            **env,
        },
    )

    def answers() -> bool:
        assert process.poll() is None, f"the API server ended with {process.returncode}, see {log.name}"
        try:
            with urllib.request.urlopen(f"{url}/api/v2/version", timeout=2):  # noqa: S310
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    try:
        poll(answers, STARTS_IN_S, f"no answer from {url}, see {log.name}")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        log.close()
