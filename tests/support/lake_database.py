"""ClickHouse's own way to the Iceberg catalog: a database of the engine DataLakeCatalog."""

from __future__ import annotations

from include.offload.source.client import Client, parse_uri
from include.offload.source.sql import literal
from tests.support.domain import Domain

LAKE = "lake_catalog"


def make_lake_database(domain: Domain) -> str:
    """Make it if it is not there; its name."""
    p = domain.context().catalog.properties
    key, secret = str(p["s3.access-key-id"]), str(p["s3.secret-access-key"])
    said = {
        "catalog_type": "rest",
        "warehouse": str(p["warehouse"]),
        "storage_endpoint": f"{p['s3.endpoint']}/lake",
        "catalog_credential": f"{key}:{secret}",
        "oauth_server_uri": str(p["oauth2-server-uri"]),
    }
    engine = ", ".join(literal(v) for v in (f"{str(p['uri']).rstrip('/')}/v1", key, secret))
    settings = ", ".join(f"{k} = {literal(v)}" for k, v in said.items())
    admin = parse_uri(domain.servers.secret("clickhouse_admin_uri"))
    with Client(admin, settings={"allow_database_iceberg": 1}, comment="lake database", table=None) as client:
        client.command(f"CREATE DATABASE IF NOT EXISTS {LAKE} ENGINE = DataLakeCatalog({engine}) SETTINGS {settings}")
    return LAKE
