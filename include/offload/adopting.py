"""Bring the ledger up to the commit marker before anything is planned (rule 5)."""

from __future__ import annotations

from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.errors import (
    LEDGER_DISAGREES,
    PLAN_UNKNOWN,
    TABLE_RETIRED,
    TARGET_MISSING,
    TARGET_ROLLED_BACK,
    OffloadError,
)
from include.offload.lake import marker as markers
from include.offload.lake.marker import Marker
from include.offload.ledger.store import Head, Landed
from include.offload.spec.model import TableSpec


def adopt(ctx: Context, spec: TableSpec, table: Table | None, head: Head) -> tuple[Head, Marker | None]:
    """The same as `bring_up`, for a table that goes on. Raises OFL-315 for one that is retired."""
    head, marker = bring_up(ctx, spec, table, head)
    if marker is not None and marker.retired_us is not None:
        ctx.ledger.retire(head.table_id, marker.retired_us)
        raise retired(spec)
    return head, marker


def retired(spec: TableSpec) -> OffloadError:
    """The refusal for a table that was retired."""
    return OffloadError(TABLE_RETIRED, "it is retired: remove its spec file, and delete its DAG", table=spec.identity)


def bring_up(ctx: Context, spec: TableSpec, table: Table | None, head: Head) -> tuple[Head, Marker | None]:
    """Bring the ledger up to the marker: a plan that landed without the ledger knowing is promoted (rule 5).

    Raises OFL-405 when they disagree in a way that only a rebuild mends.
    """
    if table is None:
        if head.plan_id is not None:
            raise OffloadError(TARGET_MISSING, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
        return head, None
    marker = markers.read(table, spec.identity, ctx.pipeline)
    if marker is None:
        if head.plan_id is not None:
            raise OffloadError(
                TARGET_ROLLED_BACK, f"the table is empty, the ledger's head is plan {head.plan_id}", table=spec.identity
            )
        return head, None
    uuid_now = str(table.metadata.table_uuid)
    if head.plan_id == marker.plan:
        if (head.target_uuid, head.snapshot_id) != (uuid_now, marker.snapshot_id):
            raise OffloadError(
                LEDGER_DISAGREES,
                f"plan {marker.plan} is in table {uuid_now} snapshot {marker.snapshot_id}, the ledger holds"
                f" {head.target_uuid} snapshot {head.snapshot_id}",
                table=spec.identity,
            )
        return head, marker
    try:
        plan, _ = ctx.ledger.plan(marker.plan)
    except OffloadError as error:
        if error.kind is not PLAN_UNKNOWN:
            raise
        raise OffloadError(
            LEDGER_DISAGREES, f"it does not know the marker's plan {marker.plan}", table=spec.identity
        ) from error
    outcome = ctx.ledger.attempt(marker.attempt)
    if outcome is None:
        raise OffloadError(
            LEDGER_DISAGREES, f"it does not know the marker's attempt {marker.attempt}", table=spec.identity
        )
    promotion = ctx.ledger.promote(plan, outcome, Landed(uuid_now, marker.snapshot_id, marker.sequence_number))
    if promotion.first:
        ctx.metrics.landed(plan, outcome)
    moved = ctx.ledger.head(spec.identity)
    if moved is None or moved.plan_id != marker.plan:
        raise OffloadError(LEDGER_DISAGREES, f"it holds {head.plan_id}, the marker {marker.plan}", table=spec.identity)
    return moved, marker
