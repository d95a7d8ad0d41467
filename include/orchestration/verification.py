"""One spec, one verify DAG of one task: it compares a sample of the windows and keeps what it saw."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronDataIntervalTimetable, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from include.offload.spec.model import TableSpec
from include.orchestration.context import bind_log, job_timeout, quiet_libraries, settings_for
from include.orchestration.dag import FIRST_DAY, LONGEST_RETRY_DELAY, RETRY_DELAY
from include.orchestration.failures import refusals
from include.orchestration.notify import FailureNotifier
from include.orchestration.reports import name_refusal

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

VERIFY = "verify"
RETRIES = 1
"""For a server that was away; a difference is not tried again."""

log = logging.getLogger(__name__)

DOC = """
Compares a sample of the windows of `{table}` between ClickHouse and Iceberg, by two readers that share no code: count,
content hash and sums. Those that were compared longest ago come first, so that all have their turn. It reads only, and
goes on beside an offload: what the next run mends by itself is no difference. See `docs/howto-verify.md`.

When it is red: the last lines of `{task}` name the windows that differ;
`bin/offload repair {table} WINDOW` replaces one.
"""


def build_verify_dag(spec: TableSpec) -> DAG:
    """The verify DAG of one table. Talks to nobody: safe at parse time."""
    with DAG(
        dag_id=spec.verify_dag_id,
        description=f"Compares Iceberg with ClickHouse for {spec.identity}",
        doc_md=DOC.format(table=spec.identity, task=VERIFY),
        schedule=CronDataIntervalTimetable(spec.verify.schedule, timezone="UTC"),
        start_date=FIRST_DAY,
        catchup=False,
        max_active_runs=1,
        tags=sorted({"verify", spec.database, *spec.tags}),
        default_args={
            "owner": spec.owner,
            "retries": RETRIES,
            "retry_delay": RETRY_DELAY,
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": LONGEST_RETRY_DELAY,
            "on_failure_callback": [name_refusal, FailureNotifier(spec)],
        },
    ) as dag:
        verify(spec)
    return dag


def verify(spec: TableSpec) -> XComArg:
    """The task that compares. Skipped when there is nothing to compare; fails with OFL-409 for a difference."""

    @task(
        task_id=VERIFY,
        pool=spec.verify.pool,
        execution_timeout=job_timeout(),
        doc_md="Both readers compare a sample of the windows; the ledger keeps what they saw of each.",
    )
    def compare() -> dict[str, Any]:
        context = get_current_context()
        quiet_libraries()
        bind_log(table=spec.identity, run=str(context["run_id"]))
        with refusals():
            settings = settings_for(spec)
            # PyIceberg reads its configuration when it is imported: only now is it known where that stands
            from include.offload.sampling import must_be_equal, verify_sample
            from include.offload.steps import open_context

            report = verify_sample(open_context(settings), spec)
            if report is None:
                raise AirflowSkipException("nothing was offloaded yet, or all of it has begun to expire in ClickHouse")
            for finding in report.findings():
                log.error("%s", finding)
            log.info("verify %s: %s windows, %.1f s", spec.identity, f"{report.windows:,}", report.seconds)
            must_be_equal(report)
        return {"windows": report.windows, "rows": report.source_rows, "snapshot_id": str(report.snapshot_id)}

    return compare()
