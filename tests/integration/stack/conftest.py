"""The data servers of a stack of its own, beside the one that the Airflow tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.stack import Stack
from tests.support.stack import own_stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """PostgreSQL, ClickHouse, SeaweedFS and statsd_exporter in a throw-away home."""
    with own_stack(["data"], "27600") as running:
        yield running
