"""Runs of one table take turns where Airflow would have them side by side.

`max_active_runs=1` does not bind `airflow backfill create`: its runs go ten at a time by default, and beside those on
schedule. Of two runs that plan on the same predecessor only one can land (rule 1), the other would fail with OFL-402.
So `check_extent` is one at a time for a DAG, and waits while the newest plan belongs to a run that still goes on.
This saves work and red runs, and no more: exactly once does not rest on it.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowRescheduleException

if TYPE_CHECKING:
    from include.offload.ledger import Ledger
    from include.offload.spec.model import TableSpec

PATIENCE = timedelta(minutes=1)
"""How long a task waits before it gives its slot back: the run it waits for may need that slot."""
PAUSE = timedelta(seconds=5)
"""How long a task that gave its slot back stays away."""
LOOK_EVERY_S = 1.0

log = logging.getLogger(__name__)


def wait_for_turn(context: Context, spec: TableSpec, ledger: Ledger) -> None:
    """Return when no other run of this DAG is between its plan and its end.

    Raises AirflowRescheduleException after `PATIENCE`, OFL-5xx when the ledger can't be asked.
    """
    # as in the tasks: parsing needs no ledger
    from include.offload.ledger.history import newest_open

    ti, own = context["ti"], str(context["run_id"])
    end, waited_for = time.monotonic() + PATIENCE.total_seconds(), ""
    while ti.get_dr_count(spec.dag_id, states=["running"]) > 1:
        ledger.check_schema()
        # of the newest plan alone: two runs that were cleared would wait for each other
        holder = newest_open(ledger, spec.identity)
        if holder in {None, own} or not ti.get_dr_count(spec.dag_id, run_ids=[holder], states=["running"]):
            return
        if holder != waited_for:
            log.info("waiting for %s, which has planned and goes on", holder)
            waited_for = holder
        if time.monotonic() > end:
            raise AirflowRescheduleException(datetime.now(UTC) + PAUSE)  # type: ignore[no-untyped-call]
        time.sleep(LOOK_EVERY_S)
