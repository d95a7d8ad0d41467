"""For all tests: the servers that they may ask for, and Hypothesis with the same examples on every machine
(`HYPOTHESIS_PROFILE=search` looks further)."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import workers
from tests.support.fixtures import airflow, chrome, data_stack, full_stack, make_table

if TYPE_CHECKING:
    from xdist.workermanage import Producer

__all__ = ["airflow", "chrome", "data_stack", "full_stack", "make_table"]

# a shell without job control starts what it puts into the background deaf to Ctrl-C, and so every process that we start
signal.signal(signal.SIGINT, signal.default_int_handler)

# no deadline: the time of one example says nothing on a shared machine
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    workers.ports(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    workers.order(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> workers.ServersTogether:
    return workers.ServersTogether(config, log)
