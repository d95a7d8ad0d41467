"""Fixtures over the stack, registered once in tests/conftest.py: one set of servers for a whole session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import pytest
from playwright.sync_api import Browser, sync_playwright

from local import chromium
from tests.support.airflow_driver import Driver
from tests.support.stack import Servers, stack, start
from tests.support.tables import MakeTable, Table, finish

SESSION = f"{int(time.time()):x}"
NUMBERS = count(1)


@pytest.fixture(scope="session")
def data_stack() -> Iterator[Servers]:
    """The servers that the domain needs: PostgreSQL, ClickHouse, S3 with its Iceberg catalog. No Airflow."""
    with stack(["postgres", "clickhouse", "seaweedfs"]) as servers:
        yield servers


@pytest.fixture(scope="session")
def full_stack(data_stack: Servers) -> Servers:
    """Every server of the one-machine stack, Airflow included; the same stack, so that both fit one session."""
    start(["all"])
    return data_stack


@pytest.fixture(scope="session")
def chrome() -> Iterator[Browser]:
    """A headless Chromium; one for a whole session, as a second Playwright beside it is refused."""
    with sync_playwright() as playwright:
        # root, as in a container, can not have Chromium's own sandbox
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def airflow(full_stack: Servers) -> Iterator[Driver]:
    """A session with the running Airflow."""
    driver = full_stack.airflow()
    try:
        yield driver
    finally:
        driver.close()


@pytest.fixture
def make_table(full_stack: Servers, airflow: Driver) -> Iterator[MakeTable]:
    """Makes tables by name. When the test ends, both verifiers read every one that was offloaded."""
    made: list[Table] = []

    def make(name: str) -> Table:
        # the stack remembers the tables of earlier tests, a kept one those of earlier sessions
        made.append(Table(full_stack, f"{name}_{SESSION}_{next(NUMBERS)}"))
        return made[-1]

    yield make
    for point in full_stack.crashes.iterdir():
        point.unlink()
    for table in made:
        if table.dag_id in airflow.dags():
            airflow.pause(table.dag_id, True)
        finish(table)
