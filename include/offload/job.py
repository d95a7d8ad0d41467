"""The offload job: a frozen plan in, one Iceberg commit out (rules 12 to 19). Runs in the Spark driver."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from include.offload.audit import changed_windows, shipped_windows, unlike_planned, with_expiries
from include.offload.context import Context, limits
from include.offload.crashpoint import reached
from include.offload.errors import (
    AUDIT_FAILED,
    LEDGER_DISAGREES,
    PLAN_SUPERSEDED,
    RANGE_REFUSED,
    SOURCE_CHANGED_IDENTITY,
    SOURCE_COLUMNS_CHANGED,
    TARGET_ROWS_ADDED,
    OffloadError,
)
from include.offload.lake import rewriting
from include.offload.lake.catalog import create_table, find_table, target_of
from include.offload.lake.commit import guard, land
from include.offload.lake.evolution import check_fits, file_properties, file_schema, project_onto
from include.offload.lake.rewriting import Replacement, find_replacement
from include.offload.lake.shipping import SliceTask, slice_sql, source_name
from include.offload.lookback import parts_went, ttl_moved
from include.offload.model import Action, Outcome, Plan, Projection, ShippedFile, Slice, WindowState, earliest
from include.offload.replicas import standing_in
from include.offload.slicing import lanes
from include.offload.source.describe import describe
from include.offload.source.projection import record_value
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, from_us, merge, subtract

log = logging.getLogger(__name__)

MAX_ROUNDS = 3
"""How often slices are read again without the windows that changed under the read, before the attempt gives up."""
COMMIT_MARGIN_US = 60 * 1_000_000
"""Before committing, an expiry must still be this far off (rule 18): the commit itself takes seconds."""

RunTasks = Callable[[Sequence[SliceTask]], Iterable[ShippedFile]]


def ship(ctx: Context, plan_id: uuid.UUID, run_tasks: RunTasks, ready: Callable[[], object] = lambda: None) -> Outcome:
    """Ship a frozen plan and commit it, or find that it already landed.

    run_tasks: runs `shipping.ship` on every task, wherever, and yields the files as they are done. ready: waits until
    it can; the outcome's seconds count from then. Raises OFL-402 when
    another plan passed this one, and OFL-2xx, 3xx, 4xx otherwise; then nothing was committed, but for OFL-404.
    """
    started = time.monotonic()
    plan, status = ctx.ledger.plan(plan_id)
    spec = TableSpec.model_validate_json(plan.spec_json)
    if not plan.touches_lake:
        return Outcome(plan_id, "nothing", None, 0, 0, 0, (), (), plan.watermark_after, 0.0)
    if status == "committed":
        # whatever became of the table since: nothing is made again here
        return _already(ctx, plan, None, started)
    if status == "superseded":
        raise OffloadError(PLAN_SUPERSEDED, f"the ledger holds plan {plan_id} as superseded", table=plan.table)
    table = find_table(ctx.catalog, plan.target.identifier, plan.table)
    if table is None and plan.target.uuid is None:
        # some catalogs let two creations at once both succeed, and the first would find its table replaced
        with ctx.ledger.alone(plan.table):
            table = find_table(ctx.catalog, plan.target.identifier, plan.table)
            table = table or create_table(ctx.catalog, spec, plan.projection)
    if table is None:
        raise OffloadError(
            PLAN_SUPERSEDED, f"the table {plan.target.uuid} that it was planned for is gone", table=plan.table
        )
    marker = guard(table, plan)
    if marker is not None and marker.plan == plan_id:
        return _already(ctx, plan, marker.attempt, started)
    check_fits(table, plan)
    if plan.target.uuid is None:
        # the first plan could not freeze a table that was not there; its files are written for this one (rule 1)
        plan = replace(plan, target=target_of(table))
    pinned, plan = plan.replica, standing_in(ctx, spec, plan)
    attempt = uuid.uuid4()
    if plan.slices:
        ready()
    started = time.monotonic()
    files, pending = _read(ctx, spec, plan, table, attempt, run_tasks, pinned)
    outcome = _outcome(plan, files, pending, time.monotonic() - started)
    reached("audited")
    try:
        outcome = _check_source(ctx, spec, plan, table, outcome, pinned)
        ctx.ledger.record_attempt(attempt, outcome)
    except BaseException:
        _clean_up(table, files)
        raise
    landing = land(
        ctx.catalog,
        plan,
        attempt,
        outcome.watermark,
        [_data_file(table, plan, f) for f in files if f.rows],
        lambda now: _replacement(now, plan, set(pending), attempt),
        lambda: _clean_up(table, files),
    )
    if landing.marker.attempt != attempt:
        return _already(ctx, plan, landing.marker.attempt, started)
    seconds = time.monotonic() - started
    ctx.metrics.shipped(plan.table, rows=outcome.rows, files=outcome.files, bytes=outcome.bytes, seconds=seconds)
    return replace(
        outcome,
        status="committed",
        snapshot_id=landing.marker.snapshot_id,
        seconds=seconds,
        location=table.location(),
    )


def _already(ctx: Context, plan: Plan, attempt: uuid.UUID | None, started: float) -> Outcome:
    """The outcome of a plan that landed before this call: nothing is done, and that is a success (rule 17)."""
    known = ctx.ledger.attempt(attempt) if attempt else None
    base = known or Outcome(plan.plan_id, "", None, 0, 0, 0, (), (), plan.watermark_after, 0.0)
    return replace(base, status="already-committed", seconds=time.monotonic() - started)


def _read(
    ctx: Context,
    spec: TableSpec,
    plan: Plan,
    table: Table,
    attempt: uuid.UUID,
    run_tasks: RunTasks,
    pinned: str,
) -> tuple[list[ShippedFile], tuple[int, ...]]:
    """All slices as files, and the windows that had to be left pending because they changed under the read.

    pinned: the replica that was planned for; what comes from another one must be as planned (rule 11).
    """
    grid = Grid(plan.width_us)
    todo: list[Slice] = list(plan.slices)
    done: list[ShippedFile] = []
    pending: set[int] = set()
    try:
        for round_ in range(MAX_ROUNDS):
            chosen = lanes([s.rows for s in todo], spec.slice.concurrency)
            tasks = [
                replace(_task(ctx, spec, plan, table, attempt, s, round_), lane=n)
                for s, n in zip(todo, chosen, strict=True)
            ]
            for file in run_tasks(tasks):
                done.append(file)
            changed = changed_windows(ctx, spec, plan, done, pending)
            if plan.replica != pinned:
                changed |= unlike_planned(plan, done, pending)
            if not changed:
                return done, tuple(sorted(pending))
            pending |= changed
            why = "changed under the read" if plan.replica == pinned else "are not as planned on this replica"
            log.warning("%d windows %s and stay pending", len(changed), why)
            holes = [grid.span(n) for n in changed]
            todo = []
            for slice_ in plan.slices:
                if any(h.overlaps(s) for h in holes for s in slice_.spans):
                    spans = tuple(part for s in slice_.spans for part in subtract(s, [grid.span(n) for n in pending]))
                    done = [f for f in done if not _drop(table, f, slice_.number)]
                    if spans:
                        todo.append(replace(slice_, spans=spans))
        raise OffloadError(AUDIT_FAILED, f"windows kept changing in {MAX_ROUNDS} rounds of reading", table=plan.table)
    except BaseException:
        _clean_up(table, done)
        raise


def _drop(table: Table, file: ShippedFile, slice_number: int) -> bool:
    if file.slice_number != slice_number:
        return False
    if file.rows:
        table.io.delete(file.path)
    return True


def _clean_up(table: Table, files: Iterable[ShippedFile]) -> None:
    """Delete what this attempt wrote; only ever called before a commit was sent (rule 13)."""
    _delete(table, (file.path for file in files if file.rows))


def _delete(table: Table, paths: Iterable[str]) -> None:
    for path in paths:
        try:
            table.io.delete(path)
        except OSError as error:
            log.warning("left for orphan removal: %s (%s)", path, error)


def _task(
    ctx: Context, spec: TableSpec, plan: Plan, table: Table, attempt: uuid.UUID, slice_: Slice, round_: int
) -> SliceTask:
    return SliceTask(
        number=slice_.number,
        table=plan.table,
        sql=slice_sql(plan, slice_, source_name(spec.source.database, spec.source.table), spec.source.final),
        rows=slice_.rows,
        path=rewriting.data_path(table, attempt, f"{slice_.number:05d}-{round_}"),
        partition=slice_.partition,
        schema_json=file_schema(table, plan).model_dump_json(),
        comment=f"offload ship {plan.table} plan {plan.plan_id} slice {slice_.number}",
        limits=limits(spec),
        table_properties=file_properties(table, plan.projection),
        source_types={c.name: c.source_type for c in plan.projection.columns},
        endpoint=ctx.endpoint(spec, plan.replica),
        io_properties=dict(table.io.properties),
    )


def _outcome(plan: Plan, files: Sequence[ShippedFile], pending: tuple[int, ...], seconds: float) -> Outcome:
    grid = Grid(plan.width_us)
    shipped = shipped_windows(files)
    expiries = {w.window: w.expiry_us for w in plan.windows}
    # of a window that was empty when planned nobody asked when its rows expire: no later than the first of the plan
    soonest = earliest(*expiries.values())
    for window in plan.windows:
        if window.window not in pending:
            shipped.setdefault(window.window, WindowState(window.window, 0, 0))
    before, watermark = plan.watermark_before, plan.watermark_after
    for number in pending:
        low = grid.span(number).lo
        if watermark is not None and low < watermark and (before is None or low >= before):
            watermark = low
    return Outcome(
        plan_id=plan.plan_id,
        status="shipped",
        snapshot_id=None,
        rows=sum(f.rows for f in files),
        files=sum(1 for f in files if f.rows),
        bytes=sum(f.bytes for f in files),
        windows=tuple(replace(shipped[n], expiry_us=expiries.get(n, soonest)) for n in sorted(shipped)),
        pending=pending,
        watermark=watermark,
        seconds=seconds,
    )


def _same_columns(now: Projection, plan: Plan) -> None:
    if now.fingerprint != plan.projection.fingerprint:
        names = {(c.name, c.iceberg_type) for c in now.columns} ^ {
            (c.name, c.iceberg_type) for c in plan.projection.columns
        }
        raise OffloadError(
            SOURCE_COLUMNS_CHANGED, ", ".join(sorted({n for n, _ in names})) or "their order", table=plan.table
        )


def _check_source(ctx: Context, spec: TableSpec, plan: Plan, table: Table, outcome: Outcome, pinned: str) -> Outcome:
    """The second look, now that everything was read; the outcome with what it says of expiries.

    Raises OFL-209 when it is no longer the table that was planned for (rule 2), OFL-212 when it has other columns than
    planned (rule 10), OFL-402 when another run shipped a window to be replaced, OFL-407 when rows of one expire, or
    went since planning (rule 18), whichever run saw it. A row that came with a value in a new column while the old
    columns were read would lose that value: its window would count as shipped. What came since planning may have been
    shipped too, so its blocks are remembered for the next look; not those of another replica than `pinned`, of which
    nothing came that was not planned.
    """
    head = ctx.ledger.head(plan.table)
    if head is None:
        return outcome
    replaced = [w for w in plan.windows if w.action is Action.REPLACE and w.ledger_rows]
    with ctx.connect(spec, f"offload audit {plan.table} plan {plan.plan_id}", plan.replica) as client:
        now = client.now_us()
        source = describe(client, spec.source.database, spec.source.table, plan.table)
        if source.identity != plan.source_identity:
            raise OffloadError(
                SOURCE_CHANGED_IDENTITY,
                f"planned was {plan.source_identity}, now it is {source.identity}",
                table=plan.table,
            )
        _same_columns(project_onto(spec, source, table), plan)
        outcome = with_expiries(client, spec, source, plan, outcome)
        went = parts_went(ctx, client, spec, head.table_id, now, remember=plan.replica == pinned)
        if not replaced:
            return outcome
        moved = ttl_moved(ctx, client, source, spec, head.table_id)
    # read after the looks above: another run may have seen first what went, and have marked these windows for it
    grid = Grid(plan.width_us)
    shipped, _ = ctx.ledger.windows(head, grid, merge(grid.span(w.window) for w in replaced))
    if any(w.window not in shipped or shipped[w.window].state.rows != w.ledger_rows for w in replaced):
        raise OffloadError(
            PLAN_SUPERSEDED,
            "the ledger holds other rows of a window that it replaces than when planned",
            table=plan.table,
        )
    soonest = earliest(*(w.expiry_us for w in replaced), *(shipped[w.window].state.expiry_us for w in replaced))
    if soonest is not None and soonest <= now + COMMIT_MARGIN_US:
        raise OffloadError(
            RANGE_REFUSED,
            "rows of a window that it replaces are expiring in ClickHouse, or went from it without a delete",
            table=plan.table,
        )
    if went or moved:
        what = "the source's TTL changed" if moved else "parts of the source were dropped"
        raise OffloadError(
            RANGE_REFUSED, f"{what} while windows were read again; the next run looks anew", table=plan.table
        )
    return outcome


def _replacement(table: Table, plan: Plan, pending: set[int], attempt: uuid.UUID) -> Replacement:
    grid = Grid(plan.width_us)
    windows = [w for w in plan.windows if w.action is Action.REPLACE and w.ledger_rows and w.window not in pending]
    if not windows:
        return Replacement()
    found = find_replacement(table, plan.table, plan.cursor, [grid.span(w.window) for w in windows], attempt)
    expected = sum(w.ledger_rows or 0 for w in windows)
    if found.rows_removed != expected and not plan.force:
        # more: somebody added rows. Fewer: they would stay beside the new ones if they are there after all
        _delete(table, (file.file_path for file in found.remainders))
        lo, hi = (from_us(grid.span(pick(w.window for w in windows)).lo) for pick in (min, max))
        raise OffloadError(
            TARGET_ROWS_ADDED if found.rows_removed > expected else LEDGER_DISAGREES,
            f"{found.rows_removed} rows, shipped were {expected}, in windows from {lo:%Y-%m-%dT%H:%M:%SZ}"
            f" to {hi:%Y-%m-%dT%H:%M:%SZ}",
            table=plan.table,
        )
    if found.rows_removed != expected:
        log.warning("the lake held %d rows in the replaced windows, the ledger %d", found.rows_removed, expected)
    return found


def _data_file(table: Table, plan: Plan, file: ShippedFile) -> DataFile:
    types = {c.name: c.iceberg_type for c in plan.projection.columns}
    values = [record_value(c, types[c.source], v) for c, v in zip(plan.partition, file.partition, strict=True)]
    return rewriting.data_file(table, file.path, file.bytes, file.rows, Record(*values), file.statistics)
