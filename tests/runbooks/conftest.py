"""The stage of the exercises: one stack with Airflow and the fast alert rules for all of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.runbooks.stage import Stage, environment, staged

PORT_BASE = "29300"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    home = Path(os.environ.get("OFFLOAD_KEEP_STAGE") or tempfile.mkdtemp(prefix="offload-runbooks-"))
    with pytest.MonkeyPatch.context() as env:
        for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "AIRFLOW", "PYICEBERG_"))]:
            if name != "OFFLOAD_RUNBOOK_PORT_BASE":
                env.delenv(name)
        env.setenv("OFFLOAD_PORT_BASE", os.environ.get("OFFLOAD_RUNBOOK_PORT_BASE", PORT_BASE))
        for name, value in environment(home).items():
            env.setenv(name, value)
        try:
            with staged() as running:
                yield running
        finally:
            shutil.rmtree(home)
