"""Run the steps of a plan, one after the other, between the offloads of the table.

Nothing here needs to be alone to be exact: compaction is a snapshot without a marker, which an offload rebases over,
and one that an offload overtook is refused by Iceberg. Waiting only saves work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.errors import ICEBERG_RUNTIME_MISSING, MAINTENANCE_FAILED, TARGET_MISSING, OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.lake.reach import reaching
from include.offload.ledger.care import alone, offload_runs
from include.offload.maintenance import procedures
from include.offload.maintenance.model import Care, LakeState, MaintenancePlan, MaintenanceResult, Step, StepResult
from include.offload.maintenance.survey import facts, measure

log = logging.getLogger(__name__)

PATIENCE_S = 600.0
"""How long a run waits in all for offloads of the table, seconds; then its steps are left to the next one."""
POLL_S = 5.0
OVERTAKEN = ("exceptions.ValidationException", "exceptions.CommitFailedException")
"""Iceberg's refusals of a rewrite whose files somebody replaced meanwhile; nothing was changed then."""
NO_RUNTIME = ("Cannot find catalog plugin class", "'JavaPackage' object is not callable")
"""What Spark, and its bridge to Python, say of Iceberg's classes when no jar has them."""


class Lake(Protocol):
    """Spark with Iceberg's runtime, as far as maintenance needs it."""

    def call(self, sql: str) -> dict[str, int]:
        """The one row that a procedure answers, its numbers only. Raises what Spark raises."""
        ...

    def remove_orphans(self, plan: MaintenancePlan, older_than_ms: int) -> int:
        """Delete the files below the table's location that no snapshot names, from before an instant; how many."""
        ...


def maintain(
    ctx: Context, plan: MaintenancePlan, lake: Lake, patience_s: float | None = PATIENCE_S
) -> MaintenanceResult:
    """Run a plan's steps. patience_s: in all, for running offloads; None: beside them.

    Raises OFL-601, OFL-602 when a step fails, OFL-603 when another run is at work.
    """
    quiet = _quiet(ctx, plan.table, patience_s)
    with alone(ctx.ledger, plan.table):
        if any(step.care is Care.EXPIRE for step in plan.steps):
            with reaching(plan.table):
                markers.remember_sources(ctx.catalog, _table(ctx, plan))
        steps = [result for step in plan.steps for result in run_step(plan, step, lake, quiet)]
        return MaintenanceResult(plan.table, tuple(steps), plan.before, state(ctx, plan))


def state(ctx: Context, plan: MaintenancePlan) -> LakeState:
    """The table as it is now."""
    table = _table(ctx, plan)
    with reaching(plan.table):
        return measure(table, facts(table, plan.cursor), plan.bounds.small)


def _table(ctx: Context, plan: MaintenancePlan) -> Table:
    table = find_table(ctx.catalog, plan.target, plan.table)
    if table is None:
        raise OffloadError(TARGET_MISSING, ".".join(plan.target), table=plan.table)
    return table


def run_step(plan: MaintenancePlan, step: Step, lake: Lake, quiet: Callable[[], bool]) -> Iterator[StepResult]:
    """One result a step, of a compaction one a span. quiet: waits for a running offload; False: it still runs."""
    for sql in statements(plan, step):
        started = time.monotonic()
        if not quiet():
            yield StepResult(step.care, "put off", time.monotonic() - started, why="an offload of the table runs")
            return
        started = time.monotonic()
        try:
            if sql is None:
                figures = {"removed_files": lake.remove_orphans(plan, _ms(step))}
            else:
                log.info("%s: %s", plan.table, sql)
                figures = lake.call(sql)
        except Exception as error:
            text = str(error)
            if step.care in (Care.COMPACT, Care.MANIFESTS) and any(word in text for word in OVERTAKEN):
                log.warning("%s: an offload came first: %s", plan.table, text[:300])
                yield StepResult(step.care, "overtaken", time.monotonic() - started, why=text.splitlines()[0][:300])
                continue
            if any(word in text for word in NO_RUNTIME):
                raise OffloadError(ICEBERG_RUNTIME_MISSING, text.splitlines()[0][:300], table=plan.table) from error
            raise OffloadError(MAINTENANCE_FAILED, f"{step.care}: {text}"[:1000], table=plan.table) from error
        yield StepResult(step.care, "done", time.monotonic() - started, figures)


def statements(plan: MaintenancePlan, step: Step) -> Iterator[str | None]:
    """What a step says to Spark; None: orphans are removed through Iceberg's API.

    Its SQL procedure refuses ages below a day, whatever the longest job of this installation is.
    """
    match step.care:
        case Care.COMPACT:
            yield from (procedures.compact(plan, step, span) for span in step.spans)
        case Care.MANIFESTS:
            yield procedures.manifests(plan)
        case Care.EXPIRE:
            yield procedures.expire(plan, step)
        case Care.ORPHANS:
            yield None
        case Care.STATISTICS:
            yield procedures.statistics(plan)


def _ms(step: Step) -> int:
    if step.older_than_us is None:
        raise ValueError(f"{step.care} without an instant")
    return step.older_than_us // 1000


def _quiet(ctx: Context, table: str, patience_s: float | None) -> Callable[[], bool]:
    left_s = patience_s

    def quiet() -> bool:
        nonlocal left_s
        while left_s is not None and offload_runs(ctx.ledger, table, ctx.settings.job_timeout_s):
            if left_s <= 0:
                return False
            time.sleep(POLL_S)
            left_s -= POLL_S
        return True

    return quiet
