"""Spark starts in a thread while the driver imports, opens the ledger and loads the table: neither waits for the other.

A first job without work makes Spark fork its Python workers, so that they are there when the slices come.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway

from include.offload.crashpoint import reached
from spark_jobs.lanes import files_of, lanes_of, ship_lane
from spark_jobs.progress import Progress

if TYPE_CHECKING:
    from include.offload.lake.shipping import SliceTask
    from include.offload.model import ShippedFile

ROOT = Path(__file__).resolve().parents[1]
DAEMON = "spark_jobs.worker_daemon"
LOADED = "include.offload.lake.shipping"
"""What a slice needs."""


class SparkStart:
    """A SparkContext on its way, to ship slices in its executors. Leaving the block stops it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(max_workers=2, thread_name_prefix="spark-start")
        self._scratch = tempfile.TemporaryDirectory(prefix="offload-")
        self._context = self._thread.submit(self._start)
        self._workers = self._thread.submit(self._fork_workers)

    def context(self) -> SparkContext:
        """The context, as soon as it is there. Raises what Spark raised when it could not start."""
        return self._context.result()

    def _start(self) -> SparkContext:
        gateway = launch_gateway()  # type: ignore[no-untyped-call]
        # a configuration that is made before it knows of the JVM is empty, and every master looks local
        conf = SparkConf(_jvm=gateway.jvm).setAppName(self._name)
        local = (conf.get("spark.master") or "local").startswith("local")
        if local:
            conf.setIfMissing("spark.python.daemon.module", DAEMON)
        environment = {"PYTHONPATH": str(ROOT)} if local else None
        spark = SparkContext(conf=conf, gateway=gateway, environment=environment)
        try:
            spark.setLogLevel("WARN")
            if not local:
                # executors elsewhere do not share this disk
                spark.addPyFile(str(bundle_code(Path(self._scratch.name))))
        except BaseException:
            # nobody else gets to know of it, so nobody else could stop it
            spark.stop()
            raise
        return spark

    def _fork_workers(self) -> None:
        spark = self.context()
        cores = spark.defaultParallelism
        # executors elsewhere have no daemon that has it loaded; each worker serves the slices that come later
        spark.parallelize(range(cores), cores).foreach(lambda _: import_module(LOADED))

    def ready(self) -> None:
        """Wait until Spark runs and has forked its first Python workers. Raises what stopped it."""
        self._workers.result()
        reached("spark-started")

    @property
    def application_id(self) -> str | None:
        """How the history server names this job."""
        name: str = self.context().applicationId
        return name

    def run(self, tasks: Sequence[SliceTask]) -> Iterable[ShippedFile]:
        """Ship every lane of slices as one Spark task; yields the files, then raises the first refusal."""
        if not tasks:
            return
        spark = self.context()
        done, rows, size = spark.accumulator(0), spark.accumulator(0), spark.accumulator(0)
        lanes = lanes_of(tasks)
        with Progress(tasks, done, rows, size):
            shipped = spark.parallelize(lanes, len(lanes)).flatMap(lambda lane: ship_lane(lane, done, rows, size))
            results = shipped.collect()
        yield from files_of(results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # one that could not start has said so to whoever waited for it
        if self._context.exception() is None:
            self.context().stop()
        self._thread.shutdown()
        self._scratch.cleanup()


def bundle_code(directory: Path) -> Path:
    """The domain and the jobs as a zip file."""
    target = directory / "offload_code.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(p for room in ("include", "spark_jobs") for p in (ROOT / room).rglob("*.py")):
            archive.write(path, path.relative_to(ROOT))
    return target
