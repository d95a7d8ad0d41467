"""Starts Spark as the offload job does, lets one Python worker answer, and ends: `bin/offload health --deep` runs it.

Prints one line, `OFFLOAD_RESULT {"version": …, "master": …}`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from include.offload.jobwords import RESULT  # noqa: E402


def main() -> None:
    """Raises RuntimeError when the worker answers wrongly."""
    from pyspark import SparkConf, SparkContext

    spark = SparkContext(conf=SparkConf().setIfMissing("spark.app.name", "offload-probe"))
    try:
        (answer,) = spark.parallelize([20], 1).map(lambda n: n + 1).collect()
        if answer != 21:
            raise RuntimeError(f"a worker computed {answer}")
        sys.stdout.write(f"{RESULT}{json.dumps({'version': spark.version, 'master': spark.master})}\n")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
