"""What an Iceberg table without a marker holds, against what ClickHouse holds: what becomes of each window."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pyiceberg.table import Table

from include.offload.check import EXPIRY_MARGIN_US
from include.offload.context import Context
from include.offload.errors import (
    ADOPT_REFUSED,
    TARGET_SCHEMA_DISAGREES,
    OffloadError,
)
from include.offload.lake.evolution import compare, project_onto
from include.offload.lookback import MAX_PROOFS, still_whole
from include.offload.model import (
    EXPIRED_LONG_AGO,
    Cell,
    ChangeKind,
    Extent,
    Projection,
    SchemaChange,
    SourceTable,
    Verdict,
    WindowState,
)
from include.offload.planning import Decision, LedgerWindow, Rules, decide
from include.offload.recovery import expiries_of
from include.offload.source.client import Client
from include.offload.source.describe import describe
from include.offload.source.expressions import confirm_expressions, expressions_of
from include.offload.source.extent import ExtentQuery, min_cursor_us, read_survey
from include.offload.source.sql import quote
from include.offload.source.ttl import Expiry, expiry_sql
from include.offload.spec.model import TableSpec
from include.offload.verify import lake_source, lake_windows
from include.offload.windows import Grid, Span, from_us

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
class Seen:
    """Both sides, as one look saw them. `windows`: of the lake, with their first expiry."""

    source: SourceTable
    projection: Projection
    replica: str
    now_us: int
    border_us: int | None
    windows: tuple[WindowState, ...]
    found: tuple[Found, ...]
    notes: tuple[str, ...]


def look(ctx: Context, spec: TableSpec, table: Table, until_us: int | None) -> Seen:
    """Read both sides. until_us: as `adopt` has it. Raises OFL-2xx, OFL-302, OFL-314."""
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
        windows |= _protected(client, spec, query, table, windows, here, equal)
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
    return Seen(source, projection, replica, now, border, tuple(windows.values()), found, notes)


def _protected(
    client: Client,
    spec: TableSpec,
    query: ExtentQuery,
    table: Table,
    lake: Mapping[int, WindowState],
    here: Mapping[int, WindowState],
    equal: Iterable[int],
) -> dict[int, WindowState]:
    """Where rows expire: the windows that differ and of which ClickHouse lacks a row, as they are never replaced.

    A run without a look to compare with finds the same (rule 18).
    """
    if query.expiry is None:
        return {}
    suspects = sorted(here.keys() & lake.keys() - set(equal))
    whole = still_whole(client, spec, query, None, table, suspects) if len(suspects) <= MAX_PROOFS else set()
    return {n: replace(lake[n], expiry_us=EXPIRED_LONG_AGO) for n in suspects if n not in whole}


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
