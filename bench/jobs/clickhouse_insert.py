"""ClickHouse writes into Iceberg by itself; this only tells it to, and waits. `clickhouse_insert.py SETTINGS.json`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import clickhouse_connect

LIMIT_S = 900


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    client = clickhouse_connect.get_client(
        **settings["clickhouse"], send_receive_timeout=LIMIT_S, autogenerate_session_id=False
    )
    began = time.monotonic()
    client.command(settings["insert"], settings=settings["settings"])
    print("BENCH_RESULT " + json.dumps({"seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
