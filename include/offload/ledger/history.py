"""What earlier plans knew of the columns: a window's hash means what the projection of its own time says (rule 10)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from include.offload.ledger.store import Head, Ledger


@dataclass(frozen=True, slots=True)
class PastProjection:
    """The column names of a committed plan, and the Iceberg schema that its files were written with.

    schema_json: when the plan's own commit changed the schema; else schema_id, None for the table's first schema.
    """

    columns: tuple[str, ...]
    schema_id: int | None
    schema_json: str | None


def past_projection(ledger: Ledger, head: Head, fingerprint: str) -> PastProjection | None:
    """The projection behind a fingerprint, None when no committed plan of the ledger has it."""
    with ledger.begin() as c:
        row = c.execute(
            text(
                "SELECT document -> 'projection' -> 'columns' AS columns, document -> 'target' ->> 'schema_id' AS id,"
                " document -> 'evolution' ->> 'schema_json' AS evolved FROM offload.plans"
                " WHERE table_id = :table_id AND status = 'committed'"
                " AND document -> 'projection' ->> 'fingerprint' = :fingerprint ORDER BY created_at DESC LIMIT 1"
            ),
            {"table_id": head.table_id, "fingerprint": fingerprint},
        ).one_or_none()
    if row is None:
        return None
    names = tuple(str(c["name"]) for c in row.columns)
    return PastProjection(names, None if row.id is None else int(row.id), row.evolved)


@dataclass(frozen=True, slots=True)
class PastPlan:
    """A plan as the ledger keeps it. `run_id`: Airflow's, or `cli__…`, `rebuild__…`; `watermark_us`: what it moves to.

    `status`: open, committed, empty or superseded; instants with their time zone, or µs UTC.
    """

    plan_id: UUID
    run_id: str
    generation: int
    status: str
    windows: int
    rows: int
    snapshot_id: int | None
    watermark_us: int | None
    created_at: datetime
    closed_at: datetime | None


def past_plans(ledger: Ledger, identity: str, limit: int) -> list[PastPlan]:
    """The newest plans of a table, newest first; none for a table that the ledger has never seen."""
    with ledger.begin(identity) as c:
        rows = c.execute(
            text(
                "SELECT plan_id, run_id, generation, status, windows, p.rows, snapshot_id,"
                " (document ->> 'watermark_after')::bigint AS watermark_us, p.created_at, closed_at"
                " FROM offload.plans p JOIN offload.tables USING (table_id) WHERE identity = :identity"
                " ORDER BY p.created_at DESC LIMIT :limit"
            ),
            {"identity": identity, "limit": limit},
        )
        return [PastPlan(**row) for row in rows.mappings()]


def newest_open(ledger: Ledger, identity: str) -> str | None:
    """The run id of the newest plan of a table that was neither recorded nor passed; None without one."""
    with ledger.begin(identity) as c:
        found = c.execute(
            text(
                "SELECT run_id FROM offload.plans p JOIN offload.tables USING (table_id) WHERE identity = :identity"
                " AND status = 'open' ORDER BY p.created_at DESC LIMIT 1"
            ),
            {"identity": identity},
        ).scalar_one_or_none()
    return None if found is None else str(found)
