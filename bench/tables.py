"""The two ClickHouse tables that every contender moves: how each is made, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local import k2
from local.paths import ROOT

SPECS = ROOT / "dags" / "tables" / "k2"
SPAN_US = 26 * 3600 * 1_000_000
"""The trades cover a day and a bit, so that two daily partitions hold them on any day but at any hour, three."""
BATCH_ROWS = 250_000


@dataclass(frozen=True, slots=True)
class BenchTable:
    """A table of the bench. `like`: the table of the k2 system whose columns and keys it has; `template`: the shipped
    spec that the bench's own are made from: same partitions, same sort order, same limits."""

    name: str
    like: str
    template: Path

    def batches(self, rows: int, end_us: int) -> Iterator[tuple[int, str]]:
        """(rows, SELECT) of each insert that fills the table with the trades of SPAN_US before `end_us` (µs UTC)."""
        if self is SILVER:
            parts = [rows * exchange.share // 100 for exchange in k2.EXCHANGES]
            parts[0] += rows - sum(parts)
            for exchange, part in zip(k2.EXCHANGES, parts, strict=True):
                for size, trades in _trades(exchange, part, end_us):
                    yield size, k2.silver_sql(exchange, f"({trades})")
        else:
            yield from _trades(k2.EXCHANGES[0], rows, end_us)


def _trades(exchange: k2.Exchange, rows: int, end_us: int) -> Iterator[tuple[int, str]]:
    start_us = end_us - SPAN_US
    for first in range(0, rows, BATCH_ROWS):
        size = min(BATCH_ROWS, rows - first)
        lo_us, hi_us = start_us + SPAN_US * first // rows, start_us + SPAN_US * (first + size) // rows
        yield size, k2.trades_sql(exchange, first, size, lo_us, hi_us)


BRONZE = BenchTable("bronze_trades", k2.EXCHANGES[0].table, SPECS / "bronze_trades_binance.yaml")
SILVER = BenchTable("silver_trades", "silver_trades", SPECS / "silver_trades.yaml")
TABLES = {table.name: table for table in (BRONZE, SILVER)}
