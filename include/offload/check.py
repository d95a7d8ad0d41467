"""check_extent: adopt what already landed, look at ClickHouse, freeze a plan (rules 4 to 11)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pyiceberg.table import Table

from include.offload import losses, ttl_guard
from include.offload.adopting import adopt, retired
from include.offload.context import Context
from include.offload.crashpoint import reached
from include.offload.errors import (
    PLAN_SUPERSEDED,
    RANGE_REFUSED,
    OffloadError,
)
from include.offload.lake.catalog import find_table, target_of
from include.offload.lake.evolution import compare, evolution, in_lake_order, project_onto, refuse
from include.offload.ledger import findings, looks
from include.offload.ledger.findings import Kind
from include.offload.ledger.looks import Look, Remembered
from include.offload.ledger.store import Head
from include.offload.limits import expires_us
from include.offload.lookback import Asked, LookBack, late_note, look_back, survey
from include.offload.model import Evolution, Extent, Plan, Projection, SourceTable, Target
from include.offload.planning import Bound, Decision, Left, Rules, bound_of, decide, describe_bounds, describe_left
from include.offload.remembering import before_this, lost_windows, remember, remind, still_unshipped, unshipped_expiry
from include.offload.replicas import check_lag
from include.offload.slicing import cut, rows_per_slice
from include.offload.source.client import Client
from include.offload.source.describe import describe
from include.offload.source.expressions import confirm_expressions, expressions_of
from include.offload.source.extent import ExtentQuery, cut_to_limit, min_cursor_us, read_extent
from include.offload.source.parts import bytes_per_row, ttl_text
from include.offload.source.projection import partition_columns, sort_sql
from include.offload.source.ttl import Expiry, expiry_sql
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, Span, from_us, gapless_end, subtract

log = logging.getLogger(__name__)

MAX_LOOKS = 3
"""How often the source is looked at again when other runs of the table landed or looked meanwhile."""
EXPIRY_MARGIN_US = 600 * 1_000_000
"""Rule 18's margin beyond the job time-out: ten minutes, far above clock skew and a slow commit."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run was asked for. from_us, to_us: cursor time, µs UTC; force: replace unchanged windows too.

    follow_deletes: this once, whatever the spec says, the lake gives up what ClickHouse deleted (rule 19).
    bounded: of a range that was shipped before too the plan looks at no more than one run may ship, oldest first.
    """

    run_id: str
    from_us: int | None = None
    to_us: int | None = None
    force: bool = False
    follow_deletes: bool = False
    bounded: bool = False


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A plan, what was left alone, lines for the log, and what the ledger is to remember of this look.

    lost: windows whose rows expired before they were shipped, as `losses` has it. head: what it was planned on.
    cut_us: where the bounds of the spec end the plan, µs UTC: settled time from there on waits for the next one.
    """

    plan: Plan
    head: Head
    left: tuple[Left, ...]
    notes: tuple[str, ...]
    seen: LookBack
    lost: Mapping[int, int] = field(default_factory=dict)
    cut_us: int | None = None


@dataclass(frozen=True, slots=True)
class _Glance:
    """What ClickHouse alone says, before the Iceberg table is known. `query`: still without columns."""

    source: SourceTable
    query: ExtentQuery
    expiry: Expiry
    now_us: int
    delay_s: int


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the source yields besides the extent."""

    source: SourceTable
    projection: Projection
    query: ExtentQuery
    evolution: Evolution | None
    settled_us: int
    now_us: int
    expiry_readable: bool
    expiry_why: str


def check_extent(ctx: Context, spec: TableSpec, request: RunRequest) -> CheckResult:
    """Plan one run and freeze the plan in the ledger. Raises OFL-2xx, 3xx, 4xx."""
    ctx.metrics.announce([spec])
    ttl_guard.check_ready(ctx, spec)
    ctx.ledger.check_schema()
    known = looks.remembered(ctx.ledger, spec.identity)
    remind(ctx, spec, known)
    result, head = _remembered(ctx, spec, request, known)
    look = result.seen.look
    ctx.ledger.freeze(result.plan)
    reached("plan-frozen")
    ctx.metrics.check(
        spec.identity,
        settle_us=spec.settle_us,
        pending_windows=len(result.plan.windows),
        pending_rows=result.plan.rows,
        mismatched_windows=sum(x.differs for x in result.left),
        first_expiry_us=expires_us(look.first_expiry_us, head.watermark_us, look.ttl_us),
        now_us=look.seen_us,
        late_beyond_horizon=look.late_rows,
        rows_before_start=look.rows_before_start,
        rows_in_future=look.rows_in_future,
        late_unknown=look.late_unknown,
    )
    if result.lost:
        ctx.metrics.lost(spec.identity, sum(f.windows for f in findings.of(ctx.ledger, head.table_id, (Kind.LOST,))))
    guard = ttl_guard.watch(ctx, spec, head.table_id, look.first_expiry_us, look.seen_us)
    return result if guard.note is None else replace(result, notes=(*result.notes, guard.note))


def _remembered(
    ctx: Context, spec: TableSpec, request: RunRequest, known: Remembered | None
) -> tuple[CheckResult, Head]:
    """A plan whose look is kept, and the head that it goes on from. Raises OFL-402 when others pass it each time."""
    grid = Grid(spec.window_us)
    for _ in range(MAX_LOOKS):
        result = _plan(ctx, spec, request, acting=True, past=known)
        head, seen = result.head, result.seen
        if not seen.keep:
            findings.lose(ctx.ledger, head.table_id, grid, result.lost)
            return result, head
        kept = looks.save(
            ctx.ledger, head, grid, seen.look, seen.lasting,
            before=seen.before, lost=seen.lost, unshipped=result.lost,
        )  # fmt: skip
        if kept:
            reached("look-saved")
            return result, head
        log.info("%s: another run landed or looked meanwhile, looking again", spec.identity)
    raise OffloadError(PLAN_SUPERSEDED, f"other runs came between in {MAX_LOOKS} looks", table=spec.identity)


def preview(ctx: Context, spec: TableSpec, request: RunRequest) -> CheckResult:
    """The plan that `check_extent` would freeze now; it is not frozen."""
    ctx.ledger.check_schema()
    return _plan(ctx, spec, request, acting=False)


def _plan(
    ctx: Context, spec: TableSpec, request: RunRequest, *, acting: bool, past: Remembered | None = None
) -> CheckResult:
    """past: what was known before, for who is `acting`."""
    grid = Grid(spec.window_us)
    with ctx.connect(spec, comment=f"offload check {spec.identity} {request.run_id}") as client:
        glance = _glance(client, spec, grid)
        known = _going_on(ctx, spec)
        unshipped = unshipped_expiry(client, glance.query, known)
        ttl_us = None
        if acting and known is not None and known.origin_us is not None:
            # before anything that may fail: the alert on it must not wait for the catalog
            ttl_us = still_unshipped(ctx, past, known, unshipped, ttl_text(glance.source, spec), glance.now_us)
            ctx.metrics.expiry(spec.identity, expires_us(unshipped, known.watermark_us, ttl_us), glance.now_us)
        if acting and known is not None and ttl_guard.must_hold(spec, unshipped, glance.now_us):
            # first of all: it must also work while the catalog or the store is away
            ttl_guard.watch(ctx, spec, known.table_id, unshipped, glance.now_us)
        table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
        look = _look(glance, spec, grid, table)
        origin = known.origin_us if known and known.origin_us is not None else _origin(client, spec, look, grid)
        head = ctx.ledger.register(
            spec.identity,
            cursor=spec.cursor,
            width_us=spec.window_us,
            source=look.source.identity,
            target=f"{spec.target.namespace}.{spec.target.table}",
            origin_us=origin,
        )
        if known is None or known.origin_us is None:
            unshipped = unshipped_expiry(client, glance.query, head)
        head, marker = adopt(ctx, spec, table, head)
        scan = _scan(ctx, spec, request, head, look, grid)
        shipped, empty = ctx.ledger.windows(head, grid, [scan])
        known_spans = [*(grid.span(n) for n in shipped), *empty]
        append = tuple(subtract(scan, known_spans))
        end, bound = _cut(client, spec, look.query, (scan,) if request.bounded else append)
        if end is not None:
            scan = Span(scan.lo, end)
            append = tuple(Span(s.lo, min(s.hi, scan.hi)) for s in append if s.lo < scan.hi)
            shipped = {n: w for n, w in shipped.items() if grid.span(n).hi <= scan.hi}
        spans = [] if scan.empty else [scan]
        start = head.watermark_us if head.watermark_us is not None else head.origin_us
        after = None if start is None else gapless_end(start, [*known_spans, *append])
        extent = read_extent(
            client,
            look.query,
            spans,
            now_us=look.now_us,
            origin_us=head.origin_us or look.settled_us,
            tail_us=after,
        )
        safe_until = look.now_us + ctx.settings.job_timeout_s * 1_000_000 + EXPIRY_MARGIN_US
        rules = Rules(
            grid=grid,
            fingerprint=look.projection.fingerprint,
            follow_deletes=request.follow_deletes or spec.deletes == "follow",
            safe_until_us=safe_until if look.expiry_readable else None,
            force=request.force,
        )
        asked = Asked(ctx, client, spec, look.query, head, look.now_us, glance.delay_s)
        back = look_back(asked, look.source, table, safe_until_us=rules.safe_until_us)
        decision = decide(extent, append, back.corrected(shipped), empty, rules)
        known_before = past if acting and glance.query.due is not None else None
        before = before_this(known_before, back.look, ttl_us, exact=glance.expiry.sql == glance.expiry.strict)
        lost = lost_windows(ctx, before, extent, append, grid, (known, head), past.seen_expiry_us if past else None)
        horizon_lo = min(grid.floor(look.settled_us - spec.horizon_us), head.watermark_us or look.settled_us)
        back = survey(asked, back, decision.left, table, horizon_lo=horizon_lo, safe_until_us=rules.safe_until_us)
    plan = Plan(
        plan_id=uuid.uuid4(),
        pipeline=ctx.pipeline,
        table=spec.identity,
        run_id=request.run_id,
        generation=max(head.generation, marker.generation if marker else 0) + 1,
        predecessor=marker.plan if marker else None,
        source_identity=look.source.identity,
        replica=extent.replica,
        target=target_of(table) if table else Target(spec.target.namespace, spec.target.table, None, None, None),
        projection=look.projection,
        partition=look.query.partition,
        sort=sort_sql(spec, look.projection),
        cursor=spec.cursor,
        cursor_type=next(c.type for c in look.source.columns if c.name == spec.cursor),
        width_us=spec.window_us,
        append=append,
        scan=scan,
        windows=decision.windows,
        slices=cut(extent.cells, decision.windows, append, grid, _target_rows(spec, decision, back)),
        origin_us=head.origin_us,
        watermark_before=head.watermark_us,
        watermark_after=after,
        max_sequence=extent.max_sequence,
        spec_json=(spec.model_copy(update={"deletes": "follow"}) if request.follow_deletes else spec).model_dump_json(),
        created_us=look.now_us,
        evolution=look.evolution if decision.windows else None,
        force=request.force,
    )
    seen = replace(
        remember(back.look, extent, plan, unshipped, asked=request.from_us is not None or request.to_us is not None),
        expires=look.query.expiry is not None or not look.expiry_readable,
        settle_us=spec.settle_us,
        schedule=spec.schedule,
        lag_limit_s=spec.alerts.lag_s,
        headroom_limit_s=spec.alerts.ttl_headroom_s,
        left=decision.left,
    )
    notes = _notes(extent, decision.left, grid, plan, seen)
    notes += [line for line in (losses.note(lost, grid, spec.identity),) if line is not None]
    notes += describe_bounds(end, look.settled_us, bound.why, len(plan.slices), spec.slice.rows)
    if look.expiry_why:
        notes.append(f"{look.expiry_why}: no window is replaced, and when rows expire is not known for sure")
    return CheckResult(plan, head, decision.left, tuple(notes), replace(back, look=seen), lost, end)


def _cut(client: Client, spec: TableSpec, query: ExtentQuery, spans: Sequence[Span]) -> tuple[int | None, Bound]:
    """Where the bounds of the spec end a plan over `spans`, µs UTC (None: all fits), and which bound it is."""
    if sum(s.hi - s.lo for s in spans) <= query.grid.width_us:
        return None, bound_of(spec.plan.rows, spec.plan.bytes, 0.0)
    per_row = bytes_per_row(client, spec.source.database, spec.source.table)
    bound = bound_of(spec.plan.rows, spec.plan.bytes, per_row)
    return cut_to_limit(client, query, spans, rows=bound.rows), bound


def _going_on(ctx: Context, spec: TableSpec) -> Head | None:
    """The table's head, None when the ledger has never seen it. Raises OFL-315 for one that was retired."""
    head = ctx.ledger.head(spec.identity)
    if head is not None and head.retired:
        raise retired(spec)
    return head


def _target_rows(spec: TableSpec, decision: Decision, back: LookBack) -> int:
    return rows_per_slice(
        sum(w.rows for w in decision.windows),
        max_rows=spec.slice.rows,
        max_bytes=spec.slice.bytes,
        bytes_per_row=back.parts.bytes_per_row,
        concurrency=spec.slice.concurrency,
    )


def _glance(client: Client, spec: TableSpec, grid: Grid) -> _Glance:
    confirm_expressions(client, expressions_of(spec), spec.identity)
    source = describe(client, spec.source.database, spec.source.table, spec.identity)
    delay_s = check_lag(client, spec)
    expiry = expiry_sql(source, spec)
    query = ExtentQuery(
        database=spec.source.database,
        table=spec.source.table,
        cursor=spec.cursor,
        sequence=spec.sequence,
        final=spec.source.final,
        grid=grid,
        projection=Projection((), ""),
        partition=(),
        expiry=expiry.strict,
        due=expiry.sql,
    )
    return _Glance(source, query, expiry, client.now_us(), delay_s)


def _look(glance: _Glance, spec: TableSpec, grid: Grid, table: Table | None) -> _Look:
    source, expiry = glance.source, glance.expiry
    projection = project_onto(spec, source, table)
    changes = () if table is None else compare(table, projection, spec)
    refuse(changes, spec.identity)
    partition = in_lake_order(partition_columns(spec, projection), table)
    query = replace(glance.query, projection=projection, partition=partition)
    readable = expiry.readable and not source.ttl_group_by
    planned = None if table is None else evolution(table, changes)
    settled = grid.settled_until(glance.now_us, spec.settle_us)
    return _Look(source, projection, query, planned, settled, glance.now_us, readable, expiry.why)


def _origin(client: Client, spec: TableSpec, look: _Look, grid: Grid) -> int | None:
    """Where accounting begins: at `start`, else at the oldest row or the horizon; None while there is no row."""
    if spec.start_us is not None:
        return grid.floor(spec.start_us)
    oldest = min_cursor_us(client, look.query)
    # a row that comes late may be older than the first one seen: it counts as long as the horizon reaches
    return None if oldest is None else grid.floor(min(oldest, look.settled_us - spec.horizon_us))


def _scan(ctx: Context, spec: TableSpec, request: RunRequest, head: Head, look: _Look, grid: Grid) -> Span:
    """What this run looks at (rule 8)."""
    settled = look.settled_us
    if request.from_us is not None or request.to_us is not None:
        return _asked(spec, request, head, grid, settled)
    if head.origin_us is None:
        return Span(settled, settled)
    first = ctx.ledger.first_scan(spec.identity, request.run_id)
    if first is not None:
        return first
    watermark = head.watermark_us if head.watermark_us is not None else head.origin_us
    lo = max(head.origin_us, min(watermark, grid.floor(settled - spec.horizon_us)))
    return Span(min(lo, max(settled, watermark)), max(settled, watermark))


def _asked(spec: TableSpec, request: RunRequest, head: Head, grid: Grid, settled: int) -> Span:
    """A range that was asked for, rounded outwards to windows. Raises OFL-407 when nothing of it can be offloaded."""
    lowest = grid.floor(spec.start_us) if spec.start_us is not None else None
    lo = grid.floor(request.from_us) if request.from_us is not None else (head.origin_us if lowest is None else lowest)
    hi = settled if request.to_us is None else min(grid.ceil(request.to_us), settled)
    if lo is None:
        raise OffloadError(RANGE_REFUSED, "the source never held a row", table=spec.identity)
    if lowest is not None and lo < lowest:
        raise OffloadError(
            RANGE_REFUSED, f"it begins before `start`, {from_us(lowest):%Y-%m-%dT%H:%M:%SZ}", table=spec.identity
        )
    if hi <= lo:
        raise OffloadError(
            RANGE_REFUSED,
            f"no whole window from {from_us(lo):%Y-%m-%dT%H:%M:%SZ} to {from_us(hi):%Y-%m-%dT%H:%M:%SZ} is settled",
            table=spec.identity,
        )
    return Span(lo, hi)


def _notes(extent: Extent, left: Sequence[Left], grid: Grid, plan: Plan, look: Look) -> list[str]:
    notes = describe_left(left, grid)
    if plan.evolution is not None:
        notes += [f"with this commit: {change}" for change in plan.evolution.changes]
    late = late_note(look, plan.table)
    if late is not None:
        notes.append(late)
    if extent.rows_before_start:
        notes.append(f"{extent.rows_before_start} rows lie before the table's start and are not offloaded")
    if extent.rows_in_future:
        notes.append(f"{extent.rows_in_future} rows lie in the future; they are offloaded when their window settles")
    if plan.origin_us is None:
        notes.append("the source has never held a row; nothing is anchored yet")
    return notes
