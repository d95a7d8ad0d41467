"""Put a table's ledger back from what Iceberg holds, in one transaction (rule 22)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, text

from include.offload.ledger.accounting import Entry
from include.offload.ledger.store import Head, Landed, Ledger
from include.offload.model import Plan
from include.offload.windows import from_us


def set_pipeline(ledger: Ledger, pipeline: uuid.UUID) -> bool:
    """Take on the pipeline id that the lake's markers carry, when this ledger never committed anything itself."""
    with ledger.begin() as c:
        changed = c.execute(
            text(
                "UPDATE offload.pipeline SET pipeline_id = :id"
                " WHERE NOT EXISTS (SELECT FROM offload.watermarks WHERE plan_id IS NOT NULL)"
            ),
            {"id": pipeline},
        )
    return changed.rowcount == 1


def restore(ledger: Ledger, head: Head, plan: Plan, entries: Sequence[Entry], fingerprint: str, landed: Landed) -> None:
    """Replace all windows of a table by `entries`, close its open plans, and set head and watermark to `plan`'s.

    plan: the marker-only plan that the rebuild committed; it must be frozen already.
    """
    rows = sum(e.shipped.rows for e in entries if e.shipped)
    with ledger.begin(plan.table) as c:
        _lock(c, head)
        c.execute(text("DELETE FROM offload.windows WHERE table_id = :id"), {"id": head.table_id})
        if entries:
            c.execute(
                text(
                    "INSERT INTO offload.windows (table_id, span, rows, hash, fingerprint, expiry_us, plan_id)"
                    " VALUES (:table_id, int8range(:lo, :hi), :rows, :hash, :fingerprint, :expiry, :plan_id)"
                ),
                [
                    {
                        "table_id": head.table_id,
                        "lo": e.span.lo,
                        "hi": e.span.hi,
                        "rows": e.shipped.rows if e.shipped else 0,
                        "hash": e.shipped.hash if e.shipped else 0,
                        "fingerprint": fingerprint if e.shipped else None,
                        "expiry": e.shipped.expiry_us if e.shipped else None,
                        "plan_id": plan.plan_id,
                    }
                    for e in entries
                ],
            )
        c.execute(
            text(
                "UPDATE offload.plans SET status = CASE WHEN plan_id = :plan THEN 'committed' ELSE 'superseded' END,"
                " snapshot_id = CASE WHEN plan_id = :plan THEN CAST(:snapshot AS bigint) ELSE snapshot_id END,"
                " closed_at = now() WHERE table_id = :id AND status = 'open'"
            ),
            {"plan": plan.plan_id, "snapshot": landed.snapshot_id, "id": head.table_id},
        )
        c.execute(
            text("UPDATE offload.tables SET origin_us = :origin WHERE table_id = :id"),
            {"origin": plan.origin_us, "id": head.table_id},
        )
        c.execute(
            text(
                "UPDATE offload.watermarks SET watermark = CAST(:watermark AS timestamptz), generation = :generation,"
                " plan_id = :plan, target_uuid = :target, snapshot_id = :snapshot, sequence_number = :number,"
                " row_count = :rows, failure_count = 0, last_error = NULL, updated_at = now() WHERE table_id = :id"
            ),
            {
                "watermark": None if plan.watermark_after is None else from_us(plan.watermark_after),
                "generation": plan.generation,
                "plan": plan.plan_id,
                "target": landed.target_uuid,
                "snapshot": landed.snapshot_id,
                "number": landed.sequence_number,
                "rows": rows,
                "id": head.table_id,
            },
        )


def _lock(c: Connection, head: Head) -> None:
    """In the order in which others lock them, so that nobody waits for the other."""
    c.execute(text("SELECT FROM offload.watermarks WHERE table_id = :id FOR UPDATE"), {"id": head.table_id})
    c.execute(text("SELECT FROM offload.tables WHERE table_id = :id FOR NO KEY UPDATE"), {"id": head.table_id})


def forget(ledger: Ledger, head: Head, generation: int) -> None:
    """Start a table anew: no windows, no watermark, no origin, open plans closed; the history of plans stays.

    generation: where the chain goes on, above everything that a forgotten job may still carry.
    """
    with ledger.begin() as c:
        _lock(c, head)
        for table in ("windows", "looks"):
            c.execute(text(f"DELETE FROM offload.{table} WHERE table_id = :id"), {"id": head.table_id})
        c.execute(text("DELETE FROM offload.findings WHERE table_id = :id AND kind <> 'lost'"), {"id": head.table_id})
        c.execute(
            text(
                "UPDATE offload.plans SET status = 'superseded', closed_at = now()"
                " WHERE table_id = :id AND status = 'open'"
            ),
            {"id": head.table_id},
        )
        c.execute(text("UPDATE offload.tables SET origin_us = NULL WHERE table_id = :id"), {"id": head.table_id})
        c.execute(
            text(
                "UPDATE offload.watermarks SET watermark = NULL, generation = :generation, plan_id = NULL,"
                " target_uuid = NULL, snapshot_id = NULL, sequence_number = NULL, max_sequence = NULL, row_count = 0,"
                " status = 'initialized', failure_count = 0, last_error = NULL, updated_at = now()"
                " WHERE table_id = :id"
            ),
            {"generation": generation, "id": head.table_id},
        )
