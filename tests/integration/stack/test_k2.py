"""The k2 tables: the same seed gives the same rows, and a candle is right whatever the order of its trades."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from local import k2
from local.stack import Stack

END_US = 1_750_000_000_000_000
ROWS = 20_000


@pytest.fixture
def db(stack: Stack) -> Iterator[Client]:
    """An empty k2."""
    client = k2.client(stack.home)
    client.command(f"CREATE DATABASE IF NOT EXISTS {k2.DATABASE}")
    k2.drop(client)
    yield client
    k2.drop(client)
    client.close()


def content(db: Client) -> dict[str, tuple[int, int]]:
    """Rows and content hash of every table, merged as FINAL reads it."""
    found = {}
    for table in k2.TABLES:
        columns = ", ".join(k2.CANDLE_COLUMNS) if table.startswith("ohlcv") else "*"
        sql = f"SELECT count(), sum(cityHash64(tuple({columns}))) FROM k2.{table}"
        found[table] = tuple(db.query(sql + (" FINAL" if table.startswith("ohlcv") else "")).result_rows[0])
    return found


def expected_candles(db: Client, period: str) -> list[tuple[object, ...]]:
    interval = k2.CANDLES[period][0]
    moment = "(timestamp, source_sequence)"
    return list(
        db.query(
            "SELECT exchange, canonical_symbol, "
            f"toDateTime64(toStartOfInterval(timestamp, INTERVAL {interval}), 3) AS w, "
            f"toDateTime64(min(timestamp), 3), toDateTime64(max(timestamp), 3), argMin(price, {moment}), max(price), "
            f"min(price), argMax(price, {moment}), sum(quantity), sum(quote_volume), count() "
            "FROM k2.silver_trades WHERE is_valid GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ).result_rows
    )


def candles(db: Client, period: str) -> list[tuple[object, ...]]:
    columns = ", ".join(k2.CANDLE_COLUMNS)
    return list(db.query(f"SELECT {columns} FROM k2.ohlcv_{period} FINAL ORDER BY 1, 2, 3").result_rows)


def test_the_same_seed_gives_the_same_rows(db: Client, stack: Stack) -> None:
    # candles of long periods only: the TTL has already taken rows of 2025 from the others
    seen = []
    for seed in (1, 1, 2):
        k2.drop(db)
        now = int(db.query("SELECT toUnixTimestamp64Micro(toDateTime64(today(), 6))").result_rows[0][0])
        assert k2.load_history(ROWS, seed=seed, end_us=now, root=stack.home) == ROWS
        seen.append(content(db))
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]
    assert seen[0]["silver_trades"][0] == ROWS
    assert seen[0]["bronze_trades_binance"][0] == ROWS // 2


def test_a_history_is_loaded_once_and_begun_again_when_interrupted(db: Client, stack: Stack) -> None:
    said: list[tuple[int, int]] = []
    assert k2.load_history(ROWS, on_progress=lambda *part: said.append(part), root=stack.home) == ROWS
    assert said[-1] == (ROWS, ROWS) and sorted(said) == said
    assert k2.load_history(ROWS, root=stack.home) == ROWS
    db.command("ALTER TABLE k2.bronze_trades_kraken MODIFY COMMENT 'loading'")
    assert k2.load_history(ROWS, root=stack.home) == ROWS
    assert db.query("SELECT count() FROM k2.silver_trades").result_rows == [(ROWS,)]


@pytest.mark.parametrize("period", list(k2.CANDLES))
def test_candles_are_right_also_after_late_trades(db: Client, stack: Stack, period: str) -> None:
    k2.load_history(ROWS, root=stack.home)
    assert candles(db, period) == expected_candles(db, period) != []
    # trades older than all that their candle has seen: the origin's candle kept a stranger's open and close
    db.command(
        "INSERT INTO k2.bronze_trades_kraken SELECT * REPLACE (exchange_timestamp - INTERVAL 7 MINUTE AS "
        "exchange_timestamp, sequence_number + 10000000 AS sequence_number, price * 2 AS price) "
        "FROM k2.bronze_trades_kraken LIMIT 2000"
    )
    late = candles(db, period)
    assert late == expected_candles(db, period)
    db.command(f"OPTIMIZE TABLE k2.ohlcv_{period} FINAL")
    assert candles(db, period) == late


def test_the_history_carries_every_kind_of_value(db: Client, stack: Stack) -> None:
    k2.load_history(ROWS, root=stack.home)
    found = db.query(
        "SELECT countIf(platform_sequence IS NULL), countIf(empty(vendor_data)), countIf(NOT is_valid), "
        "countIf(has(trade_conditions, 'späte Meldung')), countIf(vendor_data['venue'] = '東京'), "
        "uniqExact(message_id), uniqExact(side) FROM k2.silver_trades"
    ).result_rows[0]
    assert all(found[:5])
    assert found[5:] == (ROWS, 3)


def test_the_trickle_adds_trades_up_to_now(db: Client, stack: Stack) -> None:
    k2.load_history(ROWS, root=stack.home)
    stack.start(["k2-trickle"])
    try:
        newest = "SELECT min(m) > now64(3) - INTERVAL 10 SECOND FROM ("
        newest += " UNION ALL ".join(f"SELECT max(exchange_timestamp) AS m FROM k2.{e.table}" for e in k2.EXCHANGES)
        end = time.monotonic() + 60
        while not db.query(newest + ")").result_rows[0][0] or db.query(COUNT).result_rows[0][0] <= ROWS + 100:
            assert time.monotonic() < end, "no new trades within a minute"
            time.sleep(0.2)
    finally:
        stack.stop(["k2-trickle"])
    assert db.query("SELECT count() - uniqExact(trade_id) FROM k2.silver_trades").result_rows == [(0,)]


COUNT = "SELECT count() FROM k2.silver_trades"
