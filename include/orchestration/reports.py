"""What a failed try leaves behind outside its log: two counters, and a line in the ledger's watermark row.

Runs as Airflow's failure and retry callback, so it also sees time-outs and errors that no `OffloadError` names.
A report that can not be delivered is logged and never hides the failure that it is about.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from airflow.sdk import Context

from include.offload.metrics import Metrics
from include.offload.settings import load
from include.offload.spec.model import TableSpec
from include.orchestration.context import connection, ledger_uri
from include.orchestration.failures import refusal_of
from include.orchestration.links import REFUSAL_KEY

log = logging.getLogger(__name__)


def report_failure(spec: TableSpec, *, final: bool) -> Callable[[Context], None]:
    """A callback that reports a failed try of any task of the spec's DAG. `final`: no retry follows."""

    def report(context: Context) -> None:
        error = context.get("exception")
        refusal = refusal_of(error)
        message = str(refusal or error or "the task was stopped from outside")
        Metrics(load()).failure(
            spec.identity, context["ti"].task_id, refusal.id if refusal is not None else None, final=final
        )
        if refusal is not None:
            _name_refusal(context, refusal.id)
        try:
            from include.offload.ledger.store import Ledger

            uri = ledger_uri(connection(spec.connections.ledger, table=spec.identity))
            Ledger(uri).failed(spec.identity, message, final=final)
        except Exception:  # noqa: BLE001 - the ledger being down may be the very failure that is reported
            log.warning("the failure could not be written to the ledger", exc_info=True)

    return report


def report_maintenance_failure(spec: TableSpec) -> Callable[[Context], None]:
    """A callback that counts a maintenance that failed for good. The ledger hears nothing: the offload goes on."""

    def report(context: Context) -> None:
        refusal = refusal_of(context.get("exception"))
        Metrics(load()).maintained(spec.identity, success=False)
        if refusal is not None:
            _name_refusal(context, refusal.id)

    return report


def name_refusal(context: Context) -> None:
    """A callback for a failure that nothing but the link to its runbook has to hear of."""
    refusal = refusal_of(context.get("exception"))
    if refusal is not None:
        _name_refusal(context, refusal.id)


def _name_refusal(context: Context, error_id: str) -> None:
    """Leave the id where the task's link to its runbook finds it."""
    try:
        context["ti"].xcom_push(key=REFUSAL_KEY, value={"id": error_id})
    except Exception:  # noqa: BLE001 - a link less, nothing more
        log.warning("the link to the runbook could not be made", exc_info=True)
