"""The domain on real servers, without Airflow and mostly without a JVM: tables of known rows, and the three steps.

Every table that a test makes is read by both verifiers when the test ends, and the ledger is held against the lake.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pyarrow as pa
import pytest
from pyarrow.fs import FileSelector
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Operation, Snapshot

from include.offload.context import Context, open_context
from include.offload.jobwords import Place
from include.offload.lake import shipping
from include.offload.lake.shipping import SliceTask
from include.offload.model import Outcome, ShippedFile
from include.offload.settings import ROOT, Settings, load
from include.offload.source.client import Client, parse_uri
from include.offload.source.sql import literal
from include.offload.spec.load import load_spec
from include.offload.spec.model import TableSpec
from include.offload.steps import CheckResult, RunRequest, WatermarkResult, check_extent, ship, update_watermark
from include.offload.verify import VerifyReport, verify
from include.offload.windows import Grid, Span
from tests.support.stack import Servers

DATABASE = "dom"
WINDOW_US = 300_000_000
GRID = Grid(WINDOW_US)
HOUR_US = 3_600_000_000
COLUMNS = """
    ts DateTime64(6, 'UTC'), id Int64, sym LowCardinality(String), price Decimal(18, 8), size Float64,
    note Nullable(String), tags Array(String)
"""
DDL = "CREATE TABLE {table} (" + COLUMNS + ") ENGINE = MergeTree ORDER BY (sym, ts) PARTITION BY toDate(ts)"
SPEC = """
cursor: ts
sequence: id
window: 5m
settle: 1s
horizon: 2d
target:
  partition: ["day(ts)"]
"""

RunTasks = Callable[[Sequence[SliceTask]], Iterable[ShippedFile]]


def inline(tasks: Sequence[SliceTask]) -> Iterator[ShippedFile]:
    """What Spark does with the slices, in this process: the same code, no JVM."""
    for task in tasks:
        yield shipping.ship(task)


@dataclass
class Run:
    """What the three steps of one run said. `outcome`: None when the plan touched only the ledger."""

    check: CheckResult
    outcome: Outcome | None
    watermark: WatermarkResult

    @property
    def rows(self) -> int:
        return self.outcome.rows if self.outcome else 0


@dataclass
class Domain:
    """The servers, an administrator's ClickHouse client, and the time that window 0 begins at (µs UTC)."""

    servers: Servers
    admin: Client
    zero_us: int
    session: str

    def context(self, **overrides: object) -> Context:
        return open_context(load(**overrides))

    def ledger(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """A statement in the ledger's database, as its owner."""
        with psycopg.connect(self.servers.secret("offload_ledger_uri")) as connection:
            cursor = connection.execute(sql, params)
            return list(cursor.fetchall()) if cursor.description else []


@dataclass
class DomainTable:
    """One table under test.

    `unverifiable`: why the lake is not expected to hold what ClickHouse holds when the test ends; then neither
    verifier looks, and the test itself must.
    """

    domain: Domain
    name: str
    ctx: Context
    unverifiable: str | None = None
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    runs: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def identity(self) -> str:
        return f"{DATABASE}.{self.name}"

    @property
    def source(self) -> str:
        return f"`{DATABASE}`.`{self.name}`"

    @property
    def spec_file(self) -> Path:
        return self.domain.servers.tables / DATABASE / f"{self.name}.yaml"

    @property
    def spec(self) -> TableSpec:
        return load_spec(self.identity, self.domain.servers.tables)

    # ---- the source --------------------------------------------------------------------------------------------------

    def sql(self, statement: str) -> None:
        """A statement as administrator; `{table}` is this table."""
        self.domain.admin.command(statement.replace("{table}", self.source))

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self.domain.admin.query(query.replace("{table}", self.source))

    def create(self, ddl: str = DDL) -> DomainTable:
        self.sql(f"DROP TABLE IF EXISTS {self.source} SYNC")
        self.sql(ddl)
        return self

    def write_spec(self, text: str = SPEC, more: str = "") -> DomainTable:
        self.spec_file.parent.mkdir(exist_ok=True)
        self.spec_file.write_text(text + more)
        return self

    def at(self, window: float) -> int:
        """The instant (µs UTC) at which a window of this test begins; window 0 is six hours ago."""
        return self.domain.zero_us + round(window * WINDOW_US)

    def number(self, window: int) -> int:
        """The number that the domain knows a window of this test by."""
        return GRID.number(self.at(window))

    def insert(self, window: float, rows: int = 10, sym: str = "a", note: str = "", size: float = 0.5) -> DomainTable:
        """`rows` rows with ids of their own, spread over one window."""
        first = next(self.ids)
        for _ in range(rows - 1):
            next(self.ids)
        step = WINDOW_US // (rows + 1)
        self.sql(
            f"INSERT INTO {{table}} (ts, id, sym, price, size, note, tags) SELECT"
            f" fromUnixTimestamp64Micro(toInt64({self.at(window)} + number * {step}), 'UTC'), {first} + number,"
            f" {literal(sym)}, toDecimal64(number % 97, 8) / 7, {size} * number,"
            f" if(number % 3 = 0, NULL, {literal(note or sym)}),"
            f" arrayMap(i -> toString(i), range(number % 3)) FROM numbers({rows})"
        )
        return self

    def fill(self, *windows: int, rows: int = 10, sym: str = "a") -> DomainTable:
        for window in windows:
            self.insert(window, rows, sym)
        return self

    def mutate(self, statement: str) -> None:
        """`ALTER TABLE … statement`, waited for."""
        self.sql(f"ALTER TABLE {{table}} {statement} SETTINGS mutations_sync = 2")

    # ---- the three steps ---------------------------------------------------------------------------------------------

    def check(
        self,
        run_id: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        force: bool = False,
        spec: TableSpec | None = None,
        follow_deletes: bool = False,
    ) -> CheckResult:
        request = RunRequest(run_id or f"run-{next(self.runs)}", from_us, to_us, force, follow_deletes)
        return check_extent(self.ctx, spec or self.spec, request)

    def ship(self, plan_id: uuid.UUID, run_tasks: RunTasks = inline) -> Outcome:
        return ship(self.ctx, plan_id, run_tasks)

    def watermark(self, plan_id: uuid.UUID) -> WatermarkResult:
        return update_watermark(self.ctx, self.spec, plan_id)

    def run(
        self,
        run_id: str | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        force: bool = False,
        run_tasks: RunTasks = inline,
        follow_deletes: bool = False,
    ) -> Run:
        """One whole run, as Airflow does it: `offload` is skipped when there is nothing to ship."""
        check = self.check(run_id, from_us, to_us, force, follow_deletes=follow_deletes)
        outcome = self.ship(check.plan.plan_id, run_tasks) if check.plan.touches_lake else None
        return Run(check, outcome, self.watermark(check.plan.plan_id))

    # ---- the lake ----------------------------------------------------------------------------------------------------

    @property
    def target(self) -> tuple[str, str]:
        return (self.spec.target.namespace, self.spec.target.table)

    def lake(self) -> IcebergTable:
        return self.ctx.catalog.load_table(self.target)

    def exists(self) -> bool:
        return self.ctx.catalog.table_exists(self.target)

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, oldest first."""
        return sorted(self.lake().snapshots(), key=lambda s: s.sequence_number or 0)

    def operations(self) -> list[Operation | None]:
        return [s.summary.operation if s.summary else None for s in self.snapshots()]

    def lake_ids(self, snapshot_id: int | None = None) -> list[int]:
        """The ids in the lake, sorted, twice when a row is there twice."""
        rows = self.lake().scan(selected_fields=("id",), snapshot_id=snapshot_id).to_arrow()
        return sorted(rows.column("id").to_pylist())

    def source_ids(self) -> list[int]:
        return sorted(int(i) for (i,) in self.ask("SELECT id FROM {table}"))

    def files(self) -> list[str]:
        return [str(t.file.file_path) for t in self.lake().scan().plan_files()]

    def stored(self) -> list[str]:
        """The data files in the store, whether a snapshot names them or not; sorted."""
        table = self.lake()
        where = urlsplit(table.location())
        assert isinstance(table.io, PyArrowFileIO)
        below = FileSelector(f"{where.netloc}{where.path}/data", recursive=True, allow_not_found=True)
        found = table.io.fs_by_scheme(where.scheme, where.netloc).get_file_info(below)
        return sorted(f"{where.scheme}://{f.path}" for f in found if f.is_file)

    def lake_windows(self) -> dict[int, int]:
        """Rows in the lake per window number, read by PyIceberg."""
        spec = self.spec
        column = self.lake().scan(selected_fields=(spec.cursor,)).to_arrow().column(spec.cursor)
        micros = column.cast(pa.timestamp("us", "UTC")).cast("int64").to_pylist()
        return dict(Counter(us // spec.window_us for us in micros))

    # ---- the ledger --------------------------------------------------------------------------------------------------

    def accounted(self) -> dict[int, int]:
        """Rows per window number as the ledger has them; verified empty windows are not in it."""
        rows = self.domain.ledger(
            "SELECT lower(span), rows FROM offload.windows JOIN offload.tables USING (table_id)"
            " WHERE identity = %s AND fingerprint IS NOT NULL",
            self.identity,
        )
        width = self.spec.window_us
        return {int(lo) // width: int(n) for lo, n in rows}

    def expiries(self) -> dict[int, int | None]:
        """The first expiry (µs UTC, None: never) of each shipped window, by number, as the ledger has it."""
        rows = self.domain.ledger(
            "SELECT lower(span), expiry_us FROM offload.windows JOIN offload.tables USING (table_id)"
            " WHERE identity = %s AND fingerprint IS NOT NULL",
            self.identity,
        )
        width = self.spec.window_us
        return {int(lo) // width: expiry for lo, expiry in rows}

    def empty_time(self) -> list[Span]:
        rows = self.domain.ledger(
            "SELECT lower(span), upper(span) FROM offload.windows JOIN offload.tables USING (table_id)"
            " WHERE identity = %s AND fingerprint IS NULL ORDER BY 1",
            self.identity,
        )
        return [Span(lo, hi) for lo, hi in rows]

    def row_count(self) -> int:
        ((rows,),) = self.domain.ledger("SELECT row_count FROM offload.watermarks WHERE table_name = %s", self.identity)
        return int(rows)

    def plan_status(self, plan_id: uuid.UUID) -> str:
        ((status,),) = self.domain.ledger("SELECT status FROM offload.plans WHERE plan_id = %s", plan_id)
        return str(status)

    # ---- the end of a test -------------------------------------------------------------------------------------------

    def verified(self) -> VerifyReport:
        """Both readers. Raises AssertionError with the differences."""
        report = verify(self.ctx, self.spec)
        assert report.ok, f"{self.identity}: {'; '.join(report.findings())}\n{report}"
        return report

    def verified_beside(self, foreign: int) -> None:
        """Both readers find our rows whole, and so many rows of somebody else where nothing was offloaded."""
        report = verify(self.ctx, self.spec)
        assert report.lake_total is not None and report.ledger_total is not None
        assert report.lake_total - report.ledger_total == foreign
        (finding,) = report.findings()
        assert "whole table" in finding

    def consistent(self) -> None:
        """The ledger says of every window what the lake holds."""
        lake = self.lake_windows() if self.exists() else {}
        assert self.accounted() == lake
        assert self.row_count() == sum(lake.values())


MakeDomainTable = Callable[..., DomainTable]


@pytest.fixture(scope="session")
def domain(data_stack: Servers) -> Iterator[Domain]:
    """The servers and a way into each of them."""
    endpoint = parse_uri(data_stack.secret("clickhouse_admin_uri"))
    with Client(endpoint, settings={}, comment="domain tests", table=None) as admin:
        admin.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        zero = admin.now_us() // HOUR_US * HOUR_US - 6 * HOUR_US
        yield Domain(data_stack, admin, zero, f"{int(time.time()):x}")


@pytest.fixture
def table(domain: Domain) -> Iterator[MakeDomainTable]:
    """Makes tables with a spec. When the test ends, both verifiers read every one of them."""
    made: list[DomainTable] = []
    context = domain.context()

    def make(
        more: str = "", *, spec: str = SPEC, ddl: str | None = DDL, settings: Settings | None = None
    ) -> DomainTable:
        name = f"t{len(made)}_{uuid.uuid4().hex[:8]}_{domain.session}"
        one = DomainTable(domain, name, open_context(settings) if settings else context)
        made.append(one)
        if ddl is not None:
            one.create(ddl)
        return one.write_spec(spec, more)

    yield make
    try:
        for one in made:
            if one.unverifiable is None:
                one.verified()
                one.consistent()
    finally:
        for one in made:
            one.spec_file.unlink(missing_ok=True)
            one.ctx.close()
            one.sql(f"DROP TABLE IF EXISTS {one.source} SYNC")


def meanwhile(happens: Callable[[], object]) -> RunTasks:
    """Runs the slices after something happened: between planning and reading."""

    def run(slices: Sequence[SliceTask]) -> Iterable[ShippedFile]:
        happens()
        return inline(slices)

    return run


def afterwards(happens: Callable[[], object]) -> RunTasks:
    """Runs the slices, then something happens: between writing the files and committing them."""

    def run(slices: Sequence[SliceTask]) -> Iterable[ShippedFile]:
        files = list(inline(slices))
        happens()
        return files

    return run


def spark_submit(
    domain: Domain,
    plan_id: uuid.UUID,
    crash_dir: Path | None = None,
    largest_file: int | None = None,
    place: Place = Place.EXECUTORS,
    on: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """The real job, the way an operator runs it by hand. largest_file: in bytes, for all its processes.

    on: options that name another master than this machine's.
    """
    from local.spark import spark_env, spark_submit_command

    env = {**os.environ, **spark_env()}
    env.pop("OFFLOAD_CRASH_DIR", None)
    if crash_dir is not None:
        env["OFFLOAD_CRASH_DIR"] = str(crash_dir)
    return subprocess.run(
        [
            *(*spark_submit_command(), *on, str(ROOT / "spark_jobs" / "offload.py")),
            *("--plan", str(plan_id), "--place", place),
        ],
        env=env,
        cwd=domain.servers.home,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        preexec_fn=largest_file and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))),
    )


def said(done: subprocess.CompletedProcess[str], word: str) -> list[dict[str, Any]]:
    """The documents of a job's `OFFLOAD_<word>` lines; spark-submit mixes the log in between them."""
    prefix = f"OFFLOAD_{word} "
    found = [json.loads(x.removeprefix(prefix)) for x in done.stdout.splitlines() if x.startswith(prefix)]
    assert found, f"no {prefix}line, exit code {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return found
