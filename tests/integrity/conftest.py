"""Airflow in a throw-away home, before anything imports it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_bag import ROOT, parse


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test here reads or writes the developer's own Airflow; no server is started."""
    home = tmp_path_factory.mktemp("airflow")
    with pytest.MonkeyPatch.context() as env:
        env.setenv("AIRFLOW_HOME", str(home))
        env.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        env.delenv("OFFLOAD_TABLES", raising=False)
        env.delenv("OFFLOAD_ENV", raising=False)
        yield home


@pytest.fixture(scope="session")
def bag(airflow_home: Path) -> Any:
    """The DagBag of this repository's own `dags/`."""
    return parse(ROOT / "dags")
