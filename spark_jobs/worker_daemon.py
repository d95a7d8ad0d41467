"""Spark's Python daemon, with what every slice needs loaded before it forks the first worker.

Each worker would otherwise import PyIceberg, Arrow and the ClickHouse client by itself, which costs
seconds a run. `spark_jobs/starting.py` names this module where executors see this code.
"""

from pyspark.daemon import manager

import include.offload.lake.shipping  # noqa: F401 - loaded for the forks

if __name__ == "__main__":
    manager()
