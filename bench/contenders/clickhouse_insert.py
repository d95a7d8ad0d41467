"""ClickHouse's own INSERT into Iceberg."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from bench.contenders.base import Job, PythonContender, connections, select
from bench.world import DATABASE, World
from include.offload.source.sql import literal
from local import secrets

CATALOG_DATABASE = "bench_lake"
SETTINGS = {"allow_insert_into_iceberg": 1, "allow_database_iceberg": 1}


class ClickHouseInsert(PythonContender):
    """`INSERT INTO <catalog database>.<table> SELECT …`: ClickHouse encodes, uploads and commits through the catalog.

    By the database engine DataLakeCatalog and not by the function `icebergS3`, which commits past the catalog.
    """

    name = "clickhouse-insert"
    title = "ClickHouse's own `INSERT` into Iceberg"
    script = "clickhouse_insert"

    def prepare(self, world: World, job: Job) -> None:
        super().prepare(world, job)
        lake = world.catalog.properties
        bucket = urlsplit(world.target(job.target).location()).netloc
        keys = ", ".join(literal(str(lake[k])) for k in ("s3.access-key-id", "s3.secret-access-key"))
        options = {
            "catalog_type": "rest",
            "warehouse": str(lake["warehouse"]),
            "catalog_credential": str(lake["credential"]),
            "oauth_server_uri": str(lake["oauth2-server-uri"]),
            "storage_endpoint": f"{lake['s3.endpoint']}/{bucket}",
        }
        world.db.command(
            f"CREATE DATABASE IF NOT EXISTS {CATALOG_DATABASE}"
            f" ENGINE = DataLakeCatalog({literal(str(lake['uri']).rstrip('/') + '/v1')}, {keys})"
            f" SETTINGS {', '.join(f'{name} = {literal(value)}' for name, value in options.items())}",
            settings=SETTINGS,
        )

    def document(self, world: World, job: Job) -> dict[str, Any]:
        document = connections(world, job)
        # it writes from inside ClickHouse: the reader may not
        admin = urlsplit(secrets.read(world.home, "clickhouse_admin_uri"))
        document["clickhouse"] |= {"username": admin.username, "password": admin.password}
        rows = select(world, self.spec(world, job), job.source)
        return document | {
            "insert": f"INSERT INTO {CATALOG_DATABASE}.`{DATABASE}.{job.target}` {rows}",
            "settings": SETTINGS,
        }
