"""Real Spark with Iceberg's runtime, as somebody else who writes to our tables. One JVM for a whole session."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from pyiceberg.catalog import Catalog

from bench.jars import jars
from local import spark
from local.paths import SPARK_VENV
from tests.support.airflow_bag import ROOT

LIMIT_S = 120
SERVER = ROOT / "tests" / "support" / "spark_sql_server.py"
EXTENSIONS = "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"


class SparkSql:
    """SQL for a running Spark session; its catalog `lake` is ours."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._next("SQL_READY ")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("SQL_ENDED ")

    def _next(self, word: str) -> dict[str, Any]:
        said: list[str] = []
        while True:
            try:
                line = self._lines.get(timeout=LIMIT_S)
            except Empty:
                raise TimeoutError(f"Spark said nothing for {LIMIT_S} s: {''.join(said)[-2000:]}") from None
            if line.startswith(word):
                found: dict[str, Any] = json.loads(line.removeprefix(word))
                return found
            assert not line.startswith("SQL_ENDED"), f"Spark ended: {''.join(said)[-4000:]}"
            said.append(line)

    def __call__(self, sql: str) -> list[list[Any]]:
        """The rows of a statement. Raises AssertionError with Spark's words."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(sql) + "\n")
        self._process.stdin.flush()
        answer = self._next("SQL_ANSWER ")
        assert "error" not in answer, f"{sql}: {answer['error']}"
        rows: list[list[Any]] = answer["rows"]
        return rows


def _settings(catalog: Catalog, warehouse: Path) -> dict[str, str]:
    found = catalog.properties
    lake = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "rest",
        ".uri": found["uri"],
        ".warehouse": found["warehouse"],
        ".credential": found["credential"],
        ".oauth2-server-uri": found["oauth2-server-uri"],
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        ".s3.endpoint": found["s3.endpoint"],
        ".s3.access-key-id": found["s3.access-key-id"],
        ".s3.secret-access-key": found["s3.secret-access-key"],
        ".s3.path-style-access": "true",
        ".client.region": found["s3.region"],
        # others commit between two statements of a test: every statement loads the table anew
        ".cache-enabled": "false",
    }
    return {f"spark.sql.catalog.lake{key}": value for key, value in lake.items()} | {
        "spark.sql.extensions": EXTENSIONS,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(warehouse),
    }


@contextmanager
def spark_sql(catalog: Catalog, folder: Path) -> Iterator[SparkSql]:
    """A running session. Its settings lie in a 0600 file in `folder`, so that no password is in a command line."""
    settings = folder / "spark-sql.json"
    settings.touch(mode=0o600)
    settings.write_text(json.dumps(_settings(catalog, folder / "warehouse")))
    # started by pyspark and not by spark-submit, which keeps the standard input for itself
    process = subprocess.Popen(
        [str(SPARK_VENV / "bin" / "python"), str(SERVER), str(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            **spark.spark_env(),
            "PYSPARK_SUBMIT_ARGS": f"--master local[2] --jars {','.join(map(str, jars()))} pyspark-shell",
            "SPARK_DRIVER_MEMORY": "1g",
        },
    )
    try:
        yield SparkSql(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
