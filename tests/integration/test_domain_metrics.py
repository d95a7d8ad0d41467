"""What a check tells the metrics before it may fail: an exporter that forgot everything learns it from the next try."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from include.offload import overview
from include.offload.errors import SOURCE_TABLE_MISSING, TARGET_MISSING, OffloadError
from include.offload.ledger import looks
from include.offload.ledger.looks import Remembered
from include.offload.limits import SCHEDULE
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
    # a row that came just behind the watermark lives for 30 days from its whole second on
    assert abs(said["offload_expiry_timestamp_seconds"] - DAYS_30_S - watermark / 1e6) <= 1
    assert now - watermark / 1e6 > 1, "the row that is there came later"

    t.sql("DROP TABLE {table} SYNC")
    assert fails(t).kind is SOURCE_TABLE_MISSING
    again = told(receiver, t.identity)
    assert again["watermark_timestamp_seconds"] == watermark / 1e6
    # nobody could ask ClickHouse: what the last run that could found
    assert again["offload_expiry_timestamp_seconds"] == said["offload_expiry_timestamp_seconds"]
    t.unverifiable = "both ends are gone on purpose"


def remembered(t: DomainTable) -> Remembered:
    known = looks.remembered(t.ctx.ledger, t.identity)
    assert known is not None
    assert known.look is not None
    return known


def test_nothing_is_left_and_yet_the_next_rows_will_expire(table: MakeDomainTable, receiver: socket.socket) -> None:
    """All that was seen is shipped. What comes now, while nobody looks, lives no longer than what came before."""
    t = table(settings=load(statsd_port=receiver.getsockname()[1]), ddl=DDL + TTL).fill(0, 1)
    watermark = t.run().watermark.watermark_us
    assert watermark is not None
    said = told(receiver, t.identity)
    assert abs(said["offload_expiry_timestamp_seconds"] - DAYS_30_S - watermark / 1e6) <= 1
    assert abs(said["offload_ttl_headroom_seconds"] - DAYS_30_S - watermark / 1e6 + time.time()) <= 30
    known = remembered(t)
    assert known.look is not None
    assert (known.look.next_expiry_us, known.look.expires) == (None, True)
    assert known.first_expiry_us == watermark + (known.look.ttl_us or 0)
    # a look at no row keeps what the one before found
    t.run(from_us=t.at(4), to_us=t.at(5))
    assert remembered(t).look.ttl_us == known.look.ttl_us  # type: ignore[union-attr]


def test_a_table_without_a_ttl_says_so(table: MakeDomainTable, receiver: socket.socket) -> None:
    t = table(settings=load(statsd_port=receiver.getsockname()[1])).fill(0)
    t.run()
    assert told(receiver, t.identity)["offload_expiry_timestamp_seconds"] == 0
    known = remembered(t)
    assert (known.look.expires, known.look.ttl_us, known.first_expiry_us) == (False, None, None)  # type: ignore[union-attr]


def test_a_ttl_that_was_lengthened_counts_at_once_while_runs_fail(
    table: MakeDomainTable, receiver: socket.socket
) -> None:
    """What an operator does while the catalog is away must show, or nobody knows that it helped."""
    t = table(settings=load(statsd_port=receiver.getsockname()[1]), ddl=DDL + TTL).fill(0)
    t.run()
    t.mutate("MODIFY TTL toDateTime(ts) + INTERVAL 60 DAY")
    now = time.time()
    t.insert((now * 1e6 - t.at(0)) / WINDOW_US, rows=1)
    t.ctx.catalog.drop_table(t.target)
    told(receiver, t.identity)
    assert fails(t).kind is TARGET_MISSING
    assert abs(told(receiver, t.identity)["offload_expiry_timestamp_seconds"] - 2 * DAYS_30_S - now) <= 2
    assert abs((remembered(t).first_expiry_us or 0) / 1e6 - 2 * DAYS_30_S - now) <= 2
    t.unverifiable = "the lake is gone on purpose"


def test_a_look_holds_the_limits_and_the_schedule_of_the_spec(table: MakeDomainTable) -> None:
    """Who sees the ledger alone judges with them."""
    own = table('schedule: "0 * * * *"\nalerts: {lag: 2h, ttl_headroom: 9h}\n', ddl=DDL + TTL).fill(0)
    plain = table(ddl=DDL + TTL).fill(0)
    own.run()
    plain.run()
    _, seen = overview.one(own.ctx.ledger, own.spec.dag_id)
    assert seen is not None
    assert (seen.schedule, seen.lag_limit_s, seen.headroom_limit_s) == ("0 * * * *", 7200, 9 * 3600)
    assert (seen.expires, abs((seen.ttl_us or 0) / 1e6 - DAYS_30_S) <= 1) == (True, True)
    _, seen = overview.one(plain.ctx.ledger, plain.spec.dag_id)
    assert seen is not None
    assert (seen.schedule, seen.lag_limit_s, seen.headroom_limit_s) == (SCHEDULE, None, None)
    assert (seen.state, seen.reasons) == ("ok", ())
