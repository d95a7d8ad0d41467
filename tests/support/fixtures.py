"""Fixtures over the stack, imported by the conftest of each directory that wants them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.airflow_driver import Driver
from tests.support.stack import Servers, stack
from tests.support.tables import MakeTable, Table


@pytest.fixture(scope="session")
def full_stack() -> Iterator[Servers]:
    """Every server of the one-machine stack, Airflow included."""
    with stack(None) as servers:
        yield servers


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
        made.append(Table(full_stack, name))
        return made[-1]

    yield make
    for point in full_stack.crashes.iterdir():
        point.unlink()
    for table in made:
        if table.dag_id in airflow.dags():
            airflow.pause(table.dag_id, True)
        if table.spec_file.exists():
            head = table.ctx.ledger.head(table.identity)
            if head is not None and head.watermark_us is not None:
                table.verified()
            table.spec_file.unlink()
