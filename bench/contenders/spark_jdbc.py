"""Spark with the JDBC driver of ClickHouse and Iceberg's own writer: what this project's origin did."""

from __future__ import annotations

import json
import os

from pyiceberg.types import ListType, MapType, UUIDType

from bench import jars
from bench.contenders.base import JOBS, Command, Contender, Job
from bench.world import DATABASE, World
from include.offload.lake.schema import schema_of
from include.offload.source.sql import quote
from include.offload.spec.model import TableSpec
from local import secrets, spark


class SparkJdbc(Contender):
    """Spark reads by JDBC and writes with Iceberg's own Spark writer."""

    slow = True

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.name = f"spark-jdbc-{partitions}"
        self.title = f"Spark JDBC, {partitions} partition{'s' if partitions > 1 else ''}"

    def command(self, world: World, job: Job) -> Command:
        login = world.clickhouse
        spec = self.spec(world, job)
        lake = world.catalog.properties
        document = {
            "jdbc": {
                "url": f"jdbc:clickhouse://{login.hostname}:{login.port}/{DATABASE}",
                "driver": "com.clickhouse.jdbc.ClickHouseDriver",
                "user": login.username,
                "password": secrets.read(world.home, "clickhouse_password"),
                "dbtable": f"({self._query(world, spec, job.source)}) AS trades",
                # over loopback the server's compression would only cost both sides CPU
                "compress": "false",
            },
            "partitions": self.partitions,
            "partition_column": spec.sequence,
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
            str(JOBS / "spark_jdbc.py"),
            str(settings),
        ]
        return Command(argv, env)

    @staticmethod
    def _query(world: World, spec: TableSpec, source: str) -> str:
        """Spark's JDBC source refuses UInt64, arrays and maps: the first travels cast, as ours, the others as JSON."""
        projection = world.projection(spec)
        schema = schema_of(projection)
        columns = []
        for column in projection.columns:
            kind = schema.find_type(column.name)
            expr = column.expr
            if isinstance(kind, ListType | MapType):
                expr = f"toJSONString({expr})"
            elif isinstance(kind, UUIDType):
                expr = f"toString({expr})"
            columns.append(f"{expr} AS {quote(column.name)}")
        return f"SELECT {', '.join(columns)} FROM {source}"
