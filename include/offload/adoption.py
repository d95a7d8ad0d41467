"""`adopt`: an Iceberg table that another program filled goes on as ours, no row twice and none missing (rules 3, 15).

Its history has no marker and the ledger no windows. A person says up to when it is complete, or ClickHouse does, where
it still holds the same rows. From then on it is a table like any other: reconcile compares its windows, and replaces
those that differ as far as rule 18 and 19 allow; what lies at or after the border is shipped by the next run.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace

from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.crashpoint import reached
from include.offload.errors import LEDGER_DISAGREES, PLAN_UNKNOWN, TARGET_MISSING, OffloadError
from include.offload.foreign_history import Found, Seen, look
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table, target_of
from include.offload.lake.commit import plant
from include.offload.lake.evolution import in_lake_order
from include.offload.lake.marker import Marker
from include.offload.ledger import looks
from include.offload.ledger.restore import restore
from include.offload.ledger.store import Head, Landed
from include.offload.model import Plan
from include.offload.recovery import account
from include.offload.source.projection import partition_columns
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, Span

RUN = "adopt__"
"""How the run id of an adoption begins: its plan says that the ledger still lacks the windows."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What an Iceberg table holds and what adopting it does. Instants µs UTC.

    border_us: where the next run begins to append; None for a table without rows. snapshot_id: of the marker, None
    while nothing was written. already: the table is this pipeline's, and nothing was or is to be done.
    """

    table: str
    border_us: int | None
    windows: int
    rows: int
    found: tuple[Found, ...] = ()
    notes: tuple[str, ...] = ()
    snapshot_id: int | None = None
    generation: int | None = None
    already: bool = False


def adopt(ctx: Context, spec: TableSpec, until_us: int | None = None, *, apply: bool = False) -> Adoption:
    """Take over an Iceberg table that holds history without a marker; without `apply` only look.

    until_us: the history is complete before this instant, µs UTC; None: before the end of the last window that it
    holds, which ClickHouse must confirm. Safe to repeat: what a crash left between the snapshot and the ledger is
    finished. Raises OFL-302 when its columns or partition fields do not fit the spec, OFL-303 when another pipeline
    owns it, OFL-304 or OFL-316 when its marker is unreadable, OFL-309 when there is none, OFL-314 when a row would be
    written twice or nobody says that the history is complete, OFL-404 when the fate of the commit can't be told,
    OFL-405 when the ledger holds another history of it.
    """
    ctx.ledger.check_schema()
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    if table is None:
        raise OffloadError(TARGET_MISSING, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
    head = ctx.ledger.head(spec.identity)
    marker = _marker(ctx, spec, table)
    begun = None if marker is None else _begun(ctx, marker, head)
    if marker is not None and begun is None:
        if head is None or head.plan_id is None:
            raise OffloadError(LEDGER_DISAGREES, f"it does not know plan {marker.plan}", table=spec.identity)
        return Adoption(
            spec.identity, marker.watermark_us, 0, 0, snapshot_id=marker.snapshot_id, generation=marker.generation,
            already=True,
        )  # fmt: skip
    if begun is None and head is not None and head.plan_id is not None:
        raise OffloadError(
            LEDGER_DISAGREES, f"the table has no marker, the ledger's head is plan {head.plan_id}", table=spec.identity
        )
    seen = look(ctx, spec, table, until_us if begun is None else begun.watermark_after)
    looked = Adoption(
        table=spec.identity,
        border_us=seen.border_us,
        windows=len(seen.windows),
        rows=sum(w.rows for w in seen.windows),
        found=seen.found,
        notes=seen.notes,
    )
    if not apply:
        return looked
    if begun is not None and marker is not None:
        return _record(ctx, spec, table, seen, looked, begun, marker)
    head, plan = _freeze(ctx, spec, table, seen, head)
    landing = plant(ctx.catalog, table, plan, uuid.uuid4(), plan.watermark_after)
    reached("adopt-planted")
    return _record(ctx, spec, landing.table, seen, looked, plan, landing.marker)


def _marker(ctx: Context, spec: TableSpec, table: Table) -> Marker | None:
    """The table's marker, None when neither properties nor summaries hold one."""
    try:
        if markers.parse(table.properties) is None and markers.recover(table) is None:
            return None
    except ValueError as error:
        raise markers.unreadable(error, spec.identity) from error
    return markers.read(table, spec.identity, ctx.pipeline)


def _begun(ctx: Context, marker: Marker, head: Head | None) -> Plan | None:
    """The adoption that wrote this marker and died before it wrote the ledger; None: there is nothing to finish."""
    if head is None or head.plan_id is not None:
        return None
    try:
        plan, _ = ctx.ledger.plan(marker.plan)
    except OffloadError as error:
        if error.kind is not PLAN_UNKNOWN:
            raise
        return None
    return plan if plan.run_id.startswith(RUN) else None


def _freeze(ctx: Context, spec: TableSpec, table: Table, seen: Seen, known: Head | None) -> tuple[Head, Plan]:
    """The plan without data that the marker names, in the ledger before the lake hears of it."""
    grid = Grid(spec.window_us)
    began = None if known is None else known.origin_us
    _, origin = account(seen.windows, seen.border_us, spec.start_us, spec.horizon_us, grid, began)
    head = ctx.ledger.register(
        spec.identity,
        cursor=spec.cursor,
        width_us=spec.window_us,
        source=seen.source.identity,
        target=f"{spec.target.namespace}.{spec.target.table}",
        origin_us=origin,
    )
    plan = Plan(
        plan_id=uuid.uuid4(),
        pipeline=ctx.pipeline,
        table=spec.identity,
        run_id=f"{RUN}{int(time.time())}",
        generation=head.generation + 1,
        predecessor=None,
        source_identity=seen.source.identity,
        replica=seen.replica,
        target=target_of(table),
        projection=seen.projection,
        partition=in_lake_order(partition_columns(spec, seen.projection), table),
        sort=(),
        cursor=spec.cursor,
        cursor_type=next(c.type for c in seen.source.columns if c.name == spec.cursor),
        width_us=spec.window_us,
        append=(),
        scan=Span(0, 0),
        windows=(),
        slices=(),
        origin_us=origin,
        watermark_before=None,
        watermark_after=seen.border_us,
        max_sequence=None,
        spec_json=spec.model_dump_json(),
        created_us=seen.now_us,
    )
    ctx.ledger.freeze(plan)
    return head, plan


def _record(
    ctx: Context, spec: TableSpec, table: Table, seen: Seen, looked: Adoption, plan: Plan, marker: Marker
) -> Adoption:
    """The lake's windows, the border as watermark and the plan as head, in one transaction."""
    head = ctx.ledger.head(spec.identity)
    assert head is not None  # noqa: S101 - registered before the plan was frozen
    entries, _ = account(
        seen.windows, seen.border_us, spec.start_us, spec.horizon_us, Grid(spec.window_us), plan.origin_us
    )
    landed = Landed(str(table.metadata.table_uuid), marker.snapshot_id, marker.sequence_number)
    restore(ctx.ledger, head, plan, entries, seen.projection.fingerprint, landed)
    looks.forget(ctx.ledger, head.table_id)
    return replace(looked, snapshot_id=marker.snapshot_id, generation=marker.generation)
