"""Links on a task's page in Airflow: its Iceberg snapshot, Spark's event log, the runbook of its failure.

The plugin registers them for all tasks, and Airflow asks them inside its API server when somebody opens a task. For a
task of another DAG they answer nothing, and Airflow then shows no button.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from include.orchestration.event_log import log_of

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

DAGS = "offload__"
CHECK, SHIP = "check_extent", "offload"
REFUSAL_KEY = "offload_refusal"
"""The XCom that names the error id of a failed try."""
HISTORY = "OFFLOAD_SPARK_HISTORY_URL"
"""Where Spark's history server answers; without it the log itself is shown, where `OFFLOAD_SPARK_EVENTS` keeps it."""


class _Link(BaseOperatorLink):
    """A link of tasks in offload DAGs."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """The link's target, empty where there is none."""
        return self.target(ti_key) if ti_key.dag_id.startswith(DAGS) else ""

    @abstractmethod
    def target(self, key: TaskInstanceKey) -> str:
        """The same, for a task of such a DAG."""


class SnapshotLink(_Link):
    """From `offload` to the snapshot that it made, and the plan behind it."""

    name = "Iceberg snapshot"

    def target(self, key: TaskInstanceKey) -> str:
        plan = _xcom(key, CHECK, "plan") if key.task_id == SHIP else None
        result = _xcom(key, SHIP, "return_value") if plan else None
        if not plan or not result or result.get("snapshot_id") in {None, "None"}:
            return ""
        return _page(f"dags/{quote(key.dag_id)}/plans/{quote(str(plan['plan_id']))}")


class EventLogLink(_Link):
    """From `offload` to what Spark wrote about its job: in Spark's history server, else the log itself."""

    name = "Spark event log"

    def target(self, key: TaskInstanceKey) -> str:
        application = application_of(key) if key.task_id == SHIP else None
        if application is None:
            return ""
        history = os.environ.get(HISTORY, "").rstrip("/")
        if history:
            return f"{history}/history/{quote(application)}/"
        if log_of(application) is None:
            return ""
        return _page(f"dags/{quote(key.dag_id)}/runs/{quote(key.run_id, safe='')}/events")


class RunbookLink(_Link):
    """From a failed task to the section about its error id."""

    name = "Runbook"

    def target(self, key: TaskInstanceKey) -> str:
        refusal = _xcom(key, key.task_id, REFUSAL_KEY)
        return _page(f"errors/{quote(str(refusal['id']))}") if refusal else ""


class RunKey(Protocol):
    """What names the tasks of a run."""

    @property
    def dag_id(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def map_index(self) -> int: ...


def application_of(key: RunKey) -> str | None:
    """The Spark application that a run's `offload` waited for; None while it has not ended well."""
    result = _xcom(key, SHIP, "return_value")
    application = (result or {}).get("application_id")
    return None if application is None else str(application)


def _page(path: str) -> str:
    """The page inside Airflow's own frame."""
    from airflow.configuration import conf

    base = conf.get("api", "base_url", fallback="").rstrip("/")
    return f"{base}/plugin/offload/offload/{path}"


def _xcom(key: RunKey, task_id: str, name: str) -> dict[str, Any] | None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.execute(
            XComModel.get_many(
                key=name, run_id=key.run_id, dag_ids=key.dag_id, task_ids=task_id, map_indexes=key.map_index
            ).with_only_columns(XComModel.value)
        ).first()
    if found is None:
        return None
    value = json.loads(found.value) if isinstance(found.value, str) else found.value
    return value if isinstance(value, dict) else None
