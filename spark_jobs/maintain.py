"""The maintenance job: Iceberg's own procedures on one table. `spark-submit spark_jobs/maintain.py --plan <json>`.

The plan is what `bin/offload maintain TABLE --dry-run --json` prints; `@file` reads it from a file. Spark needs
Iceberg's runtime, by `--jars` or in its own folder. Its standard output is a contract: one `OFFLOAD_RESULT {…}` or
`OFFLOAD_ERROR {…}` line at the end.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pyspark.sql import SparkSession  # noqa: E402

from include.offload.jobwords import RESULT  # noqa: E402
from include.offload.lake.spark_catalog import spark_settings  # noqa: E402
from include.offload.maintenance.model import RESULT as DOCUMENT  # noqa: E402
from include.offload.maintenance.model import MaintenancePlan, plan_from_json  # noqa: E402
from include.offload.maintenance.procedures import target  # noqa: E402
from include.offload.maintenance.running import PATIENCE_S, maintain  # noqa: E402
from include.offload.settings import load  # noqa: E402
from include.offload.steps import open_context  # noqa: E402
from spark_jobs.offload import refuse  # noqa: E402
from spark_jobs.progress import say  # noqa: E402


class SparkLake:
    """A Spark session whose catalog `lake` is ours."""

    def __init__(self, settings: dict[str, str], name: str) -> None:
        builder = SparkSession.builder.appName(name)
        for key, value in settings.items():
            builder = builder.config(key, value)
        self._spark = builder.getOrCreate()
        self._spark.sparkContext.setLogLevel("WARN")

    def call(self, sql: str) -> dict[str, int]:
        """The numbers of the row that a procedure answers."""
        rows = self._spark.sql(sql).collect()
        found = rows[0].asDict() if rows else {}
        return {key: value for key, value in found.items() if isinstance(value, int)}

    def remove_orphans(self, plan: MaintenancePlan, older_than_ms: int) -> int:
        """By listing the object store through the table's own FileIO."""
        jvm: Any = self._spark._jvm
        session = self._spark._jsparkSession
        table = jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(session, target(plan))
        action = jvm.org.apache.iceberg.spark.actions.SparkActions.get(session).deleteOrphanFiles(table)
        found = action.olderThan(older_than_ms).usePrefixListing(True).execute()
        return sum(1 for _ in found.orphanFileLocations())

    def stop(self) -> None:
        """Stop Spark."""
        self._spark.stop()


def read_plan(text: str) -> MaintenancePlan:
    """The plan of `--plan`."""
    return plan_from_json(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plan; exit 0 when every step ended well, was overtaken or put off, 1 on a refusal."""
    parser = argparse.ArgumentParser(description="Compact, expire and clean one Iceberg table.")
    parser.add_argument("--plan", required=True, type=read_plan, help="the plan as JSON, or @file")
    parser.add_argument("--no-wait", action="store_true", help="work beside a running offload of the table too")
    arguments = parser.parse_args(argv)
    plan: MaintenancePlan = arguments.plan
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    ctx = open_context(load())
    try:
        lake = SparkLake(spark_settings(ctx.catalog.properties, plan.table), f"maintain {plan.table}")
        try:
            result = maintain(ctx, plan, lake, None if arguments.no_wait else PATIENCE_S)
        finally:
            lake.stop()
    except Exception as error:
        refuse(error)
        return 1
    finally:
        ctx.close()
    say(RESULT, DOCUMENT.dump_python(result, mode="json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
