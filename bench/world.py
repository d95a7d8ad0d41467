"""Where the contenders run: a stack of their own, the trades in ClickHouse, a fresh Iceberg table for every run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.driver.client import Client
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from ruamel.yaml import YAML

from include.offload.context import Context, open_context
from include.offload.lake.catalog import create_table
from include.offload.ledger.migrate import upgrade
from include.offload.model import Projection
from include.offload.settings import load
from include.offload.source.describe import describe
from include.offload.source.projection import project
from include.offload.spec.load import load_spec
from include.offload.spec.model import TableSpec
from local import k2, ports
from local.paths import ROOT, Home
from local.secrets import read
from local.stack import OnProgress, Stack

SERVERS = ["postgres", "clickhouse", "seaweedfs"]
DATABASE = "bench"
EXCHANGE = k2.EXCHANGES[0]
TEMPLATE = ROOT / "dags" / "tables" / "k2" / "bronze_trades_binance.yaml"
"""The shipped spec that the bench's own are made from: same partitions, same sort order, same limits."""
SPAN_US = 26 * 3600 * 1_000_000
"""The trades cover a day and a bit, so that two daily partitions hold them on any day but at any hour, three."""
AGE_US = 3600 * 1_000_000
"""The newest trade is this old: every window is settled."""
BATCH_ROWS = 250_000
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

    def make_trades(self, rows: int, on_rows: Callable[[int], None]) -> str:
        """A table of `rows` bronze trades, made by ClickHouse itself; its name. What is there already is kept."""
        name = f"trades_{rows}"
        k2.create(self.db)
        self.db.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        self.db.command(f"CREATE TABLE IF NOT EXISTS {DATABASE}.{name} AS {k2.DATABASE}.{EXCHANGE.table}")
        there = self._number(f"SELECT count() FROM {DATABASE}.{name}")
        if there != rows:
            self.db.command(f"TRUNCATE TABLE {DATABASE}.{name}")
            hi = self._number("SELECT toUnixTimestamp64Micro(now64(6))") - AGE_US
            for first in range(0, rows, BATCH_ROWS):
                size = min(BATCH_ROWS, rows - first)
                lo_us = hi - SPAN_US + SPAN_US * first // rows
                hi_us = hi - SPAN_US + SPAN_US * (first + size) // rows
                select = k2.trades_sql(EXCHANGE, first, size, lo_us, hi_us)
                self.db.command(f"INSERT INTO {DATABASE}.{name} {select}")
                on_rows(first + size)
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

    def spec(self, target: str, source: str, *, sort: bool = True) -> TableSpec:
        """The spec `bench.<target>`, written where `bin/offload` finds it; it reads the ClickHouse table `source`."""
        yaml = YAML()
        document: Any = yaml.load(TEMPLATE.read_text())
        document["source"] = {"database": DATABASE, "table": source}
        if not sort:
            document["target"].pop("sort", None)
        folder = self.tables / DATABASE
        folder.mkdir(parents=True, exist_ok=True)
        (self.tables / "_defaults.yaml").write_text((TEMPLATE.parents[1] / "_defaults.yaml").read_text())
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

    # -- the checks ------------------------------------------------------------------------------------------------

    def source_figures(self, source: str, columns: Mapping[str, str]) -> Figures:
        """Count and sums by ClickHouse over the MergeTree. `columns`: what `summable` says of the target."""
        sums = ", ".join(f"toString(sum({_clickhouse_number(name, kind)}))" for name, kind in columns.items())
        (row,) = self.db.query(f"SELECT count(), {sums} FROM {DATABASE}.{source}").result_rows
        return Figures(int(row[0]), {name: Decimal(text) for name, text in zip(columns, row[1:], strict=True)})

    def target_figures(self, table: Table, columns: Mapping[str, str]) -> Figures:
        """The same by PyIceberg over the Iceberg table."""
        rows = 0
        sums = dict.fromkeys(columns, Decimal(0))
        for batch in table.scan(selected_fields=tuple(columns)).to_arrow_batch_reader():
            rows += batch.num_rows
            for name, kind in columns.items():
                values = batch.column(name)
                if kind.startswith("timestamp"):
                    values = values.cast(pa.int64())
                total = pc.sum(values.cast(pa.decimal256(76, _scale(kind)))).as_py()
                sums[name] += total if total is not None else Decimal(0)
        return Figures(rows, sums)


def summable(table: Table) -> dict[str, str]:
    """The columns of an Iceberg table whose sum says something, with their type: numbers, and instants as µs."""
    kinds = {f.name: str(f.field_type) for f in table.schema().fields}
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
