"""A round's table with a ledger of its own, and an operator who follows what the errors say."""

from __future__ import annotations

import os
import shlex
import signal
import threading
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from typer.testing import CliRunner

from include.offload.cli import app
from include.offload.errors import OffloadError
from include.offload.ledger.migrate import upgrade
from include.offload.model import Outcome, Plan
from include.offload.planning import Leave, Left
from include.offload.source.sql import literal
from include.offload.steps import ship, update_watermark
from local.stack import Stack
from tests.support.domain import COLUMNS, Domain, DomainTable, RunTasks, inline
from tests.support.one_step import one_step
from tests.torture.story import Change, Rows, Shape, Story

TRIES = 12
"""How often an operator follows an error's next step before the round counts as stuck."""
MERGE_TREE = "CREATE TABLE {table} (" + COLUMNS + ") ENGINE = MergeTree ORDER BY (sym, ts) PARTITION BY toDate(ts)"
REPLACING = (
    "CREATE TABLE {table} (" + COLUMNS + ", version UInt32 DEFAULT 1)"
    " ENGINE = ReplacingMergeTree(version) ORDER BY (sym, ts, id) PARTITION BY toDate(ts)"
)

T = TypeVar("T")


class StuckError(AssertionError):
    """The next steps that the errors name lead nowhere."""


def tried(act: Callable[[], T]) -> T | OffloadError:
    """A refusal is an answer."""
    try:
        return act()
    except OffloadError as error:
        return error


class OwnLedger(Domain):
    """The servers, with a ledger that may be lost: a database of this round alone."""

    name: str = ""

    @property
    def admin_uri(self) -> str:
        return self.servers.secret("postgres_uri")

    @property
    def uri(self) -> str:
        return self.servers.secret("offload_ledger_uri").rsplit("/", 1)[0] + f"/{self.name}"

    def ledger(self, statement: str, *params: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.uri) as connection:
            cursor = connection.execute(statement, params)
            return list(cursor.fetchall()) if cursor.description else []

    def postgres(self, statement: str, *names: str) -> None:
        """A statement as administrator, outside a transaction; `{}` are names."""
        with psycopg.connect(self.admin_uri, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*(sql.Identifier(n) for n in names)))  # type: ignore[arg-type]

    def create_ledger(self) -> None:
        self.postgres("CREATE DATABASE {} OWNER offload_ledger", self.name)
        upgrade(self.uri)

    def terminate(self) -> None:
        """End every session of this ledger."""
        with psycopg.connect(self.admin_uri, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self.name,)
            )


@dataclass
class World:
    """What the acts of a round work on."""

    domain: OwnLedger
    table: DomainTable
    crashes: Path
    shape: Shape
    faults: Counter[str] = field(default_factory=Counter)
    followed: Counter[str] = field(default_factory=Counter)
    """Next steps taken, by error id."""
    plans: list[uuid.UUID] = field(default_factory=list)
    watermark: int | None = None
    rebuilt: bool = False
    """The ledger was made anew from the lake: what it knew of the source before is gone."""
    arrived: set[int] = field(default_factory=set)
    """The first ids of the rows that came."""
    kept: tuple[Left, ...] = ()
    """Windows that the last plan left as they are in the lake, and said so."""

    # ---- the source --------------------------------------------------------------------------------------------------

    def arrive(self, rows: Rows) -> None:
        self.arrived.add(rows.first)
        start, step = self.domain.zero_us + rows.start_s * 1_000_000, int(rows.step_s * 1_000_000)
        self.table.sql(
            "INSERT INTO {table} (ts, id, sym, price, size, note, tags) SELECT"
            f" fromUnixTimestamp64Micro(toInt64({start} + number * {step}), 'UTC'), {rows.first} + number,"
            f" {literal(rows.sym)}, toDecimal64(number % 97, 8) / 7, 0.5 * number, {literal(rows.sym)},"
            f" arrayMap(i -> toString(i), range(number % 3)) FROM numbers({rows.count})"
        )

    def change(self, change: Change) -> None:
        where = f"id % {change.modulus} = {change.remainder}"
        if change.note is None:
            self.table.mutate(f"DELETE WHERE {where}")
        elif self.shape.final:
            self.table.sql(
                "INSERT INTO {table} (ts, id, sym, price, size, note, tags, version)"
                f" SELECT ts, id, sym, price + 1, size, {literal(change.note)}, tags, version + 1"
                f" FROM {{table}} FINAL WHERE {where}"
            )
        else:
            self.table.mutate(f"UPDATE note = {literal(change.note)}, price = price + 1 WHERE {where}")

    def merge(self) -> None:
        self.table.sql("OPTIMIZE TABLE {table} FINAL")

    # ---- the steps, as tasks of their own ----------------------------------------------------------------------------

    def fresh(self) -> None:
        """A task is a process of its own: nothing that the last one knew is known."""
        self.table.ctx.close()
        self.table.ctx = self.domain.context()

    def plan(self, run_id: str | None = None, **range_: Any) -> Plan:
        """`check_extent`, and whatever its errors ask for, until there is a plan."""
        for _ in range(TRIES):
            self.fresh()
            try:
                checked = self.table.check(run_id, **range_)
            except OffloadError as error:
                self.follow(error)
                continue
            # after a rebuild nobody knows what the source held: where rows expire, a changed window looks like one that
            # has begun to, and deleted rows look like those of a dropped partition: kept, and said (ADR 10)
            may_stay = self.rebuilt and (self.shape.ttl or self.shape.follow)
            assert may_stay or not checked.left, f"windows left alone: {checked.left}"
            assert all(x.reason is Leave.KEPT for x in checked.left), f"windows left alone: {checked.left}"
            self.kept = checked.left
            self.plans.append(checked.plan.plan_id)
            return checked.plan
        raise StuckError(f"no plan after {TRIES} tries: {dict(self.followed)}")

    def ship(self, plan_id: uuid.UUID, run_tasks: RunTasks = inline) -> Outcome | OffloadError:
        """`offload`. A refusal is an answer; anything else that is raised ends the round."""
        self.fresh()
        return tried(lambda: ship(self.table.ctx, plan_id, run_tasks))

    def finish(self, plan_id: uuid.UUID) -> OffloadError | None:
        """`update_watermark`; the watermark of a ledger that nobody lost never goes back."""
        self.fresh()
        done = tried(lambda: update_watermark(self.table.ctx, self.table.spec, plan_id))
        if isinstance(done, OffloadError):
            return done
        now = done.watermark_us
        assert self.watermark is None or (now is not None and now >= self.watermark), "the watermark went back"
        self.watermark = now
        return None

    def run(self, run_id: str | None = None, **range_: Any) -> int:
        """A whole run with its retries; how many rows it shipped."""
        for _ in range(TRIES):
            plan = self.plan(run_id, **range_)
            rows = 0
            if plan.touches_lake:
                outcome = self.ship(plan.plan_id)
                if isinstance(outcome, OffloadError):
                    self.follow(outcome)
                    continue
                rows = outcome.rows
            refused = self.finish(plan.plan_id)
            if refused is None:
                return rows
            self.follow(refused)
        raise StuckError(f"no run went through in {TRIES} tries: {dict(self.followed)}")

    def quiet(self) -> None:
        """Runs until one has nothing left to do, as a schedule would."""
        for _ in range(TRIES):
            plan = self.plan()
            if not plan.touches_lake and self.finish(plan.plan_id) is None:
                return
            self.run()
        raise StuckError(f"runs go on and on: {dict(self.followed)}")

    def landed(self) -> None:
        """Make sure that the lake's table holds a commit of ours."""
        if not self.table.exists() or not self.table.snapshots():
            self.run()

    def in_process(self, point: str | None, *step: str) -> int:
        """A step in a process of its own, killed at a point: its exit code."""
        if point is not None:
            (self.crashes / point).touch()
        code = one_step(self.crashes, *step)
        if point is not None:
            assert code == -signal.SIGKILL, f"{point} was not reached: exit code {code}"
            assert not list(self.crashes.iterdir())
        return code

    def at_once(self, *steps: tuple[str, ...]) -> list[int]:
        """Steps in processes of their own, all at once; their exit codes."""
        codes = [0] * len(steps)

        def one(i: int) -> None:
            codes[i] = one_step(self.crashes, *steps[i])

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(steps))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(code in {0, 1} for code in codes), f"exit codes {codes}"
        return codes

    # ---- the operator ------------------------------------------------------------------------------------------------

    def follow(self, error: OffloadError) -> None:
        """Do what the error says: a command is typed, servers are looked after, a task is cleared by going on."""
        self.followed[error.id] += 1
        if self.followed.total() > 10 * TRIES:
            raise StuckError(f"errors without end: {dict(self.followed)}")
        words = shlex.split(error.command or "")
        if words[:1] == ["bin/offload"]:
            if words[1] == "stack":
                self.servers_up()
                return
            if words[1:3] in (["ledger", "rebuild"], ["take-over", self.table.identity]):
                self.command(*words[1:])
                return
            if words[1] == "restore-main":
                # it would undo what the round did on purpose, and its story expects
                self.rebuild()
                return
            if words[1] == "plan":
                # it shows what the next run would ship, and the next run comes by itself
                return
        if error.kind.retry or "clear" in error.next_step or "next run" in error.next_step:
            return
        raise StuckError(f"an operator does not know what to do: {error}") from error

    def command(self, *words: str) -> None:
        """`bin/offload …`. What it refuses is not followed here: the next try meets it again."""
        yes = ["--yes"] if words[0] == "take-over" else []
        done = CliRunner().invoke(app, [*words, *yes, "--json"])
        self.watermark = None
        # a take-over rebuilds too
        self.rebuilt = self.rebuilt or words[:2] == ("ledger", "rebuild") or words[0] == "take-over"
        if done.exception is None or isinstance(done.exception, OffloadError):
            if done.exception is not None:
                self.followed[done.exception.id] += 1
                if words[:2] == ("ledger", "rebuild") and "take-over" in done.exception.next_step:
                    self.command("take-over", self.table.identity)
            return
        raise done.exception

    def servers_up(self) -> None:
        Stack().start(["postgres", "clickhouse", "seaweedfs"])

    def rebuild(self) -> None:
        self.command("ledger", "rebuild", self.table.identity)


@contextmanager
def world(domain: Domain, story: Story, crashes: Path) -> Iterator[World]:
    """The world of a story; all of it is gone afterwards."""
    name = f"torture_{story.seed}_{story.round}_{uuid.uuid4().hex[:6]}"
    own = OwnLedger(domain.servers, domain.admin, domain.zero_us, domain.session)
    own.name = name
    own.create_ledger()
    before = os.environ.get("OFFLOAD_LEDGER_URI")
    # processes of their own, the command line and Spark find the same ledger
    os.environ["OFFLOAD_LEDGER_URI"] = own.uri
    table = DomainTable(own, name, own.context())
    try:
        table.create((REPLACING if story.shape.final else MERGE_TREE) + _ttl(story.shape))
        table.write_spec(spec_of(story.shape))
        yield World(own, table, crashes, story.shape)
    finally:
        if before is None:
            del os.environ["OFFLOAD_LEDGER_URI"]
        else:
            os.environ["OFFLOAD_LEDGER_URI"] = before
        if table.exists():
            table.ctx.catalog.drop_table(table.target)
        table.ctx.close()
        table.spec_file.unlink(missing_ok=True)
        table.sql(f"DROP TABLE IF EXISTS {table.source} SYNC")
        for database in (name, f"{name}_copy"):
            own.postgres("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)


def _ttl(shape: Shape) -> str:
    return " TTL toDateTime(ts) + INTERVAL 30 DAY" if shape.ttl else ""


def spec_of(shape: Shape) -> str:
    """The table spec of a shape, as a person would write it."""
    fields = ", ".join(f'"{p}"' for p in shape.partition)
    lines = [
        "cursor: ts",
        f"window: {shape.window_s}s",
        "settle: 1s",
        "horizon: 2d",
        f"deletes: {'follow' if shape.follow else 'keep'}",
        f"slice: {{rows: {shape.slice_rows}}}",
        f"target: {{partition: [{fields}]{', sort: [sym, ts desc]' if shape.sort else ''}}}",
    ]
    if shape.sequence:
        lines.append("sequence: id")
    if shape.final:
        lines.append("source: {final: true}")
    return "\n".join(lines) + "\n"


@contextmanager
def unwarned() -> Iterator[None]:
    """PyIceberg warns of a delete that matches nothing: a foreign writer would not care."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
