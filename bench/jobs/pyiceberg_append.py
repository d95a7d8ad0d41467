"""PyIceberg appends what clickhouse-connect reads, a few commits. `pyiceberg_append.py SETTINGS.json`.

Kind to the contender: catalog and table are loaded before the clock starts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyarrow as pa
from arrow_source import batches
from pyiceberg.catalog import load_catalog


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    catalog = load_catalog("lake", **settings["catalog"])
    table = catalog.load_table((settings["namespace"], settings["table"]))
    columns = table.schema().as_arrow()
    enough = -(-settings["rows"] // settings["commits"])
    began = time.monotonic()
    waiting: list[pa.RecordBatch] = []
    for batch in batches(settings, columns):
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= enough:
            table.append(pa.Table.from_batches(waiting))
            waiting.clear()
    if waiting:
        table.append(pa.Table.from_batches(waiting))
    print("BENCH_RESULT " + json.dumps({"seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
