"""Small ClickHouse tables of known content, with a spec, for tests that run the whole path."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clickhouse_connect

from include.offload.context import Context, open_context
from include.offload.settings import load
from include.offload.spec.load import load_spec
from include.offload.spec.model import TableSpec
from include.offload.verify import VerifyReport, verify
from include.offload.windows import Grid
from tests.support.stack import Servers

DATABASE = "it"
NEVER = "0 0 29 2 *"
"""No interval since the DAGs' start date of 2024-01-01 has ended: the scheduler stays out of the test."""
STEP_S = 7
"""Seconds between two rows of a table; 40 windows of five minutes are 12,000 s, about 1,700 rows."""

DDL = """
CREATE TABLE {name} (
    ts DateTime64(3, 'UTC'), seq UInt64, symbol LowCardinality(String), price Decimal(18, 8),
    tags Array(String), extra Map(String, String), note Nullable(String), side Enum8('BUY' = 1, 'SELL' = 2)
) ENGINE = MergeTree ORDER BY (symbol, ts) PARTITION BY toDate(ts)
"""
ROWS = """
INSERT INTO {name} SELECT
    toDateTime64({start}, 3, 'UTC') + toIntervalMillisecond(number * {step_ms}), {first} + number,
    concat('S', toString(number % 5)), toDecimal64(number % 977, 8) / 7,
    arrayMap(i -> toString(i), range(number % 4)), map('venue', toString(number % 3)),
    if(number % 3 = 0, NULL, repeat('ä', number % 9)), if(number % 2 = 0, 'BUY', 'SELL')
FROM numbers({rows})
"""
SPEC = """
cursor: ts
sequence: seq
window: {window}
settle: 1s
horizon: 2d
schedule: "{schedule}"
retries: {retries}
target:
  partition: ["day(ts)", symbol]
tags: [test]
{more}
"""


@dataclass
class Table:
    """One table under test. `expected`: rows that were inserted; `first_us`: the first one's cursor, µs UTC."""

    servers: Servers
    name: str
    expected: int = 0
    first_us: int | None = None
    ctx: Context = field(init=False)

    def __post_init__(self) -> None:
        self.ctx = open_context(load())

    @property
    def identity(self) -> str:
        return f"{DATABASE}.{self.name}"

    @property
    def dag_id(self) -> str:
        return f"offload__{DATABASE}__{self.name}"

    @property
    def spec_file(self) -> Path:
        return self.servers.tables / DATABASE / f"{self.name}.yaml"

    @property
    def spec(self) -> TableSpec:
        return load_spec(self.identity, self.servers.tables)

    def command(self, sql: str) -> Any:
        """One statement as administrator; `{name}` is the table."""
        client = clickhouse_connect.get_client(dsn=self.servers.secret("clickhouse_admin_uri"))
        try:
            return client.command(sql.replace("{name}", f"{DATABASE}.`{self.name}`"))
        finally:
            client.close()

    def create(self, ddl: str = DDL) -> Table:
        client = clickhouse_connect.get_client(dsn=self.servers.secret("clickhouse_admin_uri"))
        try:
            client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        finally:
            client.close()
        self.command(f"DROP TABLE IF EXISTS {DATABASE}.`{self.name}` SYNC")
        self.command(ddl)
        return self

    def insert(self, rows: int, *, hours_ago: float = 6, step_s: float = STEP_S) -> Table:
        """`rows` rows from `hours_ago` on, one every `step_s` seconds, sequence numbers going on."""
        start = int(time.time() - hours_ago * 3600) // 300 * 300
        self.first_us = min(self.first_us or start * 1_000_000, start * 1_000_000)
        self.command(
            ROWS.replace("{start}", str(start))
            .replace("{step_ms}", str(round(step_s * 1000)))
            .replace("{first}", str(self.expected))
            .replace("{rows}", str(rows))
        )
        self.expected += rows
        return self

    def write_spec(self, *, schedule: str = NEVER, retries: int = 0, window: str = "5m", more: str = "") -> Table:
        """The spec; by default no schedule that fires during a test, and no retries."""
        self.spec_file.parent.mkdir(exist_ok=True)
        self.spec_file.write_text(SPEC.format(schedule=schedule, retries=retries, window=window, more=more))
        return self

    def close(self) -> None:
        """Give all connections back."""
        self.ctx.close()

    def verified(self) -> VerifyReport:
        """Both readers; raises AssertionError with the differences."""
        report = verify(self.ctx, self.spec)
        assert report.ok, f"{self.identity}: {'; '.join(report.findings())}\n{report}"
        return report

    def whole(self) -> VerifyReport:
        """Verified, and every row that was inserted is there."""
        report = self.verified()
        assert report.lake_rows == self.expected, f"{self.identity}: {report.lake_rows} of {self.expected} rows"
        return report

    def watermark_us(self) -> int:
        """Where the ledger says the table stands; µs UTC."""
        head = self.ctx.ledger.head(self.identity)
        assert head is not None
        assert head.watermark_us is not None
        return head.watermark_us

    def settled_us(self) -> int:
        """The settled time now; µs UTC, this machine's clock."""
        return Grid(self.spec.window_us).settled_until(time.time_ns() // 1000, self.spec.settle_us)

    def lake(self) -> LakeState:
        """What Iceberg holds now, read by PyIceberg alone."""
        table = self.ctx.catalog.load_table((self.spec.target.namespace, self.spec.target.table))
        rows = table.scan().to_arrow().sort_by([("ts", "ascending"), ("seq", "ascending")])
        digest = hashlib.sha256(repr(rows.to_pylist()).encode()).hexdigest()
        return LakeState(rows.num_rows, digest, tuple(s.snapshot_id for s in table.snapshots()))


@dataclass(frozen=True)
class LakeState:
    """Rows, a hash over all of them in order, and the ids of all snapshots."""

    rows: int
    digest: str
    snapshots: tuple[int, ...]


def finish(table: Table) -> None:
    """The end of a test's table: both verifiers read it when it was offloaded and still has a spec."""
    try:
        head = table.ctx.ledger.head(table.identity)
        if table.spec_file.exists() and head is not None and head.watermark_us is not None:
            table.verified()
    finally:
        table.spec_file.unlink(missing_ok=True)
        table.close()


MakeTable = Callable[[str], Table]
