"""ClickHouse's ArrowStream, read to nowhere, each query on a connection of its own. `limit.py SETTINGS.json`."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clickhouse_connect
from clickhouse_connect.driver.client import Client

CHUNK = 1 << 20
SETTINGS = {"output_format_arrow_string_as_string": 1, "output_format_arrow_low_cardinality_as_dictionary": 0}


def read(client: Client, query: str) -> int:
    """The bytes of an answer. Raises when it breaks."""
    size = 0
    with client.raw_stream(query, fmt="ArrowStream", settings=SETTINGS) as stream:
        while chunk := stream.read(CHUNK):
            size += len(chunk)
    return size


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    queries = settings["queries"]
    login = settings["clickhouse"] | {"compress": False, "autogenerate_session_id": False}
    clients = [clickhouse_connect.get_client(**login) for _ in queries]
    with ThreadPoolExecutor(len(queries)) as pool:
        began = time.monotonic()
        sizes = list(pool.map(read, clients, queries))
        seconds = time.monotonic() - began
    if not all(sizes):
        raise SystemExit(f"an answer was empty: {sizes}")
    print("BENCH_RESULT " + json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
