"""One spec, one DAG: `check_extent` -> `offload` -> `update_watermark`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from include.offload.spec.model import TableSpec
from include.orchestration.assets import asset_of
from include.orchestration.context import job_timeout
from include.orchestration.notify import FailureNotifier
from include.orchestration.params import trigger_form
from include.orchestration.reports import report_failure
from include.orchestration.spark import OffloadOperator
from include.orchestration.tasks import CHECK, SHIP, check_extent, update_watermark
from include.orchestration.text import dag_doc, summary

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
"""Any day in the past: without catch-up, the first run is the next interval after unpausing."""
RETRY_DELAY = timedelta(seconds=30)
LONGEST_RETRY_DELAY = timedelta(minutes=10)


def build_dag(spec: TableSpec) -> DAG:
    """The DAG of one table. Talks to nobody: safe at parse time."""
    with DAG(
        dag_id=spec.dag_id,
        description=summary(spec),
        doc_md=dag_doc(spec),
        # a plain cron string would give data intervals of zero width
        schedule=CronDataIntervalTimetable(spec.schedule, timezone="UTC"),
        start_date=FIRST_DAY,
        catchup=False,
        max_active_runs=1,
        params=trigger_form(spec),
        tags=sorted({"offload", spec.database, *spec.tags}),
        default_args={
            "owner": spec.owner,
            "retries": spec.retries,
            "retry_delay": RETRY_DELAY,
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": LONGEST_RETRY_DELAY,
            "on_retry_callback": report_failure(spec, final=False),
            # the ledger and the metrics first: a channel may take its time
            "on_failure_callback": [report_failure(spec, final=True), FailureNotifier(spec)],
        },
    ) as dag:
        ship = OffloadOperator(
            task_id=SHIP,
            spec=spec,
            plan_task_id=CHECK,
            pool=spec.pool,
            execution_timeout=job_timeout(),
            doc_md="Runs the Spark job for the frozen plan: one atomic Iceberg commit. Skipped when nothing moves.",
        )
        check_extent(spec) >> ship >> update_watermark(spec, asset_of(spec))
    return dag
