"""A Spark application: a ClickHouse table by JDBC into an existing Iceberg table. `spark_jdbc.py SETTINGS.json`.

Kind to the contender: session, catalog and schema are ready before the clock starts; no shuffle and no sort although
the table has a sort order (Iceberg's default would read the source twice); each task may keep all partitions open.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pyspark.sql import Column, SparkSession
from pyspark.sql.functions import col, from_json, max, min
from pyspark.sql.types import ArrayType, MapType, StructField

FETCH_ROWS = 100_000


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    builder = SparkSession.builder.config("spark.sql.session.timeZone", "UTC").config(
        "spark.sql.catalog.lake", "org.apache.iceberg.spark.SparkCatalog"
    )
    for key, value in settings["catalog"].items():
        builder = builder.config(f"spark.sql.catalog.lake.{key}", value)
    spark = builder.getOrCreate()
    target = spark.table(settings["target"]).schema
    jdbc = settings["jdbc"] | {"fetchsize": str(FETCH_ROWS)}
    if settings["partitions"] > 1:
        key = col(settings["partition_column"])
        lo, hi = spark.read.format("jdbc").options(**jdbc).load().agg(min(key), max(key)).first() or (0, 0)
        jdbc |= {
            "partitionColumn": settings["partition_column"],
            "lowerBound": str(lo),
            "upperBound": str(hi),
            "numPartitions": str(settings["partitions"]),
        }
    began = time.monotonic()
    rows = spark.read.format("jdbc").options(**jdbc).load()
    rows = rows.select(*(_value(field).alias(field.name) for field in target.fields))
    options = {"distribution-mode": "none", "fanout-enabled": "true", "use-table-distribution-and-ordering": "false"}
    rows.writeTo(settings["target"]).options(**options).append()
    print("BENCH_RESULT " + json.dumps({"seconds": time.monotonic() - began}), flush=True)
    spark.stop()


def _value(field: StructField) -> Column:
    """Arrays and maps come as JSON."""
    nested = isinstance(field.dataType, ArrayType | MapType)
    return from_json(col(field.name), field.dataType) if nested else col(field.name).cast(field.dataType)


if __name__ == "__main__":
    main()
