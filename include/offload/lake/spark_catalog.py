"""The catalog of PyIceberg's configuration, as Spark's settings name it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from include.offload.errors import CATALOG_NOT_FOR_SPARK, OffloadError

NAME = "lake"
"""What Spark's statements call it."""
EXTENSIONS = "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
KINDS = {
    "rest": "rest",
    "hive": "hive",
    "glue": "glue",
    "sql": "jdbc",
}
RENAMED = {"s3.region": "client.region", "hive.uris": "uri"}
OF_PYTHON = (
    "type",
    "py-io-impl",
    "py-catalog-impl",
    "py-location-provider-impl",
    "ssl",
    "auth",
    "echo",
    "pool_pre_ping",
)
S3_IO = "org.apache.iceberg.aws.s3.S3FileIO"


def spark_settings(properties: Mapping[str, object], table: str) -> dict[str, str]:
    """The settings of a Spark session in which `lake` is the catalog that has these properties in PyIceberg.

    They hold its secrets: they belong into the session, not into a command line. Raises OFL-604 for a kind of catalog
    that Spark has no class for.
    """
    uri = str(properties.get("uri", ""))
    kind = str(properties.get("type") or _kind_of(uri))
    if kind not in KINDS:
        raise OffloadError(CATALOG_NOT_FOR_SPARK, f"its type is {kind or 'not given'}", table=table)
    given = {k: str(v) for k, v in properties.items() if k not in OF_PYTHON and isinstance(v, str | int | float | bool)}
    lake = {RENAMED.get(key, key): value for key, value in given.items()}
    lake["type"] = KINDS[kind]
    if kind == "sql":
        lake |= _jdbc(uri)
    if "s3.endpoint" in given:
        # what PyIceberg does with an endpoint of one's own
        lake.setdefault(
            "s3.path-style-access", str(given.get("s3.force-virtual-addressing", "false") != "true").lower()
        )
    if any(key.startswith("s3.") for key in given) or kind == "glue":
        lake.setdefault("io-impl", S3_IO)
    # an offload commits between two steps: every statement loads the table anew
    lake["cache-enabled"] = "false"
    prefix = f"spark.sql.catalog.{NAME}"
    return {
        prefix: "org.apache.iceberg.spark.SparkCatalog",
        **{f"{prefix}.{key}": value for key, value in lake.items()},
        "spark.sql.extensions": EXTENSIONS,
        "spark.sql.session.timeZone": "UTC",
    }


def _kind_of(uri: str) -> str:
    if uri.startswith("http"):
        return "rest"
    if uri.startswith("thrift"):
        return "hive"
    return "sql" if "://" in uri else ""


def _jdbc(uri: str) -> dict[str, str]:
    """SQLAlchemy's `postgresql+psycopg://user:password@host/db` as JDBC wants it."""
    scheme, _, rest = uri.partition("://")
    login, at, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    jdbc = {"uri": f"jdbc:{scheme.partition('+')[0]}://{place}"}
    return {**jdbc, "jdbc.user": unquote(user), "jdbc.password": unquote(password)} if at else jdbc
