"""The Spark job: ships one frozen plan. `spark-submit spark_jobs/offload.py --plan <uuid> [--place driver]`.

Its standard output is a contract: `OFFLOAD_PROGRESS {…}` lines, then one `OFFLOAD_RESULT {…}` or `OFFLOAD_ERROR {…}`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from include.offload.errors import DISK_FULL, JOB_FAILED, OffloadError  # noqa: E402
from include.offload.jobwords import ERROR, RESULT, Place, error_document  # noqa: E402
from include.offload.lake.reach import is_disk_full  # noqa: E402
from spark_jobs.in_driver import InDriver  # noqa: E402
from spark_jobs.progress import say  # noqa: E402

if TYPE_CHECKING:
    from include.offload.model import Outcome
    from spark_jobs.starting import SparkStart


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


def begin(place: Place, name: str) -> SparkStart | InDriver:
    """Where the slices are going to run."""
    if place is Place.DRIVER:
        return InDriver()
    # half a second of imports that the driver alone does without
    from spark_jobs.starting import SparkStart

    return SparkStart(name)


def ship_plan(plan_id: uuid.UUID, starting: SparkStart | InDriver) -> Outcome | None:
    """Ship a plan; None: it was refused and that is said already, for Spark can only be stopped once it runs."""
    try:
        # slow to import; Spark starts meanwhile
        from include.offload.settings import load
        from include.offload.steps import open_context, ship

        return ship(open_context(load()), plan_id, starting.run, starting.ready)
    except Exception as error:
        refuse(error)
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """Ship the plan of `--plan`; exit 0 on a commit, 1 on a refusal (said in the last line), else a traceback."""
    parser = argparse.ArgumentParser(description="Ship one frozen plan from ClickHouse into Iceberg.")
    parser.add_argument("--plan", required=True, type=uuid.UUID, help="the plan's id, as check_extent logged it")
    parser.add_argument(
        "--place",
        type=Place,
        choices=list(Place),
        default=Place.EXECUTORS,
        help="who ships the slices: Spark's executors, or the driver, which then starts none",
    )
    given = parser.parse_args(argv)
    plan_id: uuid.UUID = given.plan
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        with begin(given.place, f"offload {plan_id}") as starting:
            outcome = ship_plan(plan_id, starting)
            application = starting.application_id if outcome is not None else None
    except Exception as error:
        refuse(error)
        return 1
    if outcome is None:
        return 1
    say(RESULT, {**summary(outcome), "application_id": application})
    return 0


if __name__ == "__main__":
    sys.exit(main())
