"""A Spark application that runs the SQL that comes on its standard input: one JSON string a line in, one document out.

Runs in Spark's own environment: it imports nothing of this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession


def main() -> None:
    builder = SparkSession.builder
    for key, value in json.loads(Path(sys.argv[1]).read_text()).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    print("SQL_READY {}", flush=True)  # noqa: T201 - the answer is the output
    for line in sys.stdin:
        try:
            rows = [list(row) for row in spark.sql(json.loads(line)).collect()]
            answer = {"rows": rows}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:4000]}
        print("SQL_ANSWER " + json.dumps(answer, default=str), flush=True)  # noqa: T201 - the answer is the output
    spark.stop()


if __name__ == "__main__":
    main()
