"""More rows than usual, straight into the source: what the faults of lag and of performance have in common."""

from __future__ import annotations

import time
from contextlib import closing

import psycopg

from local import k2
from local.runbooks.stage import DAG, TABLE, Stage, write_spec

WINDOW_S = 10
SETTLE_S = 2


def pour(stage: Stage, tag: str, a_window: int, seconds: int, exchanges: int = 1) -> None:
    """Insert trades of the next `seconds`, so many a window: they settle one window after the other, as they would.

    They come from so many exchanges, each of which is an Iceberg partition.

    Their times lie ahead of now, so the rate is the same on a slow machine and on a quick one. The columns that
    `column_dropped` may have dropped before are not named.
    """
    lo = time.time_ns() // 1_000
    count = a_window * seconds // WINDOW_S
    with closing(k2.client(stage.stack.home)) as db:
        db.command(
            f"INSERT INTO {TABLE} (message_id, trade_id, exchange, symbol, canonical_symbol, currency, asset_class,"
            " price, quantity, quote_volume, side, timestamp, ingestion_timestamp, processed_at,"
            " source_sequence, platform_sequence, is_valid)"
            f" SELECT reinterpretAsUUID(sipHash128('{tag}', {lo}, number)), concat('{tag}-', toString(number)),"
            f" concat('exchange-', toString(number % {exchanges})), 'BTCUSDT', 'BTC-USDT', 'USDT', 'crypto',"
            " toDecimal128(60000 + number % 100, 8), toDecimal128(1, 8), toDecimal128(60000, 8), 'BUY',"
            f" fromUnixTimestamp64Micro(toInt64({lo} + intDiv({seconds} * 1000000 * number, {count})), 'UTC'),"
            f" now64(6, 'UTC'), now64(6, 'UTC'), NULL, NULL, true"
            f" FROM numbers({count})"
        )


def busiest_window(stage: Stage, seconds: int = 300) -> int:
    """The most rows of one window within so many seconds before and after now, asked of ClickHouse itself."""
    with closing(k2.client(stage.stack.home)) as db:
        ((rows,),) = db.query(
            f"SELECT max(n) FROM (SELECT count() AS n FROM {TABLE} WHERE timestamp BETWEEN now() - {seconds}"
            f" AND now() + {seconds} GROUP BY toStartOfInterval(timestamp, INTERVAL {WINDOW_S} SECOND))"
        ).result_rows
    return int(rows)


def rows_within(stage: Stage, seconds: int) -> int:
    """The rows of the last seconds, asked of ClickHouse itself."""
    with closing(k2.client(stage.stack.home)) as db:
        ((rows,),) = db.query(
            f"SELECT count() FROM {TABLE} WHERE timestamp BETWEEN now() - {seconds} AND now()"
        ).result_rows
    return int(rows)


def spec_again(stage: Stage) -> None:
    """The stage's own spec, and nothing beside it."""
    write_spec(stage.tables)
    # what `sed -i.before-…` kept
    for kept in stage.spec_file.parent.glob(f"{stage.spec_file.name}.before*"):
        kept.unlink()


def pause(stage: Stage, paused: bool) -> None:
    """Pause the DAG where Airflow keeps it, past its API: as a restored database does, say."""
    with psycopg.connect(stage.secret("airflow_db_uri")) as db:
        db.execute("UPDATE dag SET is_paused = %s WHERE dag_id = %s", (paused, DAG))


def is_paused(stage: Stage) -> bool:
    with psycopg.connect(stage.secret("airflow_db_uri")) as db:
        row = db.execute("SELECT is_paused FROM dag WHERE dag_id = %s", (DAG,)).fetchone()
    return bool(row and row[0])
