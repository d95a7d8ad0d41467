"""What a contender is: a program that moves a ClickHouse table into a fresh Iceberg table and says how long it took."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyiceberg.schema import Schema

from bench.meter import ContenderFailedError
from bench.tables import BenchTable
from bench.world import DATABASE, World, summable, target_figures, target_rows_since
from include.offload.lake.schema import schema_of
from include.offload.source.sql import quote
from include.offload.spec.model import TableSpec
from local import secrets
from local.paths import ROOT, venv_bin

RESULT = "BENCH_RESULT "
"""Begins the line of standard output in which the bench's own jobs say `{"seconds": …}`."""
BENCH_VENV = ROOT / ".venv" / "bench"
JOBS = ROOT / "bench" / "jobs"


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a contender: `rows` from ClickHouse's `source` into Iceberg's `bench.<target>`."""

    table: BenchTable
    source: str
    target: str
    rows: int

    @property
    def identity(self) -> str:
        return f"{DATABASE}.{self.target}"


@dataclass(frozen=True, slots=True)
class Command:
    argv: list[str]
    env: dict[str, str]


class Contender(ABC):
    """A way to move the table. `name`: short, for file names and results.json; `title`: what people read."""

    name: str
    title: str
    slow: bool = False
    """Moves fewer rows than the others, so that the bench ends in time."""
    writes: bool = True
    """False: reads only, there is no Iceberg table to look at."""

    def absent(self) -> str | None:
        """Why it can't run on this machine, None when it can."""
        return None

    def prepare(self, world: World, job: Job) -> None:
        """Whatever is needed before the clock starts: the spec, an empty Iceberg table."""
        world.create_target(self.spec(world, job))

    def spec(self, world: World, job: Job) -> TableSpec:
        return world.spec(job.table, job.target, job.source)

    @abstractmethod
    def command(self, world: World, job: Job) -> Command:
        """The program that is measured."""

    def copied(self, stdout: str) -> float:
        """Seconds of the copy by the program's own clock: from its first read until the commit returned."""
        for line in stdout.splitlines():
            if line.startswith(RESULT):
                return float(json.loads(line.removeprefix(RESULT))["seconds"])
        raise ContenderFailedError(f"{self.name} said no result: {stdout[-1000:]}")

    def check(self, world: World, job: Job) -> tuple[str, ...]:
        """What is wrong with the Iceberg table, a sentence each; empty when it is right.

        PyIceberg reads it: the columns' types, the count, the sum of every number and instant, and the count of the
        newest day, for which it must find its way through the partitions.
        """
        table = world.target(job.target)
        spec = self.spec(world, job)
        expected = summable(schema_of(world.projection(spec)))
        found = dict(summable(table.schema()))
        wrong = [f"{name} is {_type(table.schema(), name)}, not {kind}" for name, kind in expected.items()
                 if not _alike(kind, found.get(name))]  # fmt: skip
        columns = {name: kind for name, kind in expected.items() if _alike(kind, found.get(name))}
        source, target = world.source_figures(job.source, columns), target_figures(table, columns)
        if source.rows != target.rows:
            wrong.append(f"{target.rows:,} rows instead of {source.rows:,}")
        wrong += [f"the sum of {name} is {target.sums[name]}, not {source.sums[name]}"
                  for name in columns if source.sums[name] != target.sums[name]]  # fmt: skip
        start = world.last_day(job.source, spec.cursor)
        there, seen = world.rows_since(job.source, spec.cursor, start), target_rows_since(table, spec.cursor, start)
        if there != seen:
            wrong.append(f"a filter on the newest day finds {seen:,} rows instead of {there:,}")
        return tuple(wrong)


def _alike(kind: str, other: str | None) -> bool:
    """Whether two Iceberg types hold the same numbers: a whole number may come in another width."""
    whole = ("int", "long", "decimal(20, 0)")
    instants = ("timestamp", "timestamptz")
    return kind == other or any(kind in alike and other in alike for alike in (whole, instants))


def _type(schema: Schema, name: str) -> str:
    try:
        return str(schema.find_type(name))
    except ValueError:
        return "missing"


def select(world: World, spec: TableSpec, source: str) -> str:
    """The rows as ClickHouse gives them to everyone: each column in the type that the Iceberg column has."""
    columns = world.projection(spec).columns
    return f"SELECT {', '.join(f'{c.expr} AS {quote(c.name)}' for c in columns)} FROM {DATABASE}.{source}"


def settings_file(world: World, job: Job, document: Mapping[str, Any]) -> Path:
    """A file, for the owner's eyes only, with what a job of the bench must know."""
    path = world.home.run / f"{job.target}.json"
    secrets.write(path, json.dumps(document))
    return path


def connections(world: World, job: Job) -> dict[str, Any]:
    """Where a job of the bench reads and writes: ClickHouse as the reader, and the catalog as PyIceberg wants it."""
    login = world.clickhouse
    return {
        "clickhouse": {
            "host": login.hostname,
            "port": login.port,
            "username": login.username,
            "password": secrets.read(world.home, "clickhouse_password"),
        },
        "catalog": {k: str(v) for k, v in world.catalog.properties.items() if k != "prefix"},
        "namespace": DATABASE,
        "table": job.target,
        "rows": job.rows,
    }


class PythonContender(Contender):
    """A job of the bench that runs in the bench's own environment: `bench/jobs/<script>.py SETTINGS.json`."""

    script: str

    def document(self, world: World, job: Job) -> dict[str, Any]:
        """What the job must know."""
        return connections(world, job) | {"select": select(world, self.spec(world, job), job.source)}

    def command(self, world: World, job: Job) -> Command:
        path = settings_file(world, job, self.document(world, job))
        argv = [str(venv_bin("python", BENCH_VENV)), str(JOBS / f"{self.script}.py"), str(path)]
        return Command(argv, dict(os.environ))
