"""The contenders: what each one runs, and how its own words become figures.

A contender is a program that moves a ClickHouse table into a fresh Iceberg table and says how long the copy took. To
add one: a subclass with `prepare`, `command` and `copied`, and an instance of it in `CONTENDERS`.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import jars
from bench.meter import ContenderFailedError
from bench.world import DATABASE, World, summable
from include.offload.source.sql import quote
from include.offload.spec.model import TableSpec
from include.offload.verify import verify
from local import secrets, spark
from local.paths import ROOT, python

RESULT = "BENCH_RESULT "
"""Begins the line of standard output in which the bench's own jobs say `{"seconds": …}`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a contender: `rows` from ClickHouse's `source` into Iceberg's `bench.<target>`."""

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

    def prepare(self, world: World, job: Job) -> None:
        """Whatever is needed before the clock starts: the spec, an empty Iceberg table."""
        world.create_target(self.spec(world, job))

    def spec(self, world: World, job: Job) -> TableSpec:
        return world.spec(job.target, job.source)

    @abstractmethod
    def command(self, world: World, job: Job) -> Command:
        """The program that is measured."""

    def copied(self, stdout: str) -> float:
        """Seconds of the copy by the program's own clock: from its first read until the commit returned."""
        for line in stdout.splitlines():
            if line.startswith(RESULT):
                return float(json.loads(line.removeprefix(RESULT))["seconds"])
        raise ContenderFailedError(f"{self.name} said no result: {stdout[-1000:]}")

    def check(self, world: World, job: Job) -> None:
        """Raises ContenderFailedError unless the Iceberg table holds the rows: count and sums, read by PyIceberg."""
        table = world.target(job.target)
        columns = summable(table)
        source, target = world.source_figures(job.source, columns), world.target_figures(table, columns)
        if source.rows != job.rows or source != target:
            raise ContenderFailedError(f"{self.name} wrote {target}, ClickHouse holds {source}")


class Ours(Contender):
    """`bin/offload run`: plan, Spark job and watermark, as a user starts them."""

    name = "offload"
    title = "this project, `bin/offload run`"

    def prepare(self, world: World, job: Job) -> None:
        """The spec only: the job creates its Iceberg table itself."""
        self.spec(world, job)

    def command(self, world: World, job: Job) -> Command:
        return Command([python(), str(ROOT / "bin" / "offload"), "run", job.identity, "--json"], dict(os.environ))

    def copied(self, stdout: str) -> float:
        report: Mapping[str, Any] = json.loads(stdout)
        if report["status"] != "committed":
            raise ContenderFailedError(f"offload ended as {report['status']}")
        return float(report["job_seconds"])

    def check(self, world: World, job: Job) -> None:
        """The project's own verify, two readers; then the same check as everyone's."""
        report = verify(world.context, self.spec(world, job))
        if not report.ok:
            raise ContenderFailedError(f"verify: {report}")
        super().check(world, job)


class SparkJdbc(Contender):
    """Spark reads by JDBC and writes with Iceberg's own Spark writer."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.name = f"spark-jdbc-{partitions}"
        self.title = f"Spark JDBC, {partitions} partition{'s' if partitions > 1 else ''}"

    def command(self, world: World, job: Job) -> Command:
        login = world.clickhouse
        # Spark's JDBC source refuses ClickHouse's UInt64; the same casts as our own projection make it acceptable
        columns = world.projection(self.spec(world, job)).columns
        query = ", ".join(f"{column.expr} AS {quote(column.name)}" for column in columns)
        lake = world.catalog.properties
        document = {
            "jdbc": {
                "url": f"jdbc:clickhouse://{login.hostname}:{login.port}/{DATABASE}",
                "driver": "com.clickhouse.jdbc.ClickHouseDriver",
                "user": login.username,
                "password": secrets.read(world.home, "clickhouse_password"),
                "dbtable": f"(SELECT {query} FROM {job.source}) AS trades",
                # over loopback the server's compression would only cost both sides CPU
                "compress": "false",
            },
            "partitions": self.partitions,
            "target": f"lake.{DATABASE}.{job.target}",
            "catalog": {
                "type": "rest",
                "uri": lake["uri"],
                "warehouse": lake["warehouse"],
                "credential": lake["credential"],
                "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
                "s3.endpoint": lake["s3.endpoint"],
                "s3.access-key-id": lake["s3.access-key-id"],
                "s3.secret-access-key": lake["s3.secret-access-key"],
                "s3.path-style-access": "true",
                "client.region": lake["s3.region"],
            },
        }
        settings = world.home.run / f"{job.target}.json"
        secrets.write(settings, json.dumps(document))
        spark.write_conf(world.home)
        # the JVM does all the work here: none of the options that only suit a JVM which schedules
        quiet = f"file:{world.home.etc / 'spark-log4j2.properties'}"
        options = {**spark.submit_conf(world.home), "user.timezone": "UTC", "log4j2.configurationFile": quiet}
        env = {
            **os.environ,
            **spark.spark_env(world.home),
            "SPARK_SUBMIT_OPTS": " ".join(f"-D{key}={value}" for key, value in options.items()),
        }
        argv = [
            str(spark.spark_home() / "bin" / "spark-submit"),
            "--master=local[2]",
            "--driver-memory=4g",
            f"--jars={','.join(map(str, jars.jars()))}",
            str(ROOT / "bench" / "jobs" / "spark_jdbc.py"),
            str(settings),
        ]
        return Command(argv, env)


CONTENDERS: tuple[Contender, ...] = (Ours(), SparkJdbc(1), SparkJdbc(2))
OURS = CONTENDERS[0]
