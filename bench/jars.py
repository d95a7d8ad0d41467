"""The Java packages of the JDBC contender, by their Maven coordinates; kept in .venv/tools, fetched once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

from local import spark
from local.paths import TOOLS, Home

ICEBERG = "1.12.0"
CLICKHOUSE_JDBC = "0.9.5"
PACKAGES = (
    f"com.clickhouse:clickhouse-jdbc:{CLICKHOUSE_JDBC}",
    f"org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:{ICEBERG}",
    f"org.apache.iceberg:iceberg-aws-bundle:{ICEBERG}",
)
FETCH_TIMEOUT_S = 600


def jars() -> list[Path]:
    """The jars of PACKAGES and all they need, fetched by Spark's own `--packages` when they are not there yet.

    Raises CalledProcessError with Spark's words when they can't be fetched.
    """
    store = TOOLS / "ivy"
    wanted = [f"{group}_{name}-{version}.jar" for group, name, version in (p.split(":") for p in PACKAGES)]
    store.mkdir(parents=True, exist_ok=True)
    # two at once would spoil each other's download
    with (store / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((store / "jars" / name).exists() for name in wanted):
            _fetch(store)
    return sorted((store / "jars").glob("*.jar"))


def _fetch(store: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Home(Path(folder)).make()
        spark.write_conf(root)
        application = Path(folder) / "nothing.py"
        application.write_text("")
        subprocess.run(
            [
                str(spark.spark_home() / "bin" / "spark-submit"),
                "--master=local[1]",
                f"--conf=spark.jars.ivy={store}",
                f"--packages={','.join(PACKAGES)}",
                str(application),
            ],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **spark.spark_env(root)},
            timeout=FETCH_TIMEOUT_S,
        )
