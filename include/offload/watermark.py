"""update_watermark: what the marker in Iceberg says goes into the ledger, once (rules 7, 17, 21)."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from include.offload import ttl_guard
from include.offload.context import Context
from include.offload.crashpoint import reached
from include.offload.errors import LEDGER_DISAGREES, PLAN_SUPERSEDED, OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.commit import load
from include.offload.ledger import looks
from include.offload.ledger.store import Head, Landed, Promotion
from include.offload.limits import expires_us
from include.offload.model import Action, Outcome, Plan, PlannedWindow, earliest
from include.offload.spec.model import TableSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatermarkResult:
    """Where a table stands after a run. `emitted`: this call recorded the plan, so its Asset event is due."""

    plan_id: uuid.UUID
    watermark_us: int | None
    generation: int
    snapshot_id: int | None
    rows: int
    windows: int
    replaced: int
    pending: int
    emitted: bool


def update_watermark(ctx: Context, spec: TableSpec, plan_id: uuid.UUID) -> WatermarkResult:
    """Record a plan as done when Iceberg's marker says so. Safe to repeat.

    Raises OFL-402 when the plan is not what the lake holds, OFL-405 when the ledger does not know what was shipped.
    """
    plan, status = ctx.ledger.plan(plan_id)
    replaced = sum(w.action is Action.REPLACE for w in plan.windows)
    snapshot: int | None = None
    if not plan.touches_lake:
        outcome = Outcome(plan_id, "nothing", None, 0, 0, 0, (), (), plan.watermark_after, 0.0)
        promotion = ctx.ledger.promote(plan, outcome, None)
    else:
        table = load(ctx.catalog, plan)
        marker = markers.read(table, plan.table, ctx.pipeline)
        if marker is None or (marker.plan != plan_id and status != "committed"):
            raise OffloadError(
                PLAN_SUPERSEDED,
                f"Iceberg holds plan {marker.plan if marker else None}, not {plan_id}",
                table=plan.table,
            )
        known = ctx.ledger.attempt(marker.attempt) if marker.plan == plan_id else None
        if known is None and status != "committed":
            raise OffloadError(LEDGER_DISAGREES, f"it does not know attempt {marker.attempt}", table=plan.table)
        outcome = known or Outcome(plan_id, "", None, 0, 0, 0, (), (), plan.watermark_after, 0.0)
        snapshot = marker.snapshot_id
        landed = Landed(str(table.metadata.table_uuid), marker.snapshot_id, marker.sequence_number)
        promotion = ctx.ledger.promote(plan, outcome, landed)
    reached("ledger-written")
    left = [w for w in plan.windows if w.window in set(outcome.pending)]
    head = ctx.ledger.head(plan.table)
    look = None if head is None else looks.load(ctx.ledger, head.table_id)
    # when the first row that this run saw and left in ClickHouse alone expires; None: none does
    seen_us = earliest(*(w.expiry_us for w in left), None if look is None else look.next_expiry_us)
    first_us = expires_us(seen_us, promotion.watermark_us, None if look is None else look.ttl_us)
    _report(ctx, plan, outcome, promotion, left, first_us)
    _release(ctx, spec, head, left, seen_us)
    return WatermarkResult(
        plan_id=plan_id,
        watermark_us=promotion.watermark_us,
        generation=promotion.generation,
        snapshot_id=snapshot,
        rows=outcome.rows,
        windows=len(outcome.windows),
        replaced=replaced,
        pending=len(outcome.pending),
        emitted=promotion.first,
    )


def _release(
    ctx: Context, spec: TableSpec, head: Head | None, left: Sequence[PlannedWindow], first_expiry_us: int | None
) -> None:
    """Let ClickHouse delete again what it may, when the guard stopped it and the rows are shipped, by its own clock."""
    if head is None or spec.identity not in looks.guarded(ctx.ledger, spec.identity):
        return
    if left:
        return
    if first_expiry_us is not None:
        try:
            # only for a guarded table, and only while it has unshipped rows that expire
            with ctx.connect(spec, f"offload guard {spec.identity}") as client:
                now_us = client.now_us()
        except OffloadError as error:
            log.warning("%s: the next run frees TTL merges, when ClickHouse answers: %s", spec.identity, error)
            return
        if ttl_guard.must_hold(spec, first_expiry_us, now_us):
            return
    ttl_guard.release(ctx, spec, head.table_id)


def _report(
    ctx: Context,
    plan: Plan,
    outcome: Outcome,
    promotion: Promotion,
    left: Sequence[PlannedWindow],
    first_expiry_us: int | None,
) -> None:
    """The metrics of a run that ended well; what the plan moved counts once, however often this is repeated."""
    if promotion.first:
        ctx.metrics.landed(plan, outcome)
    ctx.metrics.watermark(
        plan.table,
        watermark_us=promotion.watermark_us,
        pending_windows=len(left),
        pending_rows=sum(w.rows for w in left),
        first_expiry_us=first_expiry_us,
        # a repeated task says nothing about how long a cycle takes
        cycle_seconds=max(0.0, time.time() - plan.created_us / 1e6) if promotion.first else None,
    )
