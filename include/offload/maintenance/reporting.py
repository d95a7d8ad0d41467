"""What a maintenance run tells the metrics."""

from __future__ import annotations

import time

from include.offload.context import Context
from include.offload.maintenance.model import LakeState, MaintenancePlan, MaintenanceResult


def now_us() -> int:
    """This machine's clock, µs UTC: ages of snapshots and files are hours and days."""
    return time.time_ns() // 1000


def report(ctx: Context, result: MaintenanceResult) -> None:
    """Send what the run found and left. One whose every step was put off is no success, and no failure."""
    _send(ctx, result.table, result.before, result.after)
    if any(step.status != "put off" for step in result.steps):
        ctx.metrics.maintained(result.table, success=True)


def report_rest(ctx: Context, plan: MaintenancePlan) -> None:
    """The same of a table for which there was nothing to do."""
    _send(ctx, plan.table, plan.before, plan.before)
    ctx.metrics.maintained(plan.table, success=True)


def _send(ctx: Context, table: str, before: LakeState, after: LakeState) -> None:
    for when, state in (("before", before), ("after", after)):
        ctx.metrics.lake(table, when, figures(state))


def figures(state: LakeState) -> dict[str, int]:
    """A state by the names of its metrics."""
    return {
        "files": state.files,
        "small_files": state.small_files,
        "average_file_bytes": state.average_bytes,
        "delete_files": state.delete_files,
        "snapshots": state.snapshots,
        "metadata_bytes": state.metadata_bytes,
    }
