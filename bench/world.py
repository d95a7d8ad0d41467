"""Where the contenders run: a stack of their own, the trades in ClickHouse, a fresh Iceberg table for every run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.driver.client import Client
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import GreaterThanOrEqual
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from ruamel.yaml import YAML

from bench.tables import SPECS, BenchTable
from include.offload.context import Context, open_context
from include.offload.lake import shipping
from include.offload.lake.catalog import create_table
from include.offload.ledger.migrate import upgrade
from include.offload.model import Outcome, Projection
from include.offload.settings import load
from include.offload.source.describe import describe
from include.offload.source.projection import project
from include.offload.spec.load import load_spec
from include.offload.spec.model import TableSpec
from include.offload.steps import ship
from local import k2, ports
from local.paths import Home
from local.secrets import read
from local.stack import OnProgress, Stack

SERVERS = ["postgres", "clickhouse", "seaweedfs"]
DATABASE = "bench"
AGE_US = 3600 * 1_000_000
"""The newest trade is this old: every window is settled."""
MERGE_LIMIT_S = 120.0
FIRST_PORT, LAST_PORT, PORT_STEP = 19_100, 32_000, 100


@dataclass(frozen=True, slots=True)
class Figures:
    """What a reader finds: rows, and the exact sum of every numeric column by name."""

    rows: int
    sums: dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Written:
    """The data files of an Iceberg table."""

    files: int
    bytes: int


class World:
    """One stack in `root`, an OFFLOAD_HOME of its own. Sets this process's environment to it."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root.resolve())
        os.environ["OFFLOAD_HOME"] = str(self.home.root)
        os.environ["OFFLOAD_TABLES"] = str(self.tables)
        if "OFFLOAD_PORT_BASE" not in os.environ:
            os.environ["OFFLOAD_PORT_BASE"] = str(free_base())
        self.stack = Stack(self.home.root)

    @property
    def tables(self) -> Path:
        """The bench's own table specs."""
        return self.home.root / "tables"

    def start(self, on_progress: OnProgress | None = None) -> None:
        """Start the servers. Raises StackError."""
        self.stack.start(SERVERS, on_progress)
        upgrade(load().ledger())

    def stop(self) -> None:
        """Stop everything that `start` started."""
        self.stack.stop()

    @cached_property
    def context(self) -> Context:
        return open_context(load())

    @property
    def catalog(self) -> Catalog:
        return self.context.catalog

    @cached_property
    def db(self) -> Client:
        """ClickHouse as the user that may write."""
        return k2.client(self.home)

    @property
    def clickhouse(self) -> SplitResult:
        """Address and login of the user that may only read."""
        return urlsplit(read(self.home, "offload_clickhouse_uri"))

    @property
    def server_pid(self) -> int:
        """The process of ClickHouse. Raises RuntimeError when it does not run."""
        (status,) = self.stack.status(["clickhouse"])
        if status.pid is None:
            raise RuntimeError(f"ClickHouse does not run ({status.state})")
        return status.pid

    # -- the source ------------------------------------------------------------------------------------------------

    def make(self, table: BenchTable, rows: int, on_rows: Callable[[int], None]) -> str:
        """A ClickHouse table of `rows` such trades, made by ClickHouse itself; its name. What is there is kept."""
        name = f"{table.name}_{rows}"
        k2.create(self.db)
        self.db.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        self.db.command(f"CREATE TABLE IF NOT EXISTS {DATABASE}.{name} AS {k2.DATABASE}.{table.like}")
        there = self._number(f"SELECT count() FROM {DATABASE}.{name}")
        if there != rows:
            self.db.command(f"TRUNCATE TABLE {DATABASE}.{name}")
            done = 0
            newest_us = self._number("SELECT toUnixTimestamp64Micro(now64(6))") - AGE_US
            for size, select in table.batches(rows, newest_us):
                self.db.command(f"INSERT INTO {DATABASE}.{name} {select}")
                done += size
                on_rows(done)
        on_rows(rows)
        return name

    def settle(self) -> None:
        """Wait until ClickHouse has no merge at work. Raises TimeoutError."""
        deadline = time.monotonic() + MERGE_LIMIT_S
        while self._number(f"SELECT count() FROM system.merges WHERE database = '{DATABASE}'"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"ClickHouse still merges after {MERGE_LIMIT_S:.0f} s")
            time.sleep(0.2)

    def _number(self, sql: str) -> int:
        return int(self.db.query(sql).result_rows[0][0])

    # -- the target ------------------------------------------------------------------------------------------------

    def spec(self, table: BenchTable, target: str, source: str) -> TableSpec:
        """The spec `bench.<target>`, written where `bin/offload` finds it; it reads the ClickHouse table `source`."""
        yaml = YAML()
        document: Any = yaml.load(table.template.read_text())
        document["source"] = {"database": DATABASE, "table": source}
        folder = self.tables / DATABASE
        folder.mkdir(parents=True, exist_ok=True)
        (self.tables / "_defaults.yaml").write_text((SPECS.parent / "_defaults.yaml").read_text())
        with (folder / f"{target}.yaml").open("w") as file:
            yaml.dump(document, file)
        return load_spec(f"{DATABASE}.{target}", self.tables, None)

    def create_target(self, spec: TableSpec) -> Table:
        """The empty Iceberg table of a spec, as our own job would create it."""
        return create_table(self.catalog, spec, self.projection(spec))

    def projection(self, spec: TableSpec) -> Projection:
        """Which columns a spec moves, with the ClickHouse expression of each."""
        with self.context.connect(spec, "offload bench") as client:
            return project(spec, describe(client, spec.source.database, spec.source.table))

    def target(self, target: str) -> Table:
        """The Iceberg table, freshly loaded."""
        return self.catalog.load_table((DATABASE, target))

    def ship(self, plan_id: UUID) -> Outcome:
        """A plan, in this process and without Spark."""
        return ship(self.context, plan_id, lambda tasks: map(shipping.ship, tasks))

    # -- the checks ------------------------------------------------------------------------------------------------

    def source_figures(self, source: str, columns: Mapping[str, str]) -> Figures:
        """Count and sums by ClickHouse over the MergeTree. `columns`: what `summable` says of the target."""
        sums = [f"toString(sum({_clickhouse_number(name, kind)}))" for name, kind in columns.items()]
        (row,) = self.db.query(f"SELECT {', '.join(['count()', *sums])} FROM {DATABASE}.{source}").result_rows
        return Figures(int(row[0]), {name: Decimal(text) for name, text in zip(columns, row[1:], strict=True)})

    def last_day(self, source: str, cursor: str) -> datetime:
        """Midnight UTC before the newest row: where the youngest daily partition begins."""
        us = self._number(f"SELECT toUnixTimestamp64Micro(toDateTime64(max({cursor}), 6)) FROM {DATABASE}.{source}")
        return datetime.fromtimestamp(us // 1_000_000, UTC).replace(hour=0, minute=0, second=0)

    def rows_since(self, source: str, cursor: str, start: datetime) -> int:
        """Rows of the MergeTree from an instant on, by ClickHouse."""
        return self._number(
            f"SELECT count() FROM {DATABASE}.{source} WHERE {cursor} >= fromUnixTimestamp({int(start.timestamp())})"
        )

    def cursor_edges(self, source: str, cursor: str, parts: int) -> list[int]:
        """The instants (µs UTC) that cut the rows of the MergeTree into this many equal parts: one fewer than parts."""
        levels = ", ".join(str(i / parts) for i in range(1, parts))
        if not levels:
            return []
        value = f"toUnixTimestamp64Micro(toDateTime64({cursor}, 6))"
        (row,) = self.db.query(f"SELECT quantilesExact({levels})({value}) FROM {DATABASE}.{source}").result_rows
        return [int(edge) for edge in row[0]]


def target_figures(table: Table, columns: Mapping[str, str]) -> Figures:
    """What `World.source_figures` says, by PyIceberg over the Iceberg table."""
    rows = 0
    sums = dict.fromkeys(columns, Decimal(0))
    for batch in table.scan(selected_fields=tuple(columns)).to_arrow_batch_reader():
        rows += batch.num_rows
        for name, kind in columns.items():
            values = batch.column(name)
            if pa.types.is_timestamp(values.type):
                values = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())
            total = pc.sum(values.cast(pa.decimal256(76, _scale(kind)))).as_py()
            sums[name] += total if total is not None else Decimal(0)
    return Figures(rows, sums)


def target_rows_since(table: Table, cursor: str, start: datetime) -> int:
    """Rows from an instant on, found by PyIceberg with a filter that prunes partitions."""
    return int(table.scan(row_filter=GreaterThanOrEqual(cursor, start.isoformat())).count())


def summable(schema: Schema) -> dict[str, str]:
    """The columns of an Iceberg schema whose sum says something, with their type: numbers, and instants as µs."""
    kinds = {f.name: str(f.field_type) for f in schema.fields}
    return {name: kind for name, kind in kinds.items() if kind.startswith(("int", "long", "decimal", "timestamp"))}


def _scale(kind: str) -> int:
    return int(kind.rstrip(")").split(",")[1]) if kind.startswith("decimal") else 0


def _clickhouse_number(name: str, kind: str) -> str:
    value = f"toUnixTimestamp64Micro(toDateTime64({name}, 6, 'UTC'))" if kind.startswith("timestamp") else name
    return f"toDecimal256({value}, {_scale(kind)})"


def written(table: Table) -> Written:
    """What the current snapshot of an Iceberg table holds."""
    files = [task.file for task in table.scan().plan_files()]
    return Written(len(files), sum(file.file_size_in_bytes for file in files))


def free_base() -> int:
    """The first port base at which every port of a stack is free. Raises RuntimeError when there is none."""
    before = os.environ.get("OFFLOAD_PORT_BASE")
    try:
        for base in range(FIRST_PORT, LAST_PORT, PORT_STEP):
            os.environ["OFFLOAD_PORT_BASE"] = str(base)
            if all(ports.is_free(name) for name in ports.OFFSETS):
                return base
    finally:
        if before is None:
            os.environ.pop("OFFLOAD_PORT_BASE", None)
        else:
            os.environ["OFFLOAD_PORT_BASE"] = before
    raise RuntimeError(f"no free ports from {FIRST_PORT} to {LAST_PORT}; set OFFLOAD_PORT_BASE")
