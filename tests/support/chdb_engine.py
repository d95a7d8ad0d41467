"""A real ClickHouse engine for unit tests: chdb in a process of its own, so that its directory is the test's.

chdb allows one engine a process and lets `icebergLocal` read below its working directory only. The same file is the
worker (when run) and the client (when imported); they talk in JSON lines over pipes.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class EngineError(Exception):
    """What ClickHouse said."""


class Engine:
    """A running engine whose working directory is `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def raw(self, sql: str, fmt: str = "TSVRaw", params: dict[str, Any] | None = None) -> bytes:
        """The answer in a format. Raises EngineError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([sql, fmt, params or {}]), file=self._process.stdin, flush=True)  # noqa: T201
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise EngineError(answer["error"])
        return base64.b64decode(answer["data"])

    def text(self, sql: str) -> str:
        """One value or table as raw tab-separated text."""
        return self.raw(sql).decode("utf-8", "replace").rstrip("\n")

    def query(self, sql: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows, like the client of the offload."""
        escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"})
        bound = {k: v.translate(escapes) if isinstance(v, str) else v for k, v in (params or {}).items()}
        explain = sql.startswith("EXPLAIN")
        settings = "" if explain else " SETTINGS output_format_json_quote_64bit_integers = 0"
        data = self.raw(f"{sql}{settings}", "JSONCompact", bound)
        return [tuple(row) for row in json.loads(data)["data"]] if data else []

    def arrow(self, sql: str) -> Any:
        """The rows as a pyarrow table, by the settings that the offload streams with."""
        import pyarrow as pa

        options = "output_format_arrow_string_as_string = 1, output_format_arrow_low_cardinality_as_dictionary = 0"
        return pa.ipc.open_stream(io.BytesIO(self.raw(f"{sql} SETTINGS {options}", "ArrowStream"))).read_all()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def _work() -> None:
    from chdb.session import Session

    session = Session(str(Path.cwd() / "engine"))
    for line in sys.stdin:
        sql, fmt, params = json.loads(line)
        try:
            result = session.query(sql, fmt, params=params)
            answer = {"data": base64.b64encode(result.bytes() or b"").decode()}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201
    session.close()


if __name__ == "__main__":
    _work()
