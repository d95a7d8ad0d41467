"""The Spark job: ships one frozen plan. `spark-submit spark_jobs/offload.py --plan <uuid>`.

Its standard output is a contract: `OFFLOAD_PROGRESS {…}` lines, then one `OFFLOAD_RESULT {…}` or `OFFLOAD_ERROR {…}`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from include.offload.errors import DISK_FULL, JOB_FAILED, OffloadError  # noqa: E402
from include.offload.jobwords import ERROR, PROGRESS, RESULT, error_document  # noqa: E402
from include.offload.lake.reach import is_disk_full  # noqa: E402
from spark_jobs.starting import SparkStart  # noqa: E402

if TYPE_CHECKING:
    from pyspark import Accumulator, SparkContext

    from include.offload.job import RunTasks
    from include.offload.lake.shipping import SliceTask
    from include.offload.model import Outcome, ShippedFile

PROGRESS_EVERY_S = 2.0


def say(word: str, document: object) -> None:
    """One line of the contract."""
    sys.stdout.write(f"{word}{json.dumps(document, default=str)}\n")
    sys.stdout.flush()


class Progress:
    """Says how far the tasks are, from a thread, while Spark works. The counts are for people, not for the audit."""

    def __init__(self, spark: SparkContext, tasks: Sequence[SliceTask]) -> None:
        self._total = len(tasks)
        self._planned = sum(t.rows for t in tasks)
        self._started = time.monotonic()
        self._stop = threading.Event()
        self.done: Accumulator[int] = spark.accumulator(0)
        self.rows: Accumulator[int] = spark.accumulator(0)
        self.bytes: Accumulator[int] = spark.accumulator(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._say()

    def _run(self) -> None:
        while not self._stop.wait(PROGRESS_EVERY_S):
            self._say()

    def _say(self) -> None:
        seconds = time.monotonic() - self._started
        rate = self.rows.value / seconds if seconds else 0.0
        left = self._planned - self.rows.value
        say(
            PROGRESS,
            {
                "slices_done": self.done.value,
                "slices": self._total,
                "rows": self.rows.value,
                "rows_planned": self._planned,
                "bytes": self.bytes.value,
                "seconds": round(seconds, 1),
                "rows_per_second": round(rate),
                "eta_seconds": round(max(0, left) / rate) if rate else None,
            },
        )


def run_on(starting: SparkStart) -> RunTasks:
    """A function that runs every lane of slices as one Spark task and returns the files."""
    from include.offload.lake.shipping import ship as ship_slice

    def run(tasks: Sequence[SliceTask]) -> Iterable[ShippedFile]:
        if not tasks:
            return
        spark = starting.context()
        with Progress(spark, tasks) as progress:
            done, rows, size = progress.done, progress.rows, progress.bytes

            def one_lane(lane: Sequence[SliceTask]) -> list[ShippedFile | OffloadError]:
                files: list[ShippedFile | OffloadError] = []
                for task in lane:
                    try:
                        file = ship_slice(task)
                    except OffloadError as error:
                        return [*files, error]
                    done.add(1)
                    rows.add(file.rows)
                    size.add(file.bytes)
                    files.append(file)
                return files

            lanes = [[t for t in tasks if t.lane == lane] for lane in sorted({t.lane for t in tasks})]
            results = spark.parallelize(lanes, len(lanes)).flatMap(one_lane).collect()
        yield from (r for r in results if not isinstance(r, OffloadError))
        for failure in (r for r in results if isinstance(r, OffloadError)):
            raise failure

    return run


def summary(outcome: Outcome) -> dict[str, object]:
    """What the operator and the command line show of an outcome."""
    document = asdict(outcome)
    document["windows"] = len(outcome.windows)
    document["pending"] = len(outcome.pending)
    document["pending_windows"] = outcome.pending
    return document


def refuse(error: Exception) -> None:
    """Say why, as the contract's last line."""
    if not isinstance(error, OffloadError):
        traceback.print_exception(error)
        kind = DISK_FULL if is_disk_full(error) else JOB_FAILED
        error = OffloadError(kind, f"{type(error).__name__}: {error}"[:1000])
    say(ERROR, error_document(error))


def ship_plan(plan_id: uuid.UUID, starting: SparkStart) -> Outcome | None:
    """Ship a plan; None: it was refused and that is said already, for Spark can only be stopped once it runs."""
    try:
        # slow to import; Spark starts meanwhile
        from include.offload.settings import load
        from include.offload.steps import open_context, ship

        return ship(open_context(load()), plan_id, run_on(starting), starting.ready)
    except Exception as error:
        refuse(error)
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Ship the plan of `--plan`; exit 0 on a commit, 1 on a refusal (said in the last line), else a traceback."""
    parser = argparse.ArgumentParser(description="Ship one frozen plan from ClickHouse into Iceberg.")
    parser.add_argument("--plan", required=True, type=uuid.UUID, help="the plan's id, as check_extent logged it")
    plan_id = parser.parse_args(argv).plan
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        with SparkStart(f"offload {plan_id}") as starting:
            outcome = ship_plan(plan_id, starting)
            # how the history server names this job
            application = starting.context().applicationId if outcome is not None else None
    except Exception as error:
        refuse(error)
        return 1
    if outcome is None:
        return 1
    say(RESULT, {**summary(outcome), "application_id": application})
    return 0


if __name__ == "__main__":
    sys.exit(main())
