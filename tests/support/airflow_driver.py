"""A test's hands on a real Airflow: trigger, clear, wait, and read what it recorded. Public REST API v2 only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from include.offload.airflow_rest import AirflowRest, DagRun

TASKS = ("check_extent", "offload", "update_watermark")
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """One asset event. `extra`: what the DAG said; `run_id`: which run said it."""

    asset: str
    run_id: str
    extra: dict[str, Any]


def poll(look: Callable[[], T | None], limit_s: float, what: str, every_s: float = 0.5) -> T:
    """The first truthy answer of `look`. Raises TimeoutError that says what was waited for."""
    end = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {limit_s:.0f} s: {what}")
        time.sleep(every_s)
    return found


class Driver(AirflowRest):
    """An Airflow session for tests."""

    def ask(self, dag_id: str, **conf: Any) -> DagRun:
        """Start a run with these params."""
        return self.trigger(dag_id, conf)

    def discover(self, dag_id: str, limit_s: float = 60) -> None:
        """Have the DAG files read now instead of at the next round, until this DAG is known; then unpause it."""
        known = next(iter(self.dags()), None)
        if known is not None and dag_id not in self.dags():
            token = self._call("GET", f"/dags/{known}")["file_token"]
            self._call("PUT", f"/parseDagFile/{token}")
        self.wait_for_dags({dag_id}, limit_s)
        self.pause(dag_id, False)

    def states(self, run: DagRun) -> dict[str, str]:
        """The state of each task."""
        return {task: state for task, (state, _) in self.tasks(run).items()}

    def finished(self, run: DagRun, limit_s: float = 420) -> dict[str, str]:
        """Wait for the run's end; the state of each task. Raises TimeoutError with the states by then."""

        def look() -> dict[str, str] | None:
            return self.states(run) if self.run(run).state in {"success", "failed"} else None

        try:
            return poll(look, limit_s, f"{run.dag_id} {run.run_id} did not end")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.tasks(run)}") from None

    def green(self, run: DagRun, limit_s: float = 420) -> dict[str, str]:
        """Wait for the run's end and insist on success; on failure, shows the failed tasks' logs."""
        states = self.finished(run, limit_s)
        if self.run(run).state != "success":
            logs = "\n".join(self.log(run, t) for t, s in states.items() if s == "failed")
            raise AssertionError(f"{run.dag_id} {run.run_id}: {states}\n{logs}")
        return states

    def log(self, run: DagRun, task: str, try_number: int | None = None) -> str:
        """The log of a task's last (or the named) try."""
        number = try_number or self.tasks(run)[task][1]
        return f"--- {task}, try {number}\n{self.task_log(run, task, number)}"

    def clear_only(self, run: DagRun, tasks: list[str], *, downstream: bool = False) -> None:
        """Clear just these tasks, whatever their state, and wait until Airflow took them up again."""
        before = {t: self.tasks(run)[t][1] for t in tasks}
        self._call(
            "POST",
            f"/dags/{run.dag_id}/clearTaskInstances",
            json={
                "dag_run_id": run.run_id,
                "dry_run": False,
                "only_failed": False,
                "task_ids": tasks,
                "include_downstream": downstream,
            },
        )
        poll(
            lambda: all(self.tasks(run)[t][1] > n or self.states(run)[t] == "skipped" for t, n in before.items()),
            60,
            f"Airflow did not start the cleared {tasks} of {run.run_id} again",
        )

    def clear_run(self, run: DagRun) -> None:
        """Clear a whole run, as the button of the UI does."""
        self._call("POST", f"/dags/{run.dag_id}/dagRuns/{run.run_id}/clear", json={"dry_run": False})

    def mark(self, run: DagRun, task: str, state: str) -> None:
        """Mark a task as success or failed, as the buttons of the UI do; a running one is stopped."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task}"
        self._call("PATCH", path, params={"update_mask": "new_state"}, json={"new_state": state})

    def backfill(self, dag_id: str, first: datetime, last: datetime, **more: Any) -> int:
        """`airflow backfill create` for the intervals that begin from `first` to `last`; its id."""
        body = {"dag_id": dag_id, "from_date": first.isoformat(), "to_date": last.isoformat(), **more}
        return int(self._call("POST", "/backfills", json=body)["id"])

    def backfilled(self, dag_id: str, number: int, limit_s: float = 420) -> list[DagRun]:
        """Wait until a backfill is over; the runs of the DAG that it made or took up, oldest interval first."""
        path = f"/backfills/{number}"
        poll(lambda: self._call("GET", path)["completed_at"], limit_s, f"backfill {number} of {dag_id} goes on")
        runs = self.runs(dag_id)
        told = {r.run_id: self.details(r) for r in runs}
        mine = [r for r in runs if told[r.run_id]["run_type"] == "backfill"]
        return sorted(mine, key=lambda r: str(told[r.run_id]["logical_date"]))

    def connect(self, conn_id: str, **fields: Any) -> None:
        """Add an Airflow connection."""
        self._call("POST", "/connections", json={"connection_id": conn_id, **fields})

    def disconnect(self, conn_id: str) -> None:
        """Remove an Airflow connection."""
        self._call("DELETE", f"/connections/{conn_id}")

    def xcom(self, run: DagRun, task: str, key: str) -> Any:
        """One XCom value."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task}/xcomEntries/{key}"
        return self._call("GET", path, params={"deserialize": "true"})["value"]

    def plan(self, run: DagRun) -> dict[str, Any]:
        """What `check_extent` handed on."""
        found = self.xcom(run, "check_extent", "plan")
        assert isinstance(found, dict)
        return found

    def plan_of(self, run: DagRun) -> str | None:
        """The id of the plan that a run has now; None while it has none, as after clearing `check_extent`."""
        if self.states(run)["check_extent"] != "success":
            return None
        return str(self.plan(run)["plan_id"])

    def details(self, run: DagRun) -> dict[str, Any]:
        """All that Airflow says of a run."""
        found = self._call("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}")
        assert isinstance(found, dict)
        return found

    def interval(self, run: DagRun) -> timedelta:
        """The width of a run's data interval."""
        told = self.details(run)
        start, end = (datetime.fromisoformat(told[f"data_interval_{side}"]) for side in ("start", "end"))
        return end - start

    def events(self, dag_id: str) -> list[Event]:
        """All asset events of a DAG, oldest first."""
        found = self._call(
            "GET", "/assets/events", params={"source_dag_id": dag_id, "limit": 1000, "order_by": "timestamp"}
        )["asset_events"]
        return [Event(str(e["name"]), str(e["source_run_id"]), dict(e["extra"] or {})) for e in found]
