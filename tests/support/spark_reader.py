"""Reads Iceberg tables with Spark and prints every value in plain form: `spark-submit spark_reader.py TABLE…`.

Run by tests/integration/test_types_lossless.py with the Iceberg runtime jar and a catalog `lake` in Spark's settings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from plain import plain
from pyspark.sql import Row, SparkSession


def shaped(value: Any) -> Any:
    """Spark's rows as dicts, its maps as lists of pairs."""
    if isinstance(value, Row):
        return {k: shaped(v) for k, v in value.asDict(recursive=False).items()}
    if isinstance(value, dict):
        return [(shaped(k), shaped(v)) for k, v in value.items()]
    return [shaped(v) for v in value] if isinstance(value, list) else value


def main() -> None:
    """One JSON line a table: name, and its rows by cursor."""
    spark = SparkSession.builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    for name in sys.argv[1:]:
        rows = [plain(shaped(row)) for row in spark.table(name).orderBy("ts").collect()]
        sys.stdout.write(f"SPARK_ROWS {json.dumps({'table': name, 'rows': rows})}\n")
    spark.stop()


if __name__ == "__main__":
    main()
