"""The ten tables of the k2 system in ClickHouse, a seeded history of trades, and a trickle of live ones.

`python -m local.k2 load [--rows N] [--seed S]` and `python -m local.k2 trickle`. Everything is computed by ClickHouse
from `numbers()`: the same seed, rows and end time give the same bytes, a million trades take a few seconds.

Candles, where the origin went wrong: it kept them in SummingMergeTree, which takes an arbitrary open, high, low and
close when rows merge. Here an AggregatingMergeTree keeps `opening` and `closing` as the smallest and largest
(time, sequence, price): `SimpleAggregateFunction(min | max, Tuple(…))`, which no order of inserts or merges can get
wrong, late trades included. The origin's `open_time`, `open_price`, `close_time`, `close_price` are ALIAS columns on
them: plain values under FINAL, so a spec that lists its columns offloads them like any other. (`argMin` states have no
value outside ClickHouse; `any` and `anyLast` follow the order of inserts; a ReplacingMergeTree would need every candle
computed again from silver, and a materialized view sees only the inserted block.)
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local.paths import Home, home
from local.secrets import read

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DATABASE = "k2"
HISTORY_ROWS = 1_000_000
HISTORY_US = 36 * 3600 * 1_000_000
SEED = 20_240_607
BATCH_ROWS = 60
BATCH_S = 2.0
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One source of trades. `symbols`: the exchange's own name, the canonical one, the price it moves around.

    `share`: its part of all trades, in percent; `epoch`: the first sequence number, so that no two are alike.
    """

    name: str
    symbols: tuple[tuple[str, str, float], ...]
    share: int
    epoch: int

    @property
    def table(self) -> str:
        return f"bronze_trades_{self.name}"


EXCHANGES = (
    Exchange(
        "binance",
        (("BTCUSDT", "BTC-USDT", 67_250.0), ("ETHUSDT", "ETH-USDT", 3_480.0), ("SOLUSDT", "SOL-USDT", 172.5)),
        50,
        3_700_000_000,
    ),
    Exchange(
        "kraken",
        (("XBT/USD", "BTC-USD", 67_240.0), ("ETH/USD", "ETH-USD", 3_479.0), ("ADA/EUR", "ADA-EUR", 0.4213)),
        25,
        91_000_000,
    ),
    Exchange(
        "coinbase",
        (("BTC-USD", "BTC-USD", 67_245.0), ("ETH-USD", "ETH-USD", 3_481.0), ("DOGE-USD", "DOGE-USD", 0.14517)),
        25,
        640_000_000,
    ),
)
CANDLES = {
    "1m": ("1 MINUTE", "90 DAY"),
    "5m": ("5 MINUTE", "180 DAY"),
    "15m": ("15 MINUTE", "1 YEAR"),
    "30m": ("30 MINUTE", "1 YEAR"),
    "1h": ("1 HOUR", "3 YEAR"),
    "1d": ("1 DAY", "5 YEAR"),
}
"""Period to its interval and how long its candles are kept."""
TABLES = (*(e.table for e in EXCHANGES), "silver_trades", *(f"ohlcv_{period}" for period in CANDLES))
CANDLE_COLUMNS = (
    "exchange",
    "canonical_symbol",
    "window_start",
    "open_time",
    "close_time",
    "open_price",
    "high_price",
    "low_price",
    "close_price",
    "volume",
    "quote_volume",
    "trade_count",
)
"""What the origin's candle tables have; ALIAS columns among them are not part of `SELECT *`."""


def client(root: Home | None = None) -> Client:
    """ClickHouse as the user that may write. Raises FileNotFoundError before the first start of the stack."""
    import clickhouse_connect

    dsn = read(root or home(), "clickhouse_admin_uri")
    return clickhouse_connect.get_client(dsn=dsn, compress=False, autogenerate_session_id=False)


def ddl() -> tuple[str, ...]:
    """Every statement that makes the tables and views, in order; each does nothing when its object is there."""
    return (
        f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
        *(_bronze(exchange) for exchange in EXCHANGES),
        _SILVER,
        *(_candle(period) for period in CANDLES),
        # views last: a view whose target is missing would fail every insert
        *(_to_candle(period) for period in CANDLES),
        *(_to_silver(exchange) for exchange in EXCHANGES),
    )


def create(db: Client) -> None:
    """Make the ten tables and the views between them."""
    for statement in ddl():
        db.command(statement)


def drop(db: Client) -> None:
    """Drop the ten tables and their views, and nothing else that lives in the database."""
    for exchange in EXCHANGES:
        db.command(f"DROP VIEW IF EXISTS {DATABASE}.{exchange.name}_to_silver SYNC")
    for period in CANDLES:
        db.command(f"DROP VIEW IF EXISTS {DATABASE}.silver_to_{period} SYNC")
    for table in TABLES:
        db.command(f"DROP TABLE IF EXISTS {DATABASE}.{table} SYNC")


def load_history(
    rows: int = HISTORY_ROWS,
    *,
    seed: int = SEED,
    end_us: int | None = None,
    on_progress: OnProgress | None = None,
    root: Home | None = None,
) -> int:
    """Make the tables and fill them with `rows` trades over the 36 hours before `end_us` (µs UTC; default: now).

    Returns the bronze trades that are there. A history that is there already is kept; a load that was interrupted is
    begun again. Silver and candles follow by materialized views.
    """
    db = client(root)
    report = on_progress or (lambda done, total: None)
    try:
        create(db)
        known = db.query(f"SELECT name, comment FROM system.tables WHERE database = '{DATABASE}'").result_rows
        comments = {str(name): str(comment) for name, comment in known}
        if any(comments[exchange.table] == "loading" for exchange in EXCHANGES):
            drop(db)
            create(db)
            comments = {}
        end = end_us if end_us is not None else _number(db, "SELECT toUnixTimestamp64Micro(now64(6))")
        done = 0
        for exchange in EXCHANGES:
            count = rows * exchange.share // 100
            if not comments.get(exchange.table, ""):
                _fill(db, exchange, count, seed, end, lambda part, done=done: report(done + part, rows))  # type: ignore[misc]
            done += count
            report(done, rows)
        return sum(_number(db, f"SELECT count() FROM {DATABASE}.{e.table}") for e in EXCHANGES)
    finally:
        db.close()


def _fill(db: Client, exchange: Exchange, count: int, seed: int, end: int, report: Callable[[int], None]) -> None:
    table = f"{DATABASE}.{exchange.table}"
    db.command(f"ALTER TABLE {table} MODIFY COMMENT 'loading'")
    step = 125_000
    for first in range(0, count, step):
        size = min(step, count - first)
        lo = end - HISTORY_US + HISTORY_US * first // count
        hi = end - HISTORY_US + HISTORY_US * (first + size) // count
        db.command(f"INSERT INTO {table} {trades_sql(exchange, first, size, lo, hi, seed)}")
        report(first + size)
    db.command(f"ALTER TABLE {table} MODIFY COMMENT 'history of {count} trades until {end}, seed {seed}'")


def trades_sql(exchange: Exchange, first: int, count: int, lo_us: int, hi_us: int, seed: int = SEED) -> str:
    """The SELECT of `count` bronze trades in `[lo_us, hi_us)` (µs UTC), the `first`-th of the exchange onwards.

    Times rise with the sequence number and are spread evenly with a jitter; prices swing slowly and tremble quickly.
    """
    names = ", ".join(f"'{name}'" for name, _, _ in exchange.symbols)
    bases = ", ".join(str(base) for _, _, base in exchange.symbols)
    return f"""
WITH
    number + {first} AS i,
    {exchange.epoch} + i AS seq,
    cityHash64({seed}, '{exchange.name}', i) AS h,
    1 + (h % 100 >= 55) + (h % 100 >= 85) AS pick,
    {lo_us} + intDiv(({hi_us} - {lo_us}) * (number * 1000 + h % 1000), {count} * 1000) AS us,
    us / 1e6 AS s,
    [{bases}][pick] AS base,
    base * (1 + 0.02 * sin(s / 7000) + 0.006 * sin(s / 613 + pick) + ((h % 2001) - 1000) / 2e6) AS p,
    toDecimal64(p, 8) AS tick,
    toDecimal64((1 + cityHash64(h, 1) % 50000) / if(base > 1000, 1e5, 1e2), 8) AS lot
SELECT
    fromUnixTimestamp64Milli(intDiv(us, 1000)) AS exchange_timestamp,
    toUInt64(seq) AS sequence_number,
    [{names}][pick] AS symbol,
    tick AS price,
    lot AS quantity,
    toDecimal64(toFloat64(tick) * toFloat64(lot), 8) AS quote_volume,
    fromUnixTimestamp64Milli(intDiv(us, 1000) + h % 40) AS event_time,
    toUInt64(i) AS kafka_offset,
    toUInt16(cityHash64(symbol) % 12) AS kafka_partition,
    toDateTime(intDiv(us, 1000000) + 1 + h % 2) AS ingestion_timestamp
FROM numbers({count})"""


def trickle(*, rows: int = BATCH_ROWS, every_s: float = BATCH_S, seed: int = SEED, root: Home | None = None) -> None:
    """Add about `rows` trades every `every_s` seconds, from the last one of each exchange up to now, until stopped."""
    where = root or home()
    db = client(where)
    create(db)
    while True:
        began = time.monotonic()
        for exchange in EXCHANGES:
            table = f"{DATABASE}.{exchange.table}"
            newest, sequence, now = db.query(
                f"SELECT toUnixTimestamp64Micro(toDateTime64(max(exchange_timestamp), 6)), max(sequence_number), "
                f"toUnixTimestamp64Micro(now64(6)) FROM {table}"
            ).result_rows[0]
            # after a pause the trickle goes on from now: it must not pour hours of trades into one batch
            lo = max(int(newest) + 1000, int(now) - int(60e6))
            first = max(int(sequence) + 1 - exchange.epoch, 0)
            if lo < int(now):
                db.command(
                    f"INSERT INTO {table} {trades_sql(exchange, first, _share(rows, exchange), lo, int(now), seed)}"
                )
        beat_file(where).touch()
        time.sleep(max(0.0, every_s - (time.monotonic() - began)))


def beat_file(root: Home) -> Path:
    """Touched after every batch of the trickle."""
    return root.run / "k2-trickle.beat"


def is_trickling(root: Home) -> bool:
    """Whether a batch was written within the last 30 seconds."""
    try:
        return time.time() - beat_file(root).stat().st_mtime < 30
    except FileNotFoundError:
        return False


def _number(db: Client, sql: str) -> int:
    return int(db.query(sql).result_rows[0][0])


def _share(rows: int, exchange: Exchange) -> int:
    return max(1, rows * exchange.share // 100)


def _bronze(exchange: Exchange) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.{exchange.table}
(
    exchange_timestamp DateTime64(3),
    sequence_number UInt64,
    symbol String,
    price Decimal(18, 8),
    quantity Decimal(18, 8),
    quote_volume Decimal(18, 8),
    event_time DateTime64(3),
    kafka_offset UInt64,
    kafka_partition UInt16,
    ingestion_timestamp DateTime
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(exchange_timestamp)
ORDER BY (symbol, exchange_timestamp, sequence_number)
TTL toDateTime(exchange_timestamp) + INTERVAL 7 DAY"""


_SILVER = f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.silver_trades
(
    message_id UUID,
    trade_id String,
    exchange LowCardinality(String),
    symbol LowCardinality(String),
    canonical_symbol LowCardinality(String),
    currency LowCardinality(String),
    asset_class Enum8('equities' = 1, 'crypto' = 2, 'futures' = 3, 'options' = 4),
    price Decimal128(8),
    quantity Decimal128(8),
    quote_volume Decimal128(8),
    side Enum8('BUY' = 1, 'SELL' = 2, 'SELL_SHORT' = 3, 'UNKNOWN' = 4),
    trade_conditions Array(String),
    timestamp DateTime64(6, 'UTC'),
    ingestion_timestamp DateTime64(6, 'UTC'),
    processed_at DateTime64(6, 'UTC'),
    source_sequence Nullable(UInt64),
    platform_sequence Nullable(UInt64),
    vendor_data Map(String, String),
    is_valid Bool,
    validation_errors Array(String)
)
ENGINE = MergeTree
PARTITION BY (exchange, asset_class, toYYYYMMDD(timestamp))
ORDER BY (exchange, asset_class, canonical_symbol, timestamp)
TTL toDateTime(timestamp) + INTERVAL 30 DAY"""


def _to_silver(exchange: Exchange) -> str:
    view = f"{DATABASE}.{exchange.name}_to_silver"
    select = silver_sql(exchange, f"{DATABASE}.{exchange.table}")
    return f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view} TO {DATABASE}.silver_trades AS{select}"


def silver_sql(exchange: Exchange, source: str) -> str:
    """The SELECT that makes silver trades of an exchange's bronze ones. `source`: a table, or a query in brackets."""
    names = ", ".join(f"'{name}'" for name, _, _ in exchange.symbols)
    canonical = ", ".join(f"'{name}'" for _, name, _ in exchange.symbols)
    return f"""
WITH cityHash64('{exchange.name}', sequence_number) AS h,
    transform(symbol, [{names}], [{canonical}], symbol) AS canonical
SELECT
    reinterpretAsUUID(sipHash128('{exchange.name}', sequence_number)) AS message_id,
    concat('{exchange.name}-', toString(sequence_number)) AS trade_id,
    '{exchange.name}' AS exchange,
    symbol,
    canonical AS canonical_symbol,
    splitByChar('-', canonical)[2] AS currency,
    'crypto' AS asset_class,
    toDecimal128(price, 8) AS price,
    toDecimal128(quantity, 8) AS quantity,
    toDecimal128(quote_volume, 8) AS quote_volume,
    multiIf(h % 97 = 0, 'UNKNOWN', h % 2 = 0, 'BUY', 'SELL') AS side,
    multiIf(h % 50 = 0, ['block', 'späte Meldung'], h % 7 = 0, ['maker'], []) AS trade_conditions,
    toDateTime64(exchange_timestamp, 6, 'UTC') AS timestamp,
    toDateTime64(ingestion_timestamp, 6, 'UTC') AS ingestion_timestamp,
    addMicroseconds(toDateTime64(ingestion_timestamp, 6, 'UTC'), 1000 + h % 250000) AS processed_at,
    sequence_number AS source_sequence,
    if(h % 11 = 0, NULL, kafka_offset) AS platform_sequence,
    if(h % 13 = 0, map(), map('partition', toString(kafka_partition), 'venue', ['Zürich', '東京', 'NYC'][1 + h % 3]))
        AS vendor_data,
    h % 5000 != 0 AS is_valid,
    if(h % 5000 = 0, ['price outlier ±5 %'], []) AS validation_errors
FROM {source}"""


def _candle(period: str) -> str:
    moment = "Tuple(DateTime64(6, 'UTC'), UInt64, Decimal64(8))"
    return f"""
CREATE TABLE IF NOT EXISTS {DATABASE}.ohlcv_{period}
(
    exchange LowCardinality(String),
    canonical_symbol LowCardinality(String),
    window_start DateTime64(3),
    opening SimpleAggregateFunction(min, {moment}),
    closing SimpleAggregateFunction(max, {moment}),
    open_time DateTime64(3) ALIAS toDateTime64(opening.1, 3),
    close_time DateTime64(3) ALIAS toDateTime64(closing.1, 3),
    open_price Decimal64(8) ALIAS opening.3,
    high_price SimpleAggregateFunction(max, Decimal64(8)),
    low_price SimpleAggregateFunction(min, Decimal64(8)),
    close_price Decimal64(8) ALIAS closing.3,
    volume SimpleAggregateFunction(sum, Decimal(38, 8)),
    quote_volume SimpleAggregateFunction(sum, Decimal(38, 8)),
    trade_count SimpleAggregateFunction(sum, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY (exchange, toYYYYMM(window_start))
ORDER BY (exchange, canonical_symbol, window_start)
TTL toDateTime(window_start) + INTERVAL {CANDLES[period][1]}"""


def _to_candle(period: str) -> str:
    moment = "tuple(timestamp, ifNull(source_sequence, 0), toDecimal64(price, 8))"
    return f"""
CREATE MATERIALIZED VIEW IF NOT EXISTS {DATABASE}.silver_to_{period} TO {DATABASE}.ohlcv_{period} AS
SELECT
    exchange,
    canonical_symbol,
    toDateTime64(toStartOfInterval(timestamp, INTERVAL {CANDLES[period][0]}), 3) AS window_start,
    min({moment}) AS opening,
    max({moment}) AS closing,
    max(toDecimal64(silver_trades.price, 8)) AS high_price,
    min(toDecimal64(silver_trades.price, 8)) AS low_price,
    sum(toDecimal128(quantity, 8)) AS volume,
    sum(toDecimal128(silver_trades.quote_volume, 8)) AS quote_volume,
    count() AS trade_count
FROM {DATABASE}.silver_trades
WHERE is_valid
GROUP BY exchange, canonical_symbol, window_start"""


def main() -> int:
    """`load` fills, `trickle` runs until stopped."""
    parser = argparse.ArgumentParser(prog="python -m local.k2", description=__doc__)
    parser.add_argument("action", choices=("load", "trickle"))
    parser.add_argument("--rows", type=int, default=None, help="trades in all, or trades a batch")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    if options.action == "load":
        began = time.monotonic()
        rows = load_history(options.rows or HISTORY_ROWS, seed=options.seed)
        sys.stdout.write(f"{rows} bronze trades in {DATABASE} after {time.monotonic() - began:.1f} s\n")
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        trickle(rows=options.rows or BATCH_ROWS, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
