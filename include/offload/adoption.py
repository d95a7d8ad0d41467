"""`adopt`: an Iceberg table that another program filled goes on as ours, no row twice and none missing (rules 3, 15).

Its history has no marker and the ledger no windows. A person says up to when it is complete, or ClickHouse does, where
it still holds the same rows. From then on it is a table like any other: reconcile compares its windows, and replaces
those that differ as far as rule 18 and 19 allow; what lies at or after the border is shipped by the next run.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pyiceberg.table import Table

from include.offload.check import EXPIRY_MARGIN_US
from include.offload.context import Context
from include.offload.crashpoint import reached
from include.offload.errors import (
    ADOPT_REFUSED,
    LEDGER_DISAGREES,
    PLAN_UNKNOWN,
    TARGET_MISSING,
    TARGET_SCHEMA_DISAGREES,
    OffloadError,
)
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table, target_of
from include.offload.lake.commit import plant
from include.offload.lake.evolution import compare, in_lake_order, project_onto
from include.offload.lake.marker import Marker
from include.offload.ledger import looks
from include.offload.ledger.restore import restore
from include.offload.ledger.store import Head, Landed
from include.offload.model import (
    EXPIRED_LONG_AGO,
    Cell,
    ChangeKind,
    Extent,
    Plan,
    Projection,
    SchemaChange,
    SourceTable,
    Verdict,
    WindowState,
)
from include.offload.planning import Decision, LedgerWindow, Rules, decide
from include.offload.recovery import account, expiries_of
from include.offload.source.client import Client
from include.offload.source.describe import describe
from include.offload.source.expressions import confirm_expressions, expressions_of
from include.offload.source.extent import ExtentQuery, min_cursor_us, read_survey
from include.offload.source.projection import partition_columns
from include.offload.source.sql import quote
from include.offload.source.ttl import Expiry, expiry_sql
from include.offload.spec.model import TableSpec
from include.offload.verify import lake_source, lake_windows
from include.offload.windows import Grid, Span, from_us

RUN = "adopt__"
"""How the run id of an adoption begins: its plan says that the ledger still lacks the windows."""
HARMLESS = {ChangeKind.OPTIONAL, ChangeKind.SORT}
"""Differences that change neither a value nor a file: the next commit, or nobody, mends them."""


class Group(StrEnum):
    """What becomes of a window that the table holds, or that ClickHouse holds before the border."""

    EQUAL = "equal"
    ALONE = "in Iceberg alone"
    NEXT = "the next run ships it"
    BY_HAND = "older than the horizon"
    STAYS = "stays different"


@dataclass(frozen=True, slots=True)
class Found:
    """The windows of one group: how many, their rows on both sides, and from when to when (µs UTC)."""

    group: Group
    windows: int
    lake_rows: int
    source_rows: int
    from_us: int
    to_us: int


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


@dataclass(frozen=True, slots=True)
class _Seen:
    """Both sides, as one look saw them. `windows`: of the lake, with their first expiry."""

    source: SourceTable
    projection: Projection
    replica: str
    now_us: int
    border_us: int | None
    windows: tuple[WindowState, ...]
    found: tuple[Found, ...]
    notes: tuple[str, ...]


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
    seen = _look(ctx, spec, table, until_us if begun is None else begun.watermark_after)
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


# ---- looking ---------------------------------------------------------------------------------------------------------


def _look(ctx: Context, spec: TableSpec, table: Table, until_us: int | None) -> _Seen:
    grid = Grid(spec.window_us)
    with ctx.connect(spec, f"offload adopt {spec.identity}") as client:
        confirm_expressions(client, expressions_of(spec), spec.identity)
        source = describe(client, spec.source.database, spec.source.table, spec.identity)
        projection = project_onto(spec, source, table)
        notes = _fits(compare(table, projection, spec), spec, table)
        _no_null_cursor(client, spec, table)
        expiry = expiry_sql(source, spec)
        lake = lake_windows(client, table, spec, projection)
        expiries = expiries_of(client, table, spec, expiry, lake)
        windows = {n: replace(w, expiry_us=expiries.get(n)) for n, w in lake.items()}
        query = _query(spec, projection, expiry)
        now = client.now_us()
        settled = grid.settled_until(now, spec.settle_us)
        border = _border(lake, until_us, settled, grid, spec)
        below = _below(client, query, lake, border, spec, grid)
        here = read_survey(client, query, [] if below.empty else [below], hashed=True)
        replica = client.endpoint.name
    equal = {n for n, w in lake.items() if n in here and (here[n].rows, here[n].hash) == (w.rows, w.hash)}
    if lake and not equal:
        if until_us is None:
            raise OffloadError(
                ADOPT_REFUSED,
                "ClickHouse holds no window of it with the same rows, so nobody knows up to when it is complete",
                table=spec.identity,
            )
        # nothing says that it came from this source: what the source lacks was not deleted there
        short = {n for n, w in lake.items() if n not in here or here[n].rows < w.rows}
        windows |= {n: replace(windows[n], expiry_us=EXPIRED_LONG_AGO) for n in short}
        notes = (*notes, f"no window equals ClickHouse's; {len(short)} of which it holds fewer rows are never replaced")
    safe = now + ctx.settings.job_timeout_s * 1_000_000 + EXPIRY_MARGIN_US
    rules = Rules(
        grid=grid,
        fingerprint=projection.fingerprint,
        # what a first run makes of rows that the source lacks, it alone can see (rule 18)
        follow_deletes=False,
        safe_until_us=safe if expiry.readable and not source.ttl_group_by else None,
    )
    cells = tuple(Cell(w.window, (), w.rows, w.hash, w.expiry_us) for w in here.values())
    extent = Extent(now, replica, (below,), cells, None, 0, 0, 0)
    shipped = {n: LedgerWindow(w, projection.fingerprint) for n, w in windows.items()}
    decision = decide(extent, (), shipped, [below], rules)
    horizon = grid.floor(settled - spec.horizon_us)
    found = _grouped(windows, here, equal, decision, horizon, grid)
    return _Seen(source, projection, replica, now, border, tuple(windows.values()), found, notes)


def _fits(changes: Iterable[SchemaChange], spec: TableSpec, table: Table) -> tuple[str, ...]:
    """What differs and harms nothing, one line each. Raises OFL-302 for anything else.

    A column that the source lacks may stay when it may be NULL: `schema accept` takes it, once the table is adopted.
    """
    required = {f.name for f in table.schema().fields if f.required}
    changes = tuple(changes)
    kept = [c for c in changes if c.kind is ChangeKind.DROPPED and c.column not in required]
    bad = [c for c in changes if c.kind not in HARMLESS and c not in kept]
    if bad:
        said = "; ".join(f"{c.kind}: {c.column}: Iceberg {c.iceberg}, wanted {c.wanted}" for c in bad)
        raise OffloadError(TARGET_SCHEMA_DISAGREES, said, table=spec.identity)
    notes = [str(c) for c in changes]
    if any(c.verdict is Verdict.ACCEPT and c.kind is not ChangeKind.SORT for c in kept):
        notes.append(f"after the adoption: bin/offload schema accept {spec.identity}")
    return tuple(notes)


def _no_null_cursor(client: Client, spec: TableSpec, table: Table) -> None:
    """A row without a cursor is in no window: nothing could say of it whether it was shipped."""
    if table.schema().find_field(spec.cursor).required:
        return
    ((rows,),) = client.query(f"SELECT count() FROM {lake_source(table)} WHERE isNull({quote(spec.cursor)})")
    if int(rows):
        raise OffloadError(
            ADOPT_REFUSED, f"{rows} of its rows have no {spec.cursor}, and so belong to no window", table=spec.identity
        )


def _query(spec: TableSpec, projection: Projection, expiry: Expiry) -> ExtentQuery:
    return ExtentQuery(
        database=spec.source.database,
        table=spec.source.table,
        cursor=spec.cursor,
        sequence=None,
        final=spec.source.final,
        grid=Grid(spec.window_us),
        projection=projection,
        partition=(),
        expiry=expiry.strict,
    )


def _border(
    lake: Mapping[int, WindowState], until_us: int | None, settled_us: int, grid: Grid, spec: TableSpec
) -> int | None:
    """Where appending begins: the end of the window in which the history ends. Raises OFL-314.

    That window may hold only a part of its rows in the lake: it counts as shipped with what is there, and the rest is
    the difference that reconcile sees.
    """
    last = grid.span(max(lake)).hi if lake else None
    border = last if until_us is None else grid.ceil(until_us)
    if border is None:
        return None
    beyond = {n: w.rows for n, w in lake.items() if grid.span(n).hi > border}
    if beyond:
        raise OffloadError(
            ADOPT_REFUSED,
            f"{sum(beyond.values())} of its rows, in {len(beyond)} windows, lie at or after {_text(border)} and would"
            f" be written twice; its last row is before {_text(grid.span(max(beyond)).hi)}",
            table=spec.identity,
        )
    if border > settled_us:
        raise OffloadError(
            ADOPT_REFUSED,
            f"windows before {_text(border)} are not settled, only those before {_text(settled_us)}; stop what writes"
            " the table, and wait",
            table=spec.identity,
        )
    return border


def _below(
    client: Client,
    query: ExtentQuery,
    lake: Mapping[int, WindowState],
    border_us: int | None,
    spec: TableSpec,
    grid: Grid,
) -> Span:
    """The cursor time before the border in which the two sides are compared; empty when neither holds a row there."""
    if border_us is None:
        return Span(0, 0)
    oldest = min_cursor_us(client, query)
    begins = [grid.span(min(lake)).lo] if lake else []
    begins += [grid.floor(oldest)] if oldest is not None else []
    lo = min(begins, default=border_us)
    if spec.start_us is not None:
        # rows from before the start are never offloaded, whatever of them the lake holds
        lo = max(lo, grid.floor(spec.start_us))
    return Span(min(lo, border_us), border_us)


def _grouped(
    lake: Mapping[int, WindowState],
    here: Mapping[int, WindowState],
    equal: Iterable[int],
    decision: Decision,
    horizon_us: int,
    grid: Grid,
) -> tuple[Found, ...]:
    groups = dict.fromkeys(equal, Group.EQUAL)
    for planned in decision.windows:
        again = grid.span(planned.window).lo >= horizon_us
        groups[planned.window] = Group.NEXT if again else Group.BY_HAND
    for left in decision.left:
        groups[left.window] = Group.STAYS if left.rows else Group.ALONE
    out = []
    for group in Group:
        numbers = sorted(n for n, g in groups.items() if g is group)
        if numbers:
            out.append(
                Found(
                    group=group,
                    windows=len(numbers),
                    lake_rows=sum(lake[n].rows for n in numbers if n in lake),
                    source_rows=sum(here[n].rows for n in numbers if n in here),
                    from_us=grid.span(numbers[0]).lo,
                    to_us=grid.span(numbers[-1]).hi,
                )
            )
    return tuple(out)


def _text(us: int) -> str:
    return f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}"


# ---- writing ---------------------------------------------------------------------------------------------------------


def _freeze(ctx: Context, spec: TableSpec, table: Table, seen: _Seen, known: Head | None) -> tuple[Head, Plan]:
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
    ctx: Context, spec: TableSpec, table: Table, seen: _Seen, looked: Adoption, plan: Plan, marker: Marker
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
