"""Iceberg's runtime for Spark, fetched once from a Maven repository: what maintenance needs and no offload does.

`python -m local.iceberg` fetches; it is a step of set-up, and without it everything but maintenance works.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from local import spark
from local.paths import TOOLS, Home

VERSION = "1.12.0"
PACKAGES = (
    f"org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:{VERSION}",
    f"org.apache.iceberg:iceberg-aws-bundle:{VERSION}",
)
"""By their Maven coordinates; each holds all that it needs."""
FETCH_TIMEOUT_S = 600
STORE = TOOLS / "ivy"


def paths(packages: Sequence[str] = PACKAGES) -> list[Path]:
    """Where the jars of these packages are, or would be."""
    parts = (package.split(":") for package in packages)
    return [STORE / "jars" / f"{group}_{name}-{version}.jar" for group, name, version in parts]


def present() -> list[Path]:
    """The jars that a maintenance job takes along; empty when they were not fetched."""
    wanted = paths()
    return wanted if all(path.exists() for path in wanted) else []


def fetch(packages: Sequence[str] = PACKAGES) -> list[Path]:
    """All jars of these packages and of what they need, by Spark's own `--packages` unless they are there.

    Raises CalledProcessError with Spark's words when they can't be fetched.
    """
    STORE.mkdir(parents=True, exist_ok=True)
    # two at once would spoil each other's download
    with (STORE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(path.exists() for path in paths(packages)):
            _fetch(packages)
    return sorted((STORE / "jars").glob("*.jar"))


def _fetch(packages: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Home(Path(folder)).make()
        spark.write_conf(root)
        application = Path(folder) / "nothing.py"
        application.write_text("")
        subprocess.run(
            [
                str(spark.spark_home() / "bin" / "spark-submit"),
                "--master=local[1]",
                f"--conf=spark.jars.ivy={STORE}",
                f"--packages={','.join(packages)}",
                str(application),
            ],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **spark.spark_env(root)},
            timeout=FETCH_TIMEOUT_S,
        )


def main() -> int:
    """Fetch; exit code 1 and the reason when that fails."""
    try:
        fetch()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or ""
        sys.stderr.write(f"no Iceberg runtime, maintenance will refuse with OFL-602: {error}\n{said[-2000:]}\n")
        return 1
    sys.stdout.write(f"Iceberg {VERSION} for Spark in {STORE / 'jars'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
