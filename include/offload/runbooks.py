"""Where an operator reads on: every error id leads to one heading of one runbook.

A runbook is a page below `docs/operations/runbooks`, a scenario is a heading in it, and an anchor is what GitHub
makes of that heading. Pages elsewhere, e.g. on GitHub, are named by the setting `OFFLOAD_RUNBOOKS_URL`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from include.offload import errors as e

FOLDER = "docs/operations/runbooks"
"""Where the pages lie in this repository; the base of every link unless `OFFLOAD_RUNBOOKS_URL` says otherwise."""
INDEX = "README.md"
FAILURE = "iceberg-offload-failure.md"
LAG = "iceberg-offload-lag.md"
PERFORMANCE = "iceberg-offload-performance.md"
WATERMARK = "iceberg-offload-watermark-recovery.md"
SCHEDULER = "iceberg-scheduler-recovery.md"
DATA = "iceberg-offload-data-at-risk.md"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that goes wrong. `heading`: the text of its heading in the page `file`."""

    file: str
    heading: str

    @property
    def path(self) -> str:
        """`file#anchor`, relative to the folder of the runbooks."""
        return f"{self.file}#{anchor(self.heading)}"


def anchor(heading: str) -> str:
    """The anchor that GitHub gives to a heading: lower case, no punctuation, hyphens for blanks."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


SCHEDULER_NOT_RUNNING = Scenario(FAILURE, "Scheduler not running")
CLICKHOUSE_CONNECTIVITY = Scenario(FAILURE, "ClickHouse connectivity")
SPARK_JOB_FAILURES = Scenario(FAILURE, "Spark job failures")
WATERMARK_TABLE_CORRUPTION = Scenario(FAILURE, "Watermark table corruption")
TIME_OUTS = Scenario(FAILURE, "Time-outs")
CATALOG_OR_STORE = Scenario(FAILURE, "Iceberg catalog or store unreachable")
CONFIGURATION = Scenario(FAILURE, "Wrong spec, setting or certificate")

SKIPPED_CYCLES = Scenario(LAG, "Skipped cycles")
WATERMARK_NOT_UPDATING = Scenario(LAG, "Watermark not updating")
LAG_VOLUME_SPIKE = Scenario(LAG, "Data volume spike")
MANUAL_CATCH_UP = Scenario(LAG, "Manual catch-up")

VOLUME_SPIKE = Scenario(PERFORMANCE, "Data volume spike")
RESOURCE_EXHAUSTION = Scenario(PERFORMANCE, "Resource exhaustion")
NETWORK_TROUBLE = Scenario(PERFORMANCE, "Network trouble")
SLOW_QUERIES = Scenario(PERFORMANCE, "Slow ClickHouse queries")

WATERMARK_WITHOUT_SCHEDULER = Scenario(WATERMARK, "Scheduler not running")
POSTGRESQL_CONNECTION = Scenario(WATERMARK, "PostgreSQL connection")
WATERMARK_TABLE_MISSING = Scenario(WATERMARK, "Watermark table missing")
WATERMARK_CORRUPTION = Scenario(WATERMARK, "Watermark corruption")
SILENT_FAILURE = Scenario(WATERMARK, "Silent failure")

SCHEDULER_NOT_STARTED = Scenario(SCHEDULER, "Scheduler not started")
SCHEDULER_CRASHED = Scenario(SCHEDULER, "Scheduler crashed")
SCHEDULER_HUNG = Scenario(SCHEDULER, "Scheduler hung")
METRICS_ENDPOINT_DOWN = Scenario(SCHEDULER, "Metrics endpoint down")
PERSISTENT_START_FAILURES = Scenario(SCHEDULER, "Persistent start failures and full-stack restart")
DAG_PROCESSOR_DOWN = Scenario(SCHEDULER, "DAG processor down")

TTL_HEADROOM = Scenario(DATA, "TTL headroom")
MISMATCH = Scenario(DATA, "Mismatch")
LATE_ROWS = Scenario(DATA, "Late rows beyond the horizon")
SCHEMA_DRIFT = Scenario(DATA, "Schema drift")
REGRESSED_WATERMARK = Scenario(DATA, "Regressed watermark")
METRICS_PIPELINE_BROKEN = Scenario(DATA, "Broken metrics pipeline")
SOURCE_REPLACED = Scenario(DATA, "Source table replaced")
FOREIGN_WRITER = Scenario(DATA, "Somebody else changed the Iceberg table")

SCENARIOS: tuple[Scenario, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Scenario))
"""Every scenario, in the order of the runbooks."""

OF_ERROR: dict[str, Scenario] = {
    kind.id: scenario
    for scenario, kinds in (
        (
            CONFIGURATION,
            (
                e.SPEC_INVALID,
                e.SETTING_MISSING,
                e.TLS_UNTRUSTED,
                e.SPEC_MISSING,
                e.CURSOR_UNFIT,
                e.FINAL_UNSAFE,
                e.WINDOW_CHANGED,
                e.VIEW_REFUSED,
                e.BUNDLE_LEAKS,
                e.CATALOG_NOT_FOR_SPARK,
            ),
        ),
        (
            CLICKHOUSE_CONNECTIVITY,
            (e.SOURCE_UNREACHABLE, e.SOURCE_REFUSED_LOGIN, e.SOURCE_STREAM_BROKEN, e.REPLICA_LAGS),
        ),
        (SLOW_QUERIES, (e.SOURCE_QUERY_FAILED,)),
        (
            SCHEMA_DRIFT,
            (
                e.SOURCE_TABLE_MISSING,
                e.SOURCE_COLUMN_MISSING,
                e.TYPE_NOT_LOSSLESS,
                e.SOURCE_COLUMNS_CHANGED,
                e.TARGET_SCHEMA_DISAGREES,
                e.SCHEMA_NEEDS_ACCEPT,
            ),
        ),
        (SOURCE_REPLACED, (e.SOURCE_CHANGED_IDENTITY,)),
        (CATALOG_OR_STORE, (e.CATALOG_UNREACHABLE, e.STORE_REFUSED, e.COMMIT_UNKNOWN)),
        (
            FOREIGN_WRITER,
            (
                e.TARGET_FOREIGN,
                e.TARGET_WITHOUT_MARKER,
                e.TARGET_ROLLED_BACK,
                e.TARGET_CHANGED,
                e.TARGET_HAS_DELETES,
                e.TARGET_MISSING,
                e.TARGET_ROWS_REMOVED,
                e.TARGET_ROWS_ADDED,
                e.TARGET_STILL_THERE,
                e.ADOPT_REFUSED,
                e.TABLE_RETIRED,
                e.MARKER_NEWER,
            ),
        ),
        (WATERMARK_TABLE_CORRUPTION, (e.PLAN_UNKNOWN, e.LEDGER_DISAGREES)),
        (WATERMARK_NOT_UPDATING, (e.PLAN_SUPERSEDED, e.WATERMARK_MOVED)),
        (MANUAL_CATCH_UP, (e.RANGE_REFUSED, e.BACKFILL_RUNNING)),
        (
            SPARK_JOB_FAILURES,
            (e.AUDIT_FAILED, e.JOB_FAILED, e.MAINTENANCE_FAILED, e.ICEBERG_RUNTIME_MISSING, e.MAINTENANCE_RUNNING),
        ),
        (MISMATCH, (e.VERIFY_FAILED,)),
        (POSTGRESQL_CONNECTION, (e.LEDGER_UNREACHABLE,)),
        (WATERMARK_TABLE_MISSING, (e.LEDGER_OUTDATED, e.LEDGER_DAMAGED)),
        (RESOURCE_EXHAUSTION, (e.DISK_FULL,)),
        (METRICS_PIPELINE_BROKEN, (e.MONITORING_UNREACHABLE,)),
    )
    for kind in kinds
}
"""The one heading that each error id leads to."""

UNKNOWN = f"{FAILURE}#diagnosis"
"""Where to begin with a failure that carries no id."""


def path_of(error_id: str | None) -> str:
    """`file#anchor` of an error id, relative to the folder of the runbooks; `UNKNOWN` for a failure without one.

    Raises KeyError for an id that is no error id.
    """
    return UNKNOWN if error_id is None else OF_ERROR[error_id].path


def link(path: str, base: str = FOLDER) -> str:
    """The address of `file#anchor` below `base`: a URL, or a folder of this repository."""
    return f"{base.rstrip('/')}/{path}"
