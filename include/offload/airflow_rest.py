"""What the command line and the demo ask of a running Airflow, by its public REST API: runs, logs, pause, clear."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx

TIMEOUT_S = 30
GET_TRIES = 3
ENDED = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True)
class DagRun:
    """One run of a DAG, as the API tells it. `state`: queued, running, success or failed.

    `started`: ISO 8601, None while it is queued; `seconds`: how long it took, None until it has ended.
    """

    dag_id: str
    run_id: str
    state: str
    started: str | None = None
    seconds: float | None = None

    @property
    def began(self) -> datetime | None:
        """The instant of its start, UTC; None while it is queued."""
        return datetime.fromisoformat(self.started) if self.started is not None else None

    @property
    def ended(self) -> datetime | None:
        """The instant of its end, UTC; None until then."""
        if self.began is None or self.seconds is None:
            return None
        return self.began + timedelta(seconds=self.seconds)


class AirflowRestError(Exception):
    """Airflow answered with an error, or not at all; the message names the call."""


class AirflowRest:
    """A session with one Airflow API server. Not for two threads at once."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": user, "password": password}
        self._client = httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False)
        self._token = ""

    def close(self) -> None:
        self._client.close()

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        for attempt in ("with the token at hand", "with a new token"):
            if not self._token:
                answer = self._send("POST", "/auth/token", json=self._login)
                if answer.status_code >= 400:
                    raise AirflowRestError(f"the login at {self.url} was refused: {answer.status_code}")
                self._token = answer.json()["access_token"]
            answer = self._send(method, f"/api/v2{path}", headers={"Authorization": f"Bearer {self._token}"}, **kwargs)
            if answer.status_code == 401 and attempt == "with the token at hand":
                self._token = ""
                continue
            break
        if answer.status_code >= 400:
            raise AirflowRestError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        tries = GET_TRIES if method == "GET" else 1
        for left in reversed(range(tries)):
            try:
                return self._client.request(method, path, **kwargs)
            except httpx.HTTPError as error:
                # a busy machine: a question may be asked again, an order may not
                if isinstance(error, httpx.TimeoutException) and left:
                    continue
                raise AirflowRestError(f"{method} {self.url}{path}: {error or type(error).__name__}") from error
        raise AssertionError("unreachable: the last try returns or raises")

    def dags(self) -> dict[str, bool]:
        """The ids of all DAGs, and whether each is paused."""
        found = self._call("GET", "/dags", params={"limit": 1000, "exclude_stale": "true"})["dags"]
        return {str(d["dag_id"]): bool(d["is_paused"]) for d in found}

    def import_errors(self) -> list[str]:
        """What the DAG processor could not load."""
        return [
            str(e["stack_trace"]) for e in self._call("GET", "/importErrors", params={"limit": 100})["import_errors"]
        ]

    def pause(self, dag_id: str, paused: bool) -> None:
        """Pauses or unpauses a DAG."""
        self._call("PATCH", f"/dags/{dag_id}", params={"update_mask": "is_paused"}, json={"is_paused": paused})

    def pool(self, name: str) -> dict[str, int]:
        """The slots of a pool: how many there are, and how many are open, running, queued and scheduled."""
        found = self._call("GET", f"/pools/{name}")
        kinds = {"slots": "slots"} | {k: f"{k}_slots" for k in ("open", "running", "queued", "scheduled")}
        return {kind: int(found[key]) for kind, key in kinds.items()}

    def resize(self, name: str, slots: int) -> None:
        """Gives a pool another number of slots."""
        # the body must be whole, though the mask lets only the slots through
        body = {"pool": name, "slots": slots, "include_deferred": False}
        self._call("PATCH", f"/pools/{name}", params={"update_mask": "slots"}, json=body)

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> DagRun:
        """Starts a run now, without a logical date."""
        made = self._call("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf or {}})
        return _run(made)

    def run(self, run: DagRun) -> DagRun:
        """The same run as it is now."""
        return _run(self._call("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}"))

    def ended(self, run: DagRun, limit_s: float) -> DagRun:
        """Waits for a run's end, at most `limit_s` seconds; the run as it is then, ended or not."""
        end = time.monotonic() + limit_s
        while (now := self.run(run)).state not in ENDED and time.monotonic() < end:
            time.sleep(0.5)
        return now

    def states(self, limit: int = 100) -> dict[str, str]:
        """What each DAG does: `running` or `queued` when one of its runs is, else the end of its newest run.

        Looks at the last `limit` runs of all DAGs.
        """
        listed = self._call("GET", "/dags/~/dagRuns", params={"order_by": "-run_after", "limit": limit})["dag_runs"]
        found: dict[str, list[str]] = {}
        for run in map(_run, listed):
            found.setdefault(run.dag_id, []).append(run.state)
        return {d: next((s for s in ("running", "queued") if s in states), states[0]) for d, states in found.items()}

    def runs(self, dag_id: str, limit: int = 100) -> list[DagRun]:
        """The runs of a DAG, newest first."""
        params = {"order_by": "-run_after", "limit": limit}
        return [_run(item) for item in self._call("GET", f"/dags/{dag_id}/dagRuns", params=params)["dag_runs"]]

    def tasks(self, run: DagRun) -> dict[str, tuple[str, int]]:
        """The state and the number of the try of each task of a run."""
        listed = self._call("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances")["task_instances"]
        return {t["task_id"]: (str(t["state"] or "none"), int(t["try_number"])) for t in listed}

    def busy(self) -> set[str]:
        """The DAGs of which a task runs or is about to; a run of a paused DAG may be `running` without one."""
        params = {"state": ["running", "queued"], "limit": 1000}
        listed = self._call("GET", "/dags/~/dagRuns/~/taskInstances", params=params)["task_instances"]
        return {str(t["dag_id"]) for t in listed}

    def idle(self, dag_id: str, limit_s: float) -> bool:
        """Waits until no task of a DAG runs or is about to, at most `limit_s` seconds; whether it came to that."""
        end = time.monotonic() + limit_s
        while dag_id in self.busy():
            if time.monotonic() > end:
                return False
            time.sleep(0.5)
        return True

    def activity(self) -> frozenset[tuple[str, str, str, str, int]]:
        """DAG, run, task, state and try of the newest tasks: it changes when anything goes on."""
        params = {"order_by": "-start_date", "limit": 500}
        listed = self._call("GET", "/dags/~/dagRuns/~/taskInstances", params=params)["task_instances"]
        return frozenset(
            (str(t["dag_id"]), str(t["dag_run_id"]), str(t["task_id"]), str(t["state"]), int(t["try_number"]))
            for t in listed
        )

    def clear(self, run: DagRun, task_ids: list[str] | None = None) -> None:
        """Clears tasks of a run and what follows them, all when none is named: Airflow runs them again."""
        body: dict[str, Any] = {"dag_run_id": run.run_id, "dry_run": False, "only_failed": False}
        if task_ids:
            body |= {"task_ids": task_ids, "include_downstream": True}
        self._call("POST", f"/dags/{run.dag_id}/clearTaskInstances", json=body)

    def task_log(self, run: DagRun, task_id: str, try_number: int) -> str:
        """The log of one try as plain text."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self._call("GET", path, params={"full_content": "true"})["content"]
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)

    def connection(self, conn_id: str) -> dict[str, Any] | None:
        """A connection of Airflow's own database, without its password; None when it is not there."""
        try:
            found: dict[str, Any] = self._call("GET", f"/connections/{conn_id}")
        except AirflowRestError as error:
            if ": 404 " in str(error):
                return None
            raise
        return found

    def move_connection(self, conn_id: str, conn_type: str, host: str, port: int) -> None:
        """Changes where a connection leads; login, password and the rest of it stay."""
        body = {"connection_id": conn_id, "conn_type": conn_type, "host": host, "port": port}
        self._call("PATCH", f"/connections/{conn_id}", params={"update_mask": ["host", "port"]}, json=body)

    def wait_for_dags(self, wanted: set[str], limit_s: float) -> None:
        """Waits until the DAG processor has found all of `wanted`. Raises TimeoutError that names the missing ones."""
        end = time.monotonic() + limit_s
        while missing := wanted - self.dags().keys():
            if time.monotonic() > end:
                errors = "; ".join(self.import_errors()) or "no import errors"
                raise TimeoutError(f"after {limit_s:.0f} s Airflow has no DAG {sorted(missing)}: {errors}")
            time.sleep(0.5)


def _run(item: dict[str, Any]) -> DagRun:
    return DagRun(
        str(item["dag_id"]), str(item["dag_run_id"]), str(item["state"]), item.get("start_date"), item.get("duration")
    )
