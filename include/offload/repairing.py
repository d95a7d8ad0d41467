"""Repair: which window somebody means, and whether the whole adds up again once it was replaced."""

from __future__ import annotations

from include.offload.context import Context
from include.offload.errors import RANGE_REFUSED, OffloadError
from include.offload.lake.catalog import find_table
from include.offload.ledger import findings
from include.offload.ledger.findings import Finding, Kind
from include.offload.spec.model import TableSpec
from include.offload.verify import totals
from include.offload.windows import ALL_TIME, Grid, Span


def window_at(ctx: Context, spec: TableSpec, moment_us: int) -> Span:
    """The offloaded window that holds an instant (µs UTC). Raises OFL-407 for one that was not offloaded."""
    grid = Grid(spec.window_us)
    span = grid.span(grid.number(moment_us))
    head = ctx.ledger.head(spec.identity)
    if head is None or head.watermark_us is None:
        raise OffloadError(RANGE_REFUSED, "nothing was offloaded yet", table=spec.identity)
    shipped, empty = ctx.ledger.windows(head, grid, [span])
    if span.hi > head.watermark_us or not (shipped or any(e.overlaps(span) for e in empty)):
        raise OffloadError(
            RANGE_REFUSED, f"{span} was not offloaded: there is nothing to repair in it", table=spec.identity
        )
    return span


def recount(ctx: Context, spec: TableSpec) -> int | None:
    """How many windows are known to differ, now that all rows were counted again; None while a run lands.

    Rows that somebody added to a window were rows too many of the whole as well: with the window that finding goes.
    """
    head = ctx.ledger.head(spec.identity)
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    if head is None or table is None:
        return None
    lake, shipped = totals(ctx, spec, head, table)
    if lake is None:
        return None
    found = [] if lake == shipped else [Finding(Kind.TOTAL, ALL_TIME, 1)]
    known = findings.compared(ctx.ledger, head.table_id, Grid(spec.window_us), {Kind.TOTAL: (ALL_TIME,)}, found)
    ctx.metrics.verified(spec.identity, known)
    return known
