"""The Java packages of the JDBC contender, by their Maven coordinates; kept in .venv/tools, fetched once."""

from __future__ import annotations

from pathlib import Path

from local import iceberg

ICEBERG = iceberg.VERSION
CLICKHOUSE_JDBC = "0.9.5"
PACKAGES = (f"com.clickhouse:clickhouse-jdbc:{CLICKHOUSE_JDBC}", *iceberg.PACKAGES)


def jars() -> list[Path]:
    """The jars of PACKAGES and all they need. Raises CalledProcessError with Spark's words."""
    return iceberg.fetch(PACKAGES)
