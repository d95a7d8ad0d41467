"""What an operator does when the pipeline refuses to go on by itself.

Rebuild, set main back, forget, take over, accept a source.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.crashpoint import reached
from include.offload.errors import (
    COMMIT_UNKNOWN,
    PLAN_UNKNOWN,
    TARGET_CHANGED,
    TARGET_FOREIGN,
    TARGET_MISSING,
    TARGET_STILL_THERE,
    TARGET_WITHOUT_MARKER,
    OffloadError,
)
from include.offload.lake import mainline
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table, target_of
from include.offload.lake.commit import plant
from include.offload.lake.evolution import in_lake_order, project_onto
from include.offload.lake.mainline import Undoing
from include.offload.lake.marker import Marker
from include.offload.lake.reach import reaching
from include.offload.ledger import looks
from include.offload.ledger.accounting import Entry
from include.offload.ledger.restore import forget as forget_shipped
from include.offload.ledger.restore import restore, set_pipeline
from include.offload.ledger.store import Landed
from include.offload.model import EXPIRED_LONG_AGO, Plan, WindowState, earliest
from include.offload.source.client import Client
from include.offload.source.describe import describe
from include.offload.source.projection import partition_columns
from include.offload.source.ttl import Expiry, expiry_sql
from include.offload.spec.model import TableSpec
from include.offload.verify import lake_expiries, lake_windows, source_rows
from include.offload.windows import ALL_TIME, Grid, Span, merge, subtract

log = logging.getLogger(__name__)

GENERATION_STEP = 1_000
"""How far a rebuild lifts the generation, so that no forgotten plan's number ever comes back (rule 22)."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found and set. Instants µs UTC."""

    table: str
    windows: int
    rows: int
    watermark_us: int | None
    generation: int
    snapshot_id: int
    plan_id: uuid.UUID

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.windows} windows with {self.rows} rows from Iceberg, generation {self.generation},"
            f" watermark {self.watermark_us} µs; the next run goes on from there"
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """A source identity that is accepted from now on. `kept`: windows that the lake alone still holds whole."""

    table: str
    source_identity: str
    kept: int

    def __str__(self) -> str:
        kept = f"; {self.kept} windows of which it holds fewer rows stay as they are in the lake" if self.kept else ""
        return f"{self.table}: source {self.source_identity} is accepted{kept}"


def accept_source(ctx: Context, spec: TableSpec) -> Accepted:
    """Go on with a source table that was dropped and made again (rule 2). Raises OFL-203 when there is none.

    The lake keeps what it holds: a window of which the new source holds fewer rows is never replaced from it, not even
    when deletes are followed.
    """
    with ctx.connect(spec, f"offload accept-source {spec.identity}") as client:
        identity = describe(client, spec.source.database, spec.source.table, spec.identity).identity
        gone = _fewer(ctx, client, spec)
    ctx.ledger.accept_source(spec.identity, identity, never_replaced=gone, expiry_us=EXPIRED_LONG_AGO)
    head = ctx.ledger.head(spec.identity)
    if head is not None:
        looks.forget(ctx.ledger, head.table_id)
    return Accepted(spec.identity, identity, len(gone))


def _fewer(ctx: Context, client: Client, spec: TableSpec) -> list[Span]:
    """The shipped windows of which the source holds fewer rows than the lake."""
    head = ctx.ledger.head(spec.identity)
    if head is None:
        return []
    grid = Grid(spec.window_us)
    shipped, _ = ctx.ledger.windows(head, grid, [ALL_TIME])
    if not shipped:
        return []
    known = Span(grid.span(min(shipped)).lo, grid.span(max(shipped)).hi)
    now = source_rows(client, spec, known)
    return [grid.span(n) for n in sorted(shipped) if now.get(n, 0) < shipped[n].state.rows]


def take_over(ctx: Context, spec: TableSpec) -> Rebuilt:
    """Make this pipeline the owner of a table that another one wrote, going on at the marker that it left."""
    return rebuild(ctx, spec, foreign=True)


def to_undo(ctx: Context, spec: TableSpec) -> Undoing:
    """What `restore_main` would do, for a look before it. Raises OFL-303, OFL-304, OFL-305, OFL-309."""
    return _undoing(ctx, spec)[1]


def restore_main(ctx: Context, spec: TableSpec, seen: Undoing | None = None) -> Undoing:
    """Set main of the Iceberg table to our last commit: a roll-back, a replacement or a delete of others is undone.

    What others committed since leaves main and is kept by a tag. The ledger needs nothing: it names that snapshot.
    seen: what somebody looked at and said yes to. Raises OFL-306 when the table has changed since, OFL-303, OFL-304,
    OFL-305 when there is nothing to go back to, OFL-309, OFL-404.
    """
    table, what = _undoing(ctx, spec)
    if what.nothing:
        return what
    if seen is not None and (seen.now, seen.then) != (what.now, what.then):
        raise OffloadError(TARGET_CHANGED, f"main moved meanwhile, to snapshot {what.now}", table=spec.identity)
    try:
        mainline.undo(ctx.catalog, table, what)
    except Exception as error:
        # after a request was sent only the table tells what came of it (rule 16)
        now = _undoing(ctx, spec)[1]
        if now.nothing:
            return what
        if isinstance(error, CommitFailedException):
            raise OffloadError(
                TARGET_CHANGED, f"somebody committed meanwhile: {error}"[:500], table=spec.identity
            ) from error
        raise OffloadError(COMMIT_UNKNOWN, f"{type(error).__name__}: {error}"[:500], table=spec.identity) from error
    return what


def _undoing(ctx: Context, spec: TableSpec) -> tuple[Table, Undoing]:
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    if table is None:
        raise OffloadError(TARGET_MISSING, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
    with reaching(spec.identity):
        what = mainline.undoing(table, spec.identity)
    owner = table.properties[f"{markers.PREFIX}pipeline"]
    if owner != str(ctx.pipeline):
        raise OffloadError(TARGET_FOREIGN, f"pipeline {owner} wrote it, this is {ctx.pipeline}", table=spec.identity)
    return table, what


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A table whose accounting begins anew."""

    table: str
    rows: int
    generation: int

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.rows} rows are no longer counted as shipped, generation {self.generation};"
            " the next run makes the Iceberg table again and ships what ClickHouse holds"
        )


def forget(ctx: Context, spec: TableSpec) -> Forgotten:
    """Begin anew with a table whose Iceberg table was dropped on purpose.

    Raises OFL-313 while it is still in the catalog, OFL-401 when the ledger never saw the table.
    """
    if find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity) is not None:
        raise OffloadError(TARGET_STILL_THERE, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
    head = ctx.ledger.head(spec.identity)
    if head is None:
        raise OffloadError(PLAN_UNKNOWN, "the ledger has never seen this table", table=spec.identity)
    shipped, _ = ctx.ledger.windows(head, Grid(spec.window_us), [ALL_TIME])
    generation = head.generation + GENERATION_STEP
    forget_shipped(ctx.ledger, head, generation)
    return Forgotten(spec.identity, sum(w.state.rows for w in shipped.values()), generation)


def rebuild(ctx: Context, spec: TableSpec, *, foreign: bool = False) -> Rebuilt:
    """Restore a table's ledger from Iceberg, and end the chain of every plan made before.

    foreign: take the table over from another pipeline. Raises OFL-303 when it is another's and `foreign` is not set,
    OFL-304 when neither properties nor summaries hold a marker, OFL-309 when there is no table.
    """
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    if table is None:
        raise OffloadError(TARGET_MISSING, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
    marker = _newest(ctx, table, spec)
    if marker.pipeline != ctx.pipeline and not foreign:
        if not set_pipeline(ctx.ledger, marker.pipeline):
            raise OffloadError(
                TARGET_FOREIGN, f"pipeline {marker.pipeline} wrote it, this is {ctx.pipeline}", table=spec.identity
            )
        ctx.__dict__.pop("pipeline", None)
    grid = Grid(spec.window_us)
    with ctx.connect(spec, f"offload rebuild {spec.identity}") as client:
        source = describe(client, spec.source.database, spec.source.table, spec.identity)
        projection = project_onto(spec, source, table)
        expiry = expiry_sql(source, spec)
        found = lake_windows(client, table, spec, projection)
        expiries = expiries_of(client, table, spec, expiry, found)
        partition = in_lake_order(partition_columns(spec, projection), table)
        now = client.now_us()
        expiries = dict(expiries) | _of_another_source(client, table, spec, source.identity, found)
    windows = [WindowState(w.window, w.rows, w.hash, expiries.get(w.window)) for w in found.values()]
    known = ctx.ledger.head(spec.identity)
    began = None if known is None else known.origin_us
    entries, origin = account(windows, marker.watermark_us, spec.start_us, spec.horizon_us, grid, began)
    head = ctx.ledger.register(
        spec.identity,
        cursor=spec.cursor,
        width_us=spec.window_us,
        source=source.identity,
        target=f"{spec.target.namespace}.{spec.target.table}",
        origin_us=origin,
    )
    plan = Plan(
        plan_id=uuid.uuid4(),
        pipeline=ctx.pipeline,
        table=spec.identity,
        run_id=f"rebuild__{int(time.time())}",
        generation=max(marker.generation, known.generation if known else 0) + GENERATION_STEP,
        predecessor=marker.plan,
        source_identity=source.identity,
        replica=client.endpoint.name,
        target=target_of(table),
        projection=projection,
        partition=partition,
        sort=(),
        cursor=spec.cursor,
        cursor_type=next(c.type for c in source.columns if c.name == spec.cursor),
        width_us=spec.window_us,
        append=(),
        scan=Span(0, 0),
        windows=(),
        slices=(),
        origin_us=origin,
        watermark_before=marker.watermark_us,
        watermark_after=marker.watermark_us,
        max_sequence=None,
        spec_json=spec.model_dump_json(),
        created_us=now,
    )
    ctx.ledger.freeze(plan)
    landing = plant(ctx.catalog, table, plan, uuid.uuid4(), marker.watermark_us, marker.retired_us)
    reached("rebuild-planted")
    landed = Landed(str(landing.table.metadata.table_uuid), landing.marker.snapshot_id, landing.marker.sequence_number)
    restore(ctx.ledger, head, plan, entries, projection.fingerprint, landed)
    ctx.ledger.retire(head.table_id, marker.retired_us)
    looks.forget(ctx.ledger, head.table_id)
    return Rebuilt(
        table=spec.identity,
        windows=len(windows),
        rows=sum(w.rows for w in windows),
        watermark_us=marker.watermark_us,
        generation=plan.generation,
        snapshot_id=landing.marker.snapshot_id,
        plan_id=plan.plan_id,
    )


def _newest(ctx: Context, table: Table, spec: TableSpec) -> Marker:
    """The marker of what main holds now: the summaries speak first, as properties survive a roll-back.

    When both are gone, the ledger knows it, should it know this very table (by its UUID), or should the table be empty.
    """
    try:
        marker = markers.recover(table) or markers.parse(table.properties)
    except ValueError as error:
        raise markers.unreadable(error, spec.identity) from error
    if marker is not None:
        return marker
    head = ctx.ledger.head(spec.identity)
    ours = head is not None and head.target_uuid == str(table.metadata.table_uuid)
    if head is None or head.plan_id is None or (table.metadata.snapshots and not ours):
        raise OffloadError(
            TARGET_WITHOUT_MARKER,
            "neither properties nor snapshot summaries hold one, and the ledger never committed to this table",
            table=spec.identity,
        )
    return Marker(
        pipeline=ctx.pipeline,
        source="",
        plan=head.plan_id,
        generation=head.generation,
        attempt=uuid.UUID(int=0),
        watermark_us=head.watermark_us,
        snapshot_id=head.snapshot_id or 0,
        sequence_number=head.sequence_number or 0,
    )


def _of_another_source(
    client: Client, table: Table, spec: TableSpec, identity: str, found: Mapping[int, WindowState]
) -> dict[int, int]:
    """Windows of which the source holds fewer rows than the lake, when a marker names another source (rule 2).

    They get EXPIRED_LONG_AGO, as `accept_source` gives them: a source that was made again has deleted nothing.
    """
    if not found or markers.sources(table) <= {identity}:
        return {}
    grid = Grid(spec.window_us)
    now = source_rows(client, spec, Span(grid.span(min(found)).lo, grid.span(max(found)).hi))
    gone = {n: EXPIRED_LONG_AGO for n, w in found.items() if now.get(n, 0) < w.rows}
    if gone:
        log.warning("%s was shipped from another source; %d windows stay as they are", spec.identity, len(gone))
    return gone


def account(
    windows: Sequence[WindowState],
    watermark_us: int | None,
    start_us: int | None,
    horizon_us: int,
    grid: Grid,
    began_us: int | None = None,
) -> tuple[list[Entry], int | None]:
    """The ledger's entries for what the lake holds, and where accounting begins.

    began_us: where it began so far, None: not known. Time from there on stays accounted for, whatever of it the lake
    lost: what ClickHouse still holds there is shipped, or said to be late.
    Time below the watermark without rows was verified empty once, or the watermark would not stand there. Should
    ClickHouse hold rows there after all, the next run finds them as late ones.
    """
    shipped = [Entry(grid.span(w.window), w) for w in sorted(windows, key=lambda w: w.window)]
    if start_us is not None:
        origin: int | None = grid.floor(start_us)
    else:
        origin = earliest(
            began_us,
            shipped[0].span.lo if shipped else None,
            None if watermark_us is None else grid.floor(watermark_us - horizon_us),
        )
    if origin is None or watermark_us is None:
        return list(shipped), origin
    empty = subtract(Span(min(origin, watermark_us), watermark_us), merge(e.span for e in shipped))
    return [*shipped, *(Entry(s, None) for s in empty)], origin


def expiries_of(client: Client, table: Table, spec: TableSpec, expiry: Expiry, found: Iterable[int]) -> dict[int, int]:
    """The first expiry of each window of the lake; a window whose own can't be told counts as expired long ago."""
    if expiry.readable and expiry.strict is None:
        return {}
    if expiry.strict is not None:
        try:
            return lake_expiries(client, table, spec, expiry.strict)
        except OffloadError as error:
            log.warning("the TTL can't be evaluated on the lake, its windows will not be replaced: %s", error.cause)
    return dict.fromkeys(found, EXPIRED_LONG_AGO)
