"""One spec, one maintenance DAG: `wait` -> `survey` -> `maintain`. It lets a running offload of the table end first."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseSensorOperator, Context, CronDataIntervalTimetable, get_current_context, task

from include.offload.spec.model import TableSpec
from include.orchestration.context import bind_log, job_timeout, quiet_libraries, settings_for
from include.orchestration.dag import FIRST_DAY, LONGEST_RETRY_DELAY, RETRY_DELAY
from include.orchestration.failures import refusals
from include.orchestration.notify import FailureNotifier
from include.orchestration.reports import report_maintenance_failure
from include.orchestration.spark import JobOperator

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

WAIT, SURVEY, MAINTAIN = "wait", "survey", "maintain"
PLAN_KEY = "plan"
APPLICATION = Path(__file__).resolve().parents[2] / "spark_jobs" / "maintain.py"
WAIT_S = 3600
"""How long a maintenance waits for a run of the offload, seconds; then it is skipped until tomorrow."""
POKE_S = 30
SURVEY_LIMIT = timedelta(minutes=15)
RETRIES = 1
"""What fails is tried again tomorrow anyway."""
DRIVER_MEMORY = "1g"
"""Where the Spark connection says local, the driver writes the compacted files itself."""

log = logging.getLogger(__name__)

DOC = """
Takes care of the Iceberg table of `{table}`: compacts the files of settled partitions, rewrites manifests, expires
snapshots, removes orphans. `{wait}` lets a running offload end first and skips this run when it does not within an
hour; `{survey}` reads the table's metadata and decides what there is to do; `{maintain}` runs Iceberg's own procedures
in Spark. Nothing here can lose or double a row, not even beside an offload. See `docs/howto-maintain.md`.

When it is red: read the last lines of `{maintain}`; the offload goes on without it, and the next run tries again.
"""


def build_maintenance_dag(spec: TableSpec) -> DAG:
    """The maintenance DAG of one table. Talks to nobody: safe at parse time."""
    with DAG(
        dag_id=spec.maintenance_dag_id,
        description=f"Care for the Iceberg table of {spec.identity}",
        doc_md=DOC.format(table=spec.identity, wait=WAIT, survey=SURVEY, maintain=MAINTAIN),
        schedule=CronDataIntervalTimetable(spec.maintenance.schedule, timezone="UTC"),
        start_date=FIRST_DAY,
        catchup=False,
        max_active_runs=1,
        tags=sorted({"maintenance", spec.database, *spec.tags}),
        default_args={
            "owner": spec.owner,
            "retries": RETRIES,
            "retry_delay": RETRY_DELAY,
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": LONGEST_RETRY_DELAY,
            "on_failure_callback": [report_maintenance_failure(spec), FailureNotifier(spec)],
        },
    ) as dag:
        job = MaintainOperator(
            task_id=MAINTAIN,
            spec=spec,
            pool=spec.maintenance.pool,
            execution_timeout=job_timeout(),
            doc_md="Runs Iceberg's procedures in Spark, one commit a step. Skipped when there is nothing to do.",
        )
        wait = OffloadAtRest(
            task_id=WAIT,
            spec=spec,
            execution_timeout=SURVEY_LIMIT,
            doc_md="Waits until no run of the offload is under way; skips this maintenance after an hour.",
        )
        wait >> survey(spec) >> job
    return dag


class OffloadAtRest(BaseSensorOperator):
    """Waits until no run of the table's offload is under way, and holds no slot meanwhile."""

    ui_color = "#fef9c3"

    def __init__(self, *, spec: TableSpec, **kwargs: Any) -> None:
        super().__init__(poke_interval=POKE_S, timeout=WAIT_S, mode="reschedule", soft_fail=True, **kwargs)
        self._offload = spec.dag_id

    def poke(self, context: Context) -> bool:
        """Whether none runs now."""
        running = context["ti"].get_dr_count(dag_id=self._offload, states=["running"])
        if running:
            self.log.info("%s runs", self._offload)
        return not running


def survey(spec: TableSpec) -> XComArg:
    """The task that decides what there is to do. False, and so `maintain` skipped, when there is nothing."""

    @task.short_circuit(
        task_id=SURVEY,
        execution_timeout=SURVEY_LIMIT,
        doc_md="Reads the metadata of the Iceberg table and decides what it needs.",
    )
    def look() -> bool:
        context = get_current_context()
        quiet_libraries()
        bind_log(table=spec.identity, run=str(context["run_id"]))
        with refusals():
            settings = settings_for(spec)
            # PyIceberg reads its configuration when it is imported: only now is it known where that stands
            from include.offload.maintenance.planning import plan_maintenance
            from include.offload.maintenance.reporting import now_us, report_rest
            from include.offload.steps import open_context

            servers = open_context(settings)
            plan = plan_maintenance(servers, spec, now_us())
            for step in plan.steps:
                log.info("to do: %s, %s", step.care, step.why)
            for skipped in plan.skipped:
                log.info("nothing to do: %s, %s", skipped.care, skipped.why)
            if not plan.steps:
                report_rest(servers, plan)
        context["ti"].xcom_push(key=PLAN_KEY, value=plan.to_json())
        return bool(plan.steps)

    return look()


class MaintainOperator(JobOperator):
    """Runs the plan of `survey`: `spark-submit spark_jobs/maintain.py --plan <json>`."""

    ui_color = "#dcfce7"

    def __init__(self, *, spec: TableSpec, **kwargs: Any) -> None:
        super().__init__(
            spec=spec,
            application=APPLICATION,
            arguments=["--plan", f"{{{{ ti.xcom_pull(task_ids='{SURVEY}', key='{PLAN_KEY}') }}}}"],
            name=f"maintain {spec.identity}",
            driver_memory=DRIVER_MEMORY,
            **kwargs,
        )

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Submit and wait; returns what the job reported."""
        spec, started = self._spec, time.monotonic()
        bind_log(table=spec.identity, run=str(context["run_id"]))
        with refusals():
            settings = settings_for(spec)
            self.jars = ",".join(settings.jars()) or None
            said = self.submit(context)
            from include.offload.maintenance.model import RESULT as DOCUMENT
            from include.offload.maintenance.reporting import report
            from include.offload.steps import open_context

            result = DOCUMENT.validate_python(said)
            report(open_context(settings), result)
        for step in result.steps:
            self.log.info("%s: %s in %.1f s %s", step.care, step.status, step.seconds, step.why or step.figures)
        self.log.info(
            "maintain %s: %d files before, %d after, %.1f s",
            spec.identity,
            result.before.files,
            result.after.files,
            time.monotonic() - started,
        )
        return said
