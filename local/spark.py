"""Spark on one machine: environment, settings, and the class data archive that halves its start.

The archive holds parsed classes for one build of Java and one of Spark: its name is a digest of both, so an archive of
another build is simply not found. Java refuses to dump or use one when the class path has a directory with files in it,
and SPARK_CONF_DIR is on the class path: so there is no configuration directory, and the settings travel in
SPARK_SUBMIT_OPTS, where neither Airflow nor the command line has to name them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from local import java
from local.paths import ROOT, SPARK_VENV, TOOLS, Home, home

JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""A job's JVM only schedules tasks: a small collector and the quick compiler start it in half the time."""
DRIVER_MEMORY = "768m"
LOGGING = ROOT / "deploy" / "spark" / "log4j2.properties"
"""What a job says about itself; docker-compose.yaml mounts the same file."""


def spark_home() -> Path:
    """The installed pyspark. Raises FileNotFoundError when set-up has not run."""
    found = sorted(SPARK_VENV.glob("lib/python3.*/site-packages/pyspark"))
    if not found:
        raise FileNotFoundError(f"{SPARK_VENV} holds no pyspark: run `make setup`")
    return found[0]


def archive() -> Path:
    """Where the class data archive of this Java and this Spark lies, or would lie."""
    version = (spark_home() / "version.py").read_text()
    facts = f"{java.full_version(java.java_home())}\n{version}\n{spark_home()}"
    return TOOLS / f"spark-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.jsa"


def submit_conf(root: Home | None = None) -> dict[str, str]:
    """Spark's settings for a job on this machine."""
    where = root or home()
    return {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(where.root / "spark-warehouse"),
    }


def jvm_options(root: Home | None = None) -> list[str]:
    """Options of the driver's JVM: quick to start, the archive when it is there, the settings as properties."""
    where = root or home()
    baked = archive()
    shared = [f"-XX:SharedArchiveFile={baked}", "-Xlog:disable", "-Xlog:all=error:stderr"] if baked.exists() else []
    log4j = f"-Dlog4j2.configurationFile=file:{where.etc / 'spark-log4j2.properties'}"
    # not into the directory that a job happens to be started in
    died = f"-XX:ErrorFile={where.logs / 'spark-jvm-%p.log'}"
    return [*JVM, *shared, died, log4j, *(f"-D{key}={value}" for key, value in submit_conf(where).items())]


def write_conf(root: Home) -> None:
    """Write what the environment points at: Spark's logging, quiet, and a directory for its temporary files."""
    (root.root / "spark-tmp").mkdir(exist_ok=True, mode=0o700)
    (root.etc / "spark-log4j2.properties").write_text(LOGGING.read_text(encoding="utf-8"))


def spark_env(root: Home | None = None) -> Mapping[str, str]:
    """The environment in which `spark-submit` finds this Spark, this Java and this configuration."""
    where = root or home()
    installed = spark_home()
    return {
        "SPARK_HOME": str(installed),
        "SPARK_SUBMIT_OPTS": " ".join(jvm_options(where)),
        "SPARK_DRIVER_MEMORY": DRIVER_MEMORY,
        "JAVA_HOME": str(java.java_home()),
        "PYSPARK_PYTHON": str(SPARK_VENV / "bin" / "python"),
        "PYSPARK_DRIVER_PYTHON": str(SPARK_VENV / "bin" / "python"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(where.root / "spark-tmp"),
        "PYICEBERG_HOME": str(where.secrets),
        "PATH": f"{installed / 'bin'}:{os.environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
    }


def spark_submit_command() -> list[str]:
    """The program that starts a job; append the application and its arguments."""
    return [str(spark_home() / "bin" / "spark-submit"), "--master", "local[2]"]


def bake() -> Path:
    """Make the archive unless it is there; the path. Raises CalledProcessError with Spark's words."""
    target = archive()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Home(Path(folder))
        root.make()
        write_conf(root)
        fresh = Path(folder) / "new.jsa"
        dump = f"-XX:ArchiveClassesAtExit={fresh} -Xlog:disable -Xlog:all=error:stderr"
        subprocess.run(
            [*spark_submit_command(), "--driver-java-options", dump, str(ROOT / "local" / "spark_warm_up.py")],
            check=True,
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, **spark_env(root)},
            timeout=300,
        )
        staged = target.with_suffix(".new")
        staged.write_bytes(fresh.read_bytes())
        staged.replace(target)
    return target


def main() -> int:
    """Bake; exit code 1 and the reason when that fails. Jobs run without the archive too, only slower."""
    try:
        sys.stdout.write(f"class data archive: {bake()}\n")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or ""
        sys.stderr.write(f"no class data archive, Spark jobs will start slower: {error}\n{said[-2000:]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
