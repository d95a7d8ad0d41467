"""What `check_extent` takes from the look before and leaves to the next: the metrics of a table whose runs may fail,
when its unshipped rows expire, and whether some have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low

from include.offload.context import Context
from include.offload.ledger import looks
from include.offload.ledger.looks import Look, Remembered
from include.offload.ledger.store import Head
from include.offload.losses import Evidence, expired_unshipped, gone
from include.offload.model import Extent, Plan, earliest
from include.offload.source.client import Client
from include.offload.source.extent import ExtentQuery, first_expiry_us
from include.offload.spec.model import TableSpec
from include.offload.windows import Grid, Span


def remind(ctx: Context, spec: TableSpec, known: Remembered | None) -> None:
    """Send again what is known: an exporter that was restarted forgot it, and while runs fail nobody else says it."""
    if known is None:
        return
    look = known.look
    ctx.metrics.remembered(
        spec.identity,
        watermark_us=known.watermark_us,
        last_success_us=known.last_success_us,
        first_expiry_us=known.first_expiry_us,
        looked=look is not None,
        mismatched_windows=sum(x.differs for x in look.left) if look else 0,
        late_beyond_horizon=look.late_rows if look else 0,
        late_unknown=look.late_unknown if look else 0,
    )
    ctx.metrics.verified(spec.identity, known.found.differing)
    ctx.metrics.lost(spec.identity, known.found.lost)
    guard = known.guard
    ctx.metrics.guarded(
        spec.identity,
        stopped=guard is not None and not guard.refused,
        refused=guard is not None and guard.refused,
    )


def unshipped_expiry(client: Client, query: ExtentQuery, head: Head | None) -> int | None:
    """The first expiry of a row that is not behind the watermark, µs UTC; None: none expires."""
    start = None if head is None else head.watermark_us if head.watermark_us is not None else head.origin_us
    return None if start is None else first_expiry_us(client, query, start)


def still_unshipped(
    ctx: Context, past: Remembered | None, known: Head, unshipped_us: int | None, ttl: str, now_us: int
) -> int | None:
    """Keep when the first unshipped row expires, and whether one that was seen has; how long rows live, None: unknown.

    ttl: the source's TTL as it is now. Under another one what an earlier look saw says nothing.
    """
    look = past.look if past is not None else None
    same_ttl = look is not None and look.ttl == ttl
    ttl_us = look.ttl_us if look is not None and same_ttl else None
    seen_us = past.seen_expiry_us if past is not None else None
    went_us = gone(seen_us, unshipped_us, now_us, same_ttl=same_ttl)
    looks.save_expiry(ctx.ledger, known.table_id, unshipped_us, ttl_us, went_us)
    return ttl_us


def before_this(past: Remembered | None, look: Look, ttl_us: int | None, *, exact: bool) -> Evidence | None:
    """What the ledger knew of rows that may have expired unshipped; None when nobody acts on it, or none expires.

    ttl_us: how long rows live by a look under the same TTL; exact: whether the TTL has no condition.
    """
    if past is None:
        return None
    other_ttl = past.look is not None and past.look.ttl != look.ttl
    return Evidence({}, look.gone_us, ttl_us, past.met_us or 0, exact, other_ttl)


def lost_windows(
    ctx: Context,
    known: Evidence | None,
    extent: Extent,
    append: Sequence[Span],
    grid: Grid,
    heads: tuple[Head | None, Head],
    seen_us: int | None,
) -> dict[int, int]:
    """As `losses.expired_unshipped`. Plans that never landed are asked only when a row that they saw may have expired.

    seen_us: the first expiry of the unshipped rows at the look before; heads: before and after this run adopted what
    had landed unseen: a row that is gone may be among that.
    """
    if known is None or not append:
        return {}
    was, head = heads
    gone_us, ttl_us = known.gone_us, known.ttl_us
    moved = was is None or was.watermark_us != head.watermark_us
    if gone_us is not None and head.watermark_us is not None and moved:
        gone_us = gone_us if ttl_us is not None and gone_us - ttl_us >= head.watermark_us else None
    begun = known.gone_us is not None or known.other_ttl or (seen_us is not None and seen_us <= extent.now_us)
    said = ctx.ledger.said(head, grid, append) if begun else {}
    return expired_unshipped(extent.windows(), append, grid, extent.now_us, replace(known, said=said, gone_us=gone_us))


def remember(look: Look, extent: Extent, plan: Plan, unshipped_us: int | None, *, asked: bool) -> Look:
    """The look with what this run's extent and plan add to it. asked: somebody named a range."""
    start = plan.watermark_before if plan.watermark_before is not None else plan.origin_us
    # from there on `unshipped_us` counts; of late rows it is not asked whether a condition of their TTL holds
    late = [w for w in plan.windows if start is not None and w.window * plan.width_us < start]
    return replace(
        look,
        # what a range mends is counted again by the next run
        surveyed_us=0 if asked else look.surveyed_us,
        rows_before_start=extent.rows_before_start,
        rows_in_future=extent.rows_in_future,
        first_expiry_us=earliest(unshipped_us, extent.tail_expiry_us, *(w.expiry_us for w in late)),
        next_expiry_us=extent.tail_expiry_us,
        unshipped_us=earliest(unshipped_us, extent.tail_expiry_us),
        # a run that looks from the watermark on has said what is lost
        gone_us=None if not asked and start is not None and plan.scan.contains(start) else look.gone_us,
        ttl_us=_usual_ttl(extent) or look.ttl_us,
    )


def _usual_ttl(extent: Extent) -> int | None:
    """How long the rows of most windows live, µs; None: no row here expires.

    The median: one row that came with an old TTL column, or none, does not speak for those to come.
    """
    found = [c.ttl_us for c in extent.cells if c.ttl_us is not None and c.ttl_us > 0]
    return median_low(found) if found else None
