"""Runs the offload job through `spark-submit`, and brings its own words back when it fails.

Built on the provider's operator. What it adds: a missing Spark connection is an error (the provider
silently means YARN), secrets travel in a 0600 file whose path alone is passed on, the whole process group
dies when the task is stopped, and the job's last line decides between retrying and failing for good.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Connection, Context
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from include.offload.errors import JOB_FAILED, PLAN_UNKNOWN, SETTING_MISSING, OffloadError
from include.offload.jobwords import ERROR, PROGRESS, RESULT, Place, refusal
from include.offload.settings import home
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, from_us
from include.orchestration import event_log
from include.orchestration.context import bind_log, connection, resolve
from include.orchestration.failures import refusals
from include.orchestration.unloaded import without_openlineage

with without_openlineage():
    from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
    from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors.base import OperatorLineage

SECRETS_EXTRA = "offload-secrets-file"
"""Extra of the Spark connection: path of a secret that the cluster mounts itself; then no file is written."""
APPLICATION = Path(__file__).resolve().parents[2] / "spark_jobs" / "offload.py"
QUIET_S = 15.0
"""How often a job that does not move on says so, seconds."""
STALE_S = 86_400
"""Age in seconds from which a left-over secrets file of a killed worker is removed; no job runs that long."""


class JobHook(SparkSubmitHook):
    """The provider's hook, listening for the job's last word, and owner of a process group.

    result: what the job reported (`OFFLOAD_RESULT {…}`), None until then.
    error: the refusal that it reported (`OFFLOAD_ERROR {"id": …, "message": …}`), None without one.
    """

    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    _reported: tuple[object, float] = (None, 0.0)

    def submit(self, application: str = "", **kwargs: Any) -> str | None:
        """Run `spark-submit` in a process group of its own, so that JVM and Python die together."""
        # this process is the driver; the provider tells only a driver pod of Kubernetes, which there is none
        environment = {**os.environ, **(self._env_vars or {})}
        if self._is_kubernetes:
            # the provider's sign that the driver ran here is a line of log, and ours may all be the job's own words
            self._spark_exit_code = 0
        try:
            return super().submit(application, start_new_session=True, env=environment, **kwargs)
        finally:
            if self._submit_sp is not None and self._submit_sp.stdout is not None:
                self._submit_sp.stdout.close()

    def _process_spark_submit_log(self, itr: Iterator[Any]) -> None:
        super()._process_spark_submit_log(self._listen(itr))

    def _listen(self, lines: Iterator[Any]) -> Iterator[Any]:
        for line in lines:
            text = str(line).strip()
            if text.startswith(PROGRESS):
                self._report(json.loads(text.removeprefix(PROGRESS)))
            elif text.startswith(RESULT):
                self.result = json.loads(text.removeprefix(RESULT))
            elif text.startswith(ERROR):
                self.error = json.loads(text.removeprefix(ERROR))
            else:
                yield line

    def _report(self, seen: dict[str, Any]) -> None:
        """Log progress, but the same state again only now and then."""
        state, now = (seen["slices_done"], seen["rows"]), time.monotonic()
        if state != self._reported[0] or now - self._reported[1] >= QUIET_S:
            self._reported = (state, now)
            self.log.info(progress_line(seen))

    def on_kill(self) -> None:
        """Stop the job: every process of the local group, and whatever the cluster manager runs."""
        if self._submit_sp is not None and self._submit_sp.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._submit_sp.pid, signal.SIGKILL)
        super().on_kill()


def pending_line(windows: Sequence[int], width_us: int) -> str:
    """What a job left for the next run, in words. windows: their numbers, one at least."""
    oldest = from_us(Grid(width_us).span(min(windows)).lo)
    return (
        f"{len(windows)} windows changed while they were read and are not shipped, the oldest"
        f" {oldest:%Y-%m-%dT%H:%M:%SZ}: the next run reads them again"
    )


def progress_line(seen: dict[str, Any]) -> str:
    """The job's progress as one line: slices, rows, megabytes, rows a second, seconds to go."""
    eta = seen.get("eta_seconds")
    left = f", {eta} s to go" if eta else ""
    return (
        f"{seen['slices_done']} of {seen['slices']} slices, {seen['rows']:,} of {seen['rows_planned']:,} rows, "
        f"{seen['bytes'] / 1e6:,.1f} MB, {seen.get('rows_per_second') or 0:,} rows/s{left}"
    )


class JobOperator(SparkSubmitOperator):
    """Runs one of our jobs: its last word is the result, or the refusal."""

    def __init__(self, *, spec: TableSpec, application: Path, arguments: list[str], name: str, **kwargs: Any) -> None:
        super().__init__(
            application=str(application),
            application_args=arguments,
            conn_id=spec.connections.spark,
            name=name,
            # durable mode answers a cleared task with the old job's result instead of running it again
            durable=False,
            **kwargs,
        )
        self._spec = spec

    def submit(self, context: Context) -> dict[str, Any]:
        """Submit and wait; what the job reported. Raises its refusal, OFL-504 without one."""
        spec = self._spec
        spark = connection(self._conn_id, table=spec.identity)
        _check_client(spark, spec.identity)
        self._spark_binary = self._spark_binary or _spark_submit(spark.extra_dejson)
        mounted = spark.extra_dejson.get(SECRETS_EXTRA)
        with contextlib.nullcontext(str(mounted)) if mounted else secrets_file(resolve(spec)) as path:
            self.env_vars = {**(self.env_vars or {}), **_job_environment(path)}
            self.conf = {**(self.conf or {}), **event_log.conf()}
            hook = self._hook = self._get_hook()
            try:
                super().execute(context)
            except AirflowException as error:
                raise _refusal(hook, spec.identity, str(error)) from None
        if hook.error:
            raise _refusal(hook, spec.identity, "the job reported an error and ended well")
        if not hook.result:
            raise OffloadError(JOB_FAILED, f"it ended without a {RESULT.strip()} line", table=spec.identity)
        return hook.result

    def _get_hook(self) -> JobHook:
        try:
            hook = super()._get_hook()
        except NameError as error:
            # so the provider meets a k8s:// master where the package that it imports for it is not installed
            raise OffloadError(
                SETTING_MISSING,
                f"the connection {self._conn_id!r} names Kubernetes, which needs the package"
                " apache-airflow-providers-cncf-kubernetes",
                table=self._spec.identity,
            ) from error
        # the provider builds the hook with 30 arguments and offers no other way to choose the class
        hook.__class__ = JobHook
        assert isinstance(hook, JobHook)  # noqa: S101
        return hook

    def on_kill(self) -> None:
        """Stop the job when the task is cleared, marked, or over its time. Before submission: nothing to stop."""
        if self._hook is not None:
            super().on_kill()


class OffloadOperator(JobOperator):
    """Ships the frozen plan of this run: `spark-submit spark_jobs/offload.py --plan <id> --place <place>`.

    Skipped when the plan does not touch the lake. Raises AirflowFailException for refusals that do not heal
    by trying again, AirflowException (retried) for the others.
    """

    ui_color = "#dbeafe"

    def __init__(self, *, spec: TableSpec, plan_task_id: str, **kwargs: Any) -> None:
        pulled = f"(ti.xcom_pull(task_ids='{plan_task_id}', key='plan') or {{}})"
        super().__init__(
            spec=spec,
            application=APPLICATION,
            arguments=[
                *("--plan", f"{{{{ {pulled}.get('plan_id', '') }}}}"),
                *("--place", f"{{{{ {pulled}.get('place', '{Place.EXECUTORS}') }}}}"),
            ],
            name=f"offload {spec.identity}",
            **kwargs,
        )
        self._plan_task_id = plan_task_id
        self._shipped: dict[str, Any] | None = None

    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]
        """Submit and wait; returns what the job reported."""
        spec, run = self._spec, str(context["run_id"])
        bind_log(table=spec.identity, run=run)
        with refusals():
            plan = context["ti"].xcom_pull(task_ids=self._plan_task_id, key="plan")
            if not plan:
                raise OffloadError(PLAN_UNKNOWN, f"{self._plan_task_id} left no plan for this run", table=spec.identity)
            bind_log(table=spec.identity, run=run, plan=plan["plan_id"])
            if not plan["touches_lake"]:
                raise AirflowSkipException("the plan moves no rows: no Spark, no commit")
            self.log.info(
                "offload %s: %s rows in %s windows and %s slices, generation %s, plan %s",
                spec.identity,
                f"{plan['rows']:,}",
                plan["windows"],
                plan["slices"],
                plan["generation"],
                plan["plan_id"],
            )
            return self._run(context)

    def _run(self, context: Context) -> dict[str, Any]:
        spec, started = self._spec, time.monotonic()
        result = self.submit(context)
        self.log.info(
            "offload %s: %s, %s rows in %s files, %s windows left pending, snapshot %s, %.1f s",
            spec.identity,
            result["status"],
            f"{result['rows']:,}",
            result["files"],
            result["pending"],
            result["snapshot_id"],
            time.monotonic() - started,
        )
        # so many numbers are for the log, not for XCom
        if changed := result.pop("pending_windows", []):
            self.log.warning("offload %s: %s", spec.identity, pending_line(changed, spec.window_us))
        # 64-bit numbers lose their last digits in a browser
        self._shipped = {**result, "snapshot_id": str(result["snapshot_id"])}
        return self._shipped

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any] | None:
        """What moved from where to where. Only Airflow's OpenLineage provider asks, where a site switched it on."""
        # slow to import, and no task needs it otherwise
        from include.orchestration.lineage import lineage

        return lineage(self._spec, self._shipped)


def _check_client(spark: Connection, table: str) -> None:
    """Raises OFL-102 unless the driver runs here: elsewhere its last line, which decides, is in a log of the cluster's.

    Nor would it find the file with the secrets, and a plan that landed would count as failed.
    """
    mode = str(spark.extra_dejson.get("deploy-mode") or "client")
    if mode != "client":
        raise OffloadError(
            SETTING_MISSING,
            f"the connection {spark.conn_id!r} has deploy-mode {mode}; a task needs client (docs/scaling.md)",
            table=table,
        )


def _spark_submit(extra: dict[str, Any]) -> str | None:
    """`$SPARK_HOME/bin/spark-submit` when it exists and the connection names no binary; None: search the PATH."""
    if extra.get("spark-binary") or not (spark_home := os.environ.get("SPARK_HOME")):
        return None
    binary = Path(spark_home) / "bin" / "spark-submit"
    return str(binary) if binary.is_file() else None


def _job_environment(secrets: str) -> dict[str, str]:
    """What the job needs to find its settings; paths only, because YARN and Kubernetes show them in `ps`."""
    return {
        "OFFLOAD_SECRETS_FILE": secrets,
        "OFFLOAD_HOME": str(home()),
        "PYICEBERG_HOME": os.environ.get("PYICEBERG_HOME") or str(home() / "secrets"),
    }


@contextlib.contextmanager
def secrets_file(values: dict[str, str]) -> Iterator[str]:
    """A dotenv file of mode 0600 with `OFFLOAD_<NAME>`, removed on leaving. Yields its path.

    values: setting name (`clickhouse_uri`) to value. Percent-encoded URIs hold no quote and no `$`.
    """
    folder = home() / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(stat.S_IRWXU)
    _sweep(folder)
    descriptor, name = tempfile.mkstemp(prefix="secrets-", suffix=".env", dir=folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"OFFLOAD_{key.upper()}='{value}'\n" for key, value in values.items())
        yield name
    finally:
        path.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what a worker killed with SIGKILL could not."""
    for left in folder.glob("secrets-*.env"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > STALE_S:
                left.unlink()


def _refusal(hook: JobHook, table: str, failure: str) -> OffloadError:
    """The job's own refusal when it could still name one, else OFL-504 with the exit and the last lines."""
    if hook.error:
        return refusal(hook.error, table)
    lines: Sequence[str] = [line for line in hook._last_submit_log_lines if line][-5:]
    code = hook._submit_sp.returncode if hook._submit_sp is not None else None
    ended = f"spark-submit ended with {code}" if code is not None else failure.splitlines()[0]
    said = f", last lines: {' | '.join(lines)}" if lines else ""
    return OffloadError(JOB_FAILED, ended + said, table=table)
