"""The table of `status` on terminals of any width: names are whole, the least important goes first."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from include.offload.cli.overview import Overview, TableStatus
from include.offload.cli.status import as_table

NOW = 1_790_000_000_000_000
NAMES = ("k2.bronze_trades_binance", "k2.bronze_trades_coinbase", "k2.silver_trades")
SEEN = Overview(
    NOW,
    tuple(
        TableStatus(
            name,
            "ok",
            clickhouse_rows=1_234_567_890,
            iceberg_rows=1_234_000_000,
            unshipped_rows=567_890,
            watermark_us=NOW - 1_000_000_000,
            lag_seconds=880.0,
            last_run_us=NOW - 138_000_000,
        )
        for name in NAMES
    ),
    (),
)


def lines(width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False)
    console.print(as_table(SEEN, width=width))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 70, 80, 90, 100, 110, 120, 180])
def test_every_table_is_one_line_with_its_whole_name(width: int) -> None:
    shown = lines(width)
    assert [line.split()[0] for line in shown[-3:]] == list(NAMES)
    assert all(line.endswith("ok") for line in shown[-3:])
    assert all(len(line) <= width for line in shown)


def test_a_wide_terminal_shows_all_of_it() -> None:
    first = lines(180)[1]
    assert "2026-09-21 13:56:40Z" in first
    assert "14 min 40 s" in first
    assert "2 min 18 s ago" in first


def test_a_narrower_one_is_short_before_it_leaves_columns_out() -> None:
    assert "09-21 13:56Z  14 m 40 s  2 m 18 s ago  ok" in lines(115)[2]
    assert "09-21 13:56Z  14 m 40 s  ok" in lines(100)[2]
    assert "567 890  09-21 13:56Z  14 m 40 s  ok" in lines(80)[1]
    assert "567 890  14 m 40 s  ok" in lines(60)[1]
