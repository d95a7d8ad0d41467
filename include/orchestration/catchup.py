"""A table that is behind by more than one run may ship begins its next run at once.

`update_watermark` asks Airflow for that run when all of its own plan has landed, so each moves the border and none
repeats what the last one could not do. The id of the next run says whose successor it is: a run has at most one,
however often its tasks are cleared, so a chain has no branches. It waits until this run has ended
(`max_active_runs`), and as long as the DAG is paused. A chain that broke is taken up by the schedule.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRuntimeError

from include.offload.windows import from_us

if TYPE_CHECKING:
    from include.orchestration.params import Range

MAX_RUN_ID = 250
"""Characters of a run id in Airflow's database."""
_SUCCESSOR = re.compile(r"catchup__(?P<number>\d+)__(?P<first>.+)")

log = logging.getLogger(__name__)


def rest_of(cut_us: int | None, asked: Range) -> dict[str, Any] | None:
    """The params of the run that goes on where the bounds of the spec cut this plan; None: it was not cut.

    cut_us: µs UTC. Of a range that was asked for, the rest is asked for; else the watermark says where to go on.
    """
    if cut_us is None:
        return None
    if asked.from_us is None:
        return {}
    to = {} if asked.to_us is None else {"to": _text(asked.to_us)}
    return {"from": _text(cut_us), **to, "force": asked.force}


def _text(us: int) -> str:
    return f"{from_us(us):%Y-%m-%dT%H:%M:%S.%fZ}"


def successor(run_id: str) -> str:
    """The id of the run after this one: `catchup__2__<run>`, then `catchup__3__<run>`."""
    found = _SUCCESSOR.fullmatch(run_id)
    number, first = (int(found["number"]), found["first"]) if found else (1, run_id)
    return f"catchup__{number + 1}__{first}"[:MAX_RUN_ID]


def go_on(context: Context, dag_id: str, params: dict[str, Any]) -> None:
    """Have Airflow begin the next run of this DAG. That it can't be had is no failure: the schedule goes on.

    params: those of the next run, `rest_of` this one. Without a range any run that waits does the same work, so
    none is added to it; the rest of a range is nobody else's.
    """
    run_id = successor(str(context["run_id"]))
    if not params and context["ti"].get_dr_count(dag_id, states=["queued", "running"]) > 1:
        log.info("settled rows wait beyond the bounds of this run: the run that is queued already goes on")
        return
    try:
        begun = _trigger(dag_id, run_id, params)
    except AirflowRuntimeError as error:
        log.warning("settled rows wait for the next run on schedule: Airflow refused to begin %s: %s", run_id, error)
        return
    if begun:
        log.info("settled rows wait beyond the bounds of this run: %s begins at once", run_id)
    else:
        log.info("this run went on before, in %s: it does not again", run_id)


def _trigger(dag_id: str, run_id: str, params: dict[str, Any]) -> bool:
    """False when the run is there already. Raises AirflowRuntimeError.

    What TriggerDagRunOperator has the task runner do. Its public exception can't be used: it ends a task as skipped,
    and without its asset event, when the run is there.
    """
    # of a running task alone, as Airflow's own context has it
    from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    answer = SUPERVISOR_COMMS.send(TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=params))
    return not isinstance(answer, ErrorResponse)
