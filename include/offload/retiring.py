"""`retire`: a table ends cleanly. What is settled is shipped or named, the marker and the ledger say that it is over.

The lake keeps every row and stays readable. The marker moves with a snapshot of its own (rule 15), so that a plan made
before never lands; whoever plans the table again is told (OFL-315).
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace

from pyiceberg.table import Table

from include.offload import ttl_guard
from include.offload.adopting import bring_up
from include.offload.check import RunRequest, preview
from include.offload.context import Context
from include.offload.crashpoint import reached
from include.offload.errors import PLAN_UNKNOWN, SOURCE_TABLE_MISSING, TABLE_RETIRED, OffloadError
from include.offload.lake.catalog import find_table, target_of
from include.offload.lake.commit import guard, plant
from include.offload.lake.marker import Marker
from include.offload.ledger.store import Head, Landed
from include.offload.model import Outcome, Plan, Projection
from include.offload.spec.model import TableSpec
from include.offload.verify import source_rows
from include.offload.windows import Grid, Span, subtract


@dataclass(frozen=True, slots=True)
class Unshipped:
    """What the next runs would ship now: settled rows that the lake lacks, and rows of windows that differ."""

    rows: int
    windows: int


@dataclass(frozen=True, slots=True)
class Retired:
    """What `retire` or its undoing did. `retired`: how the table stands now; `changed`: whether this call did it.

    left: settled rows that stay in ClickHouse alone. snapshot_id: of the marker, None without an Iceberg table.
    """

    table: str
    retired: bool
    changed: bool
    left: int
    watermark_us: int | None
    snapshot_id: int | None


def retire(ctx: Context, spec: TableSpec, leave: int = 0) -> Retired:
    """End a table. Safe to repeat; what a crash left half done is finished.

    leave: how many settled rows may stay behind in ClickHouse, exactly. Raises OFL-315 when it is another number,
    OFL-401 when the ledger never saw the table, OFL-402 when a run landed meanwhile, and what planning raises.
    """
    ctx.ledger.check_schema()
    head, table, marker = _stand(ctx, spec)
    if head.retired:
        return _done(spec, head, marker, retired=True, changed=False, left=0)
    found = unshipped(ctx, spec, head)
    if found.rows != leave:
        said = f"{found.rows} settled rows, in {found.windows} windows, are not in Iceberg as ClickHouse holds them"
        more = "" if leave == 0 else f", not {leave}"
        raise OffloadError(
            TABLE_RETIRED,
            f"{said}{more}; ship them with bin/offload run {spec.identity}, or leave them with --leave {found.rows}",
            table=spec.identity,
        )
    now = _now_us()
    if table is not None and marker is not None:
        head, marker = _mark(ctx, spec, table, head, marker, now)
    ctx.ledger.retire(head.table_id, now)
    ttl_guard.release(ctx, spec, head.table_id)
    return _done(spec, head, marker, retired=True, changed=True, left=leave)


def undo(ctx: Context, spec: TableSpec) -> Retired:
    """Let a retired table go on where it ended, as far as ClickHouse still has the rows. Safe to repeat.

    Raises OFL-401 when the ledger never saw the table.
    """
    ctx.ledger.check_schema()
    head, table, marker = _stand(ctx, spec)
    changed = head.retired
    if changed:
        if table is not None and marker is not None:
            head, marker = _mark(ctx, spec, table, head, marker, None)
        ctx.ledger.retire(head.table_id, None)
    return _done(spec, head, marker, retired=False, changed=changed, left=0)


def unshipped(ctx: Context, spec: TableSpec, head: Head) -> Unshipped:
    """Rows of all settled windows that runs would still ship; none when the source table is gone."""
    try:
        made = preview(ctx, spec, RunRequest(f"retire__{int(time.time())}")).plan
    except OffloadError as error:
        if error.kind is not SOURCE_TABLE_MISSING:
            raise
        return Unshipped(0, 0)
    rows, windows = made.rows, len(made.windows)
    grid = Grid(spec.window_us)
    # a plan of a long backlog ends early
    with ctx.connect(spec, f"offload retire {spec.identity}") as client:
        rest = Span(made.scan.hi, max(made.scan.hi, grid.settled_until(client.now_us(), spec.settle_us)))
        if not rest.empty and made.origin_us is not None:
            shipped, empty = ctx.ledger.windows(head, grid, [rest])
            open_ = subtract(rest, [*(grid.span(n) for n in shipped), *empty])
            for span in open_:
                found = source_rows(client, spec, span)
                rows, windows = rows + sum(found.values()), windows + len(found)
    return Unshipped(rows, windows)


def _stand(ctx: Context, spec: TableSpec) -> tuple[Head, Table | None, Marker | None]:
    """Where ledger and lake stand; what the marker says of both, a retirement too, is in the ledger. Raises OFL-401."""
    head = ctx.ledger.head(spec.identity)
    if head is None:
        raise OffloadError(
            PLAN_UNKNOWN, "the ledger has never seen this table: removing its spec file ends it", table=spec.identity
        )
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    head, marker = bring_up(ctx, spec, table, head)
    if marker is not None and head.retired is (marker.retired_us is None):
        ctx.ledger.retire(head.table_id, marker.retired_us)
        head = replace(head, retired=not head.retired)
    return head, table, marker


def _mark(
    ctx: Context, spec: TableSpec, table: Table, head: Head, marker: Marker, retired_us: int | None
) -> tuple[Head, Marker]:
    """The next plan of the chain, without data: only its marker says something new."""
    last, _ = ctx.ledger.plan(marker.plan)
    plan = _empty(last, spec, table, head, marker, "retire" if retired_us is not None else "unretire")
    outcome = Outcome(plan.plan_id, "committed", None, 0, 0, 0, (), (), head.watermark_us, 0.0)
    attempt = uuid.uuid4()
    ctx.ledger.freeze(plan)
    # with this a crash after the commit is healed by whoever comes next (rule 5)
    ctx.ledger.record_attempt(attempt, outcome)
    guard(table, plan)
    landing = plant(ctx.catalog, table, plan, attempt, marker.watermark_us, retired_us)
    reached("retire-planted")
    now = landing.marker
    landed = Landed(str(landing.table.metadata.table_uuid), now.snapshot_id, now.sequence_number)
    ctx.ledger.promote(plan, outcome, landed)
    moved = ctx.ledger.head(spec.identity)
    assert moved is not None  # noqa: S101 - it was there before
    return moved, now


def _empty(last: Plan, spec: TableSpec, table: Table, head: Head, marker: Marker, why: str) -> Plan:
    return replace(
        last,
        plan_id=uuid.uuid4(),
        run_id=f"{why}__{int(time.time())}",
        generation=max(head.generation, marker.generation) + 1,
        predecessor=marker.plan,
        target=target_of(table),
        # it writes no file: no column is said to be written again
        projection=Projection((), ""),
        partition=(),
        sort=(),
        append=(),
        scan=Span(0, 0),
        windows=(),
        slices=(),
        watermark_before=head.watermark_us,
        watermark_after=head.watermark_us,
        max_sequence=None,
        spec_json=spec.model_dump_json(),
        created_us=_now_us(),
        evolution=None,
        force=False,
    )


def _done(spec: TableSpec, head: Head, marker: Marker | None, *, retired: bool, changed: bool, left: int) -> Retired:
    snapshot = None if marker is None else marker.snapshot_id
    return Retired(spec.identity, retired, changed, left, head.watermark_us, snapshot)


def _now_us() -> int:
    return time.time_ns() // 1000
