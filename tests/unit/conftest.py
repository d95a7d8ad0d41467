"""Fixtures of the unit tests: one real ClickHouse engine for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.chdb_engine import Engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """chdb in a process of its own; tests make their own databases or tables in it."""
    engine = Engine(tmp_path_factory.mktemp("chdb"))
    engine.raw("SET enable_time_time64_type = 1")
    yield engine
    engine.close()
