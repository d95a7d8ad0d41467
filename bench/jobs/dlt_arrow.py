"""A dlt pipeline: Arrow batches of clickhouse-connect into an Iceberg table. `dlt_arrow.py SETTINGS.json`.

Kind to the contender: the Iceberg table is there and loaded once, and dlt is imported, before the clock starts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dlt
import pyarrow as pa
from arrow_source import batches
from dlt.destinations import filesystem
from pyiceberg.catalog import load_catalog


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    catalog = load_catalog("lake", **settings["catalog"])
    columns = catalog.load_table((settings["namespace"], settings["table"])).schema().as_arrow()
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    dlt.config["iceberg_catalog.iceberg_catalog_name"] = "lake"
    dlt.config["iceberg_catalog.iceberg_catalog_type"] = "rest"
    dlt.secrets["iceberg_catalog.iceberg_catalog_config"] = {"type": "rest", **settings["catalog"]}

    def rows() -> Iterator[pa.Table]:
        for batch in batches(settings, columns):
            yield pa.Table.from_batches([batch])

    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            pipeline_name=settings["table"],
            pipelines_dir=folder,
            destination=filesystem(settings["bucket"]["url"], settings["bucket"]["credentials"]),
            dataset_name=settings["namespace"],
        )
        resource = dlt.resource(
            rows, name=settings["table"], table_format="iceberg", write_disposition="append", file_format="parquet"
        )
        began = time.monotonic()
        pipeline.run(resource()).raise_on_failed_jobs()
        print("BENCH_RESULT " + json.dumps({"seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
