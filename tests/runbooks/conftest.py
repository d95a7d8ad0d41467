"""The stage of the exercises: one stack with Airflow and the fast alert rules for all of them.

`--record` writes what each exercise showed into record.json and leaves out what was green on this code already, so that
a run that broke off goes on where it was. `OFFLOAD_KEEP_STAGE` names a home whose servers are left running.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.runbooks import record
from local.runbooks.stage import Stage, environment, staged

PORT_BASE = "29300"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="record each exercise; leave out what is recorded as green")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--record", default=False):
        return
    done = [item for item in items if (mark := item.get_closest_marker("exercise")) and record.done(*mark.args)]
    if done:
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item not in done]


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    kept = os.environ.get("OFFLOAD_KEEP_STAGE")
    home = Path(kept or tempfile.mkdtemp(prefix="offload-runbooks-"))
    with pytest.MonkeyPatch.context() as env:
        for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "AIRFLOW", "PYICEBERG_"))]:
            if name != "OFFLOAD_RUNBOOK_PORT_BASE":
                env.delenv(name)
        env.setenv("OFFLOAD_PORT_BASE", os.environ.get("OFFLOAD_RUNBOOK_PORT_BASE", PORT_BASE))
        for name, value in environment(home).items():
            env.setenv(name, value)
        try:
            with staged(keep=bool(kept)) as running:
                yield running
        finally:
            if not kept:
                shutil.rmtree(home)
