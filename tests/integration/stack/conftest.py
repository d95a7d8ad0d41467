"""The data servers of a stack of its own, beside the one that the Airflow tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.stack import Stack

PORT_BASE = "27600"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """PostgreSQL, ClickHouse, SeaweedFS and statsd_exporter in a throw-away home.

    Its settings are this process's as long as it lives, so it must not outlive its module: pytest takes a package scope
    in a folder without __init__.py for the whole session.
    """
    home = Path(tempfile.mkdtemp(prefix="offload-stack-"))
    with pytest.MonkeyPatch.context() as env:
        for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "PYICEBERG_"))]:
            env.delenv(name)
        env.setenv("OFFLOAD_HOME", str(home))
        env.setenv("OFFLOAD_PORT_BASE", PORT_BASE)
        env.setenv("PYICEBERG_HOME", str(home / "secrets"))
        running = Stack(home)
        try:
            running.start(["data"])
            yield running
        finally:
            left = running.stop()
            shutil.rmtree(home)
        assert not left, f"processes that had to be killed: {left}"
