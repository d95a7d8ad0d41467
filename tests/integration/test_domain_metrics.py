"""What a check tells the metrics before it may fail: an exporter that forgot everything learns it from the next try."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from include.offload.errors import SOURCE_TABLE_MISSING, TARGET_MISSING, OffloadError
from include.offload.settings import load
from tests.support.domain import DDL, WINDOW_US, DomainTable, MakeDomainTable

pytestmark = pytest.mark.timeout(120)
TTL = " TTL toDateTime(ts) + INTERVAL 30 DAY"
DAYS_30_S = 30 * 86_400


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.setblocking(False)
        yield found


def told(receiver: socket.socket, table: str) -> dict[str, float]:
    """The gauges of a table that came since the last look, by name; the last value of each."""
    found: dict[str, float] = {}
    while True:
        try:
            lines = receiver.recv(65536).decode().splitlines()
        except BlockingIOError:
            return found
        for line in lines:
            stat, _, rest = line.partition(":")
            value, _, kind = rest.partition("|")
            if kind == "g" and f"table={table}" in stat:
                found[stat.partition(",")[0]] = float(value)


def fails(t: DomainTable) -> OffloadError:
    with pytest.raises(OffloadError) as refused:
        t.check()
    return refused.value


def test_a_check_that_fails_still_says_where_the_table_stands(table: MakeDomainTable, receiver: socket.socket) -> None:
    t = table(settings=load(statsd_port=receiver.getsockname()[1]), ddl=DDL + TTL).fill(0, 1)
    watermark = t.run().watermark.watermark_us
    assert watermark is not None
    now = time.time()
    t.insert((now * 1e6 - t.at(0)) / WINDOW_US, rows=1)
    t.ctx.catalog.drop_table(t.target)
    told(receiver, t.identity)

    assert fails(t).kind is TARGET_MISSING
    said = told(receiver, t.identity)
    assert said["watermark_timestamp_seconds"] == watermark / 1e6
    assert said["offload_last_success_timestamp"] > 0
    # the row behind the watermark, which lives for 30 days from its whole second on
    assert abs(said["offload_expiry_timestamp_seconds"] - DAYS_30_S - now) <= 2

    t.sql("DROP TABLE {table} SYNC")
    assert fails(t).kind is SOURCE_TABLE_MISSING
    again = told(receiver, t.identity)
    assert again["watermark_timestamp_seconds"] == watermark / 1e6
    # nobody could ask ClickHouse: what the last run that could found
    assert again["offload_expiry_timestamp_seconds"] == said["offload_expiry_timestamp_seconds"]
    t.unverifiable = "both ends are gone on purpose"
