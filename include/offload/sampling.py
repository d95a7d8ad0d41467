"""Verification as a habit: which windows a verification by schedule looks at, and what is no alarm beside an offload.

Those that were never compared come first, the oldest before all since they expire first; then those whose last
comparison is longest ago. So every window that is there is seen within `rounds` verifications, however many of them
were missed in between: the ledger knows what was seen, no calendar does. The newest window is always among them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil

from include.offload.context import Context
from include.offload.errors import VERIFY_FAILED, OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.ledger import verified
from include.offload.ledger.store import Head
from include.offload.ledger.verified import Candidate
from include.offload.spec.model import TableSpec
from include.offload.verify import MAX_HOLES, Difference, Reading, VerifyReport, few, read_both, record
from include.offload.windows import Grid, Span, merge, subtract

log = logging.getLogger(__name__)

LANDINGS = 2
"""How often a verification reads again because a run landed meanwhile."""
NEVER = datetime.min.replace(tzinfo=UTC)


def share_of(sample: str | int, windows: int) -> int:
    """How many of so many windows a verification looks at, beside the newest."""
    if sample == "full":
        return windows
    if isinstance(sample, int):
        return min(sample, windows)
    return ceil(windows * int(sample.removesuffix("%")) / 100)


def rounds(sample: str | int, windows: int) -> int:
    """After how many verifications all of so many windows were seen."""
    return ceil(windows / max(1, share_of(sample, windows)))


def choose(known: Sequence[Candidate], sample: str | int, now_us: int, end_us: int) -> tuple[Span, ...]:
    """The time that a verification looks at, as at most `MAX_HOLES` spans; none when nothing is left to compare.

    known: the shipped windows in order; end_us: the watermark. With a window goes the empty time after it.
    """
    ends = [*(c.lo for c in known[1:]), end_us]
    left = [(c, Span(c.lo, max(c.lo, hi))) for c, hi in zip(known, ends, strict=False) if not _gone(c, now_us)]
    if not left:
        return ()
    if sample == "full":
        return merge(span for _, span in left)
    # what differed is looked at again until somebody mended it
    by_need = sorted(left, key=lambda x: (x[0].equal is not False, x[0].verified_at or NEVER, x[0].lo))
    chosen = {span for _, span in by_need[: share_of(sample, len(left))]} | {left[-1][1]}
    return few(merge(chosen), [span.lo for _, span in left if span not in chosen], MAX_HOLES)


def _gone(c: Candidate, now_us: int) -> bool:
    return c.expiry_us is not None and c.expiry_us <= now_us


def verify_sample(ctx: Context, spec: TableSpec) -> VerifyReport | None:
    """Compare what the spec's sample chooses, record it; None when there is nothing to compare yet, or any more.

    A difference that the next run of the offload mends by itself is no finding: of a window within the horizon whose
    rows in the lake are those that were shipped, and of which ClickHouse has more or other ones by now. Such windows
    are not recorded, and so come first the next time. When a run landed meanwhile, both are read again.
    """
    head = ctx.ledger.head(spec.identity)
    if head is None or head.watermark_us is None or head.origin_us is None:
        return None
    with ctx.connect(spec, f"offload verify {spec.identity}") as client:
        now_us = client.now_us()
    chosen = choose(verified.candidates(ctx.ledger, head.table_id), spec.verify.sample, now_us, head.watermark_us)
    if not chosen:
        return None
    waiting: set[Span] = set()
    landings = 0
    while True:
        wanted = [part for s in chosen for part in subtract(s, waiting)]
        leave = () if spec.verify.sample == "full" and not waiting else tuple(subtract(_whole(head), wanted))
        reading = read_both(ctx, spec, None, None, leave)
        if reading.report.ok:
            break
        if landings < LANDINGS and _landed(ctx, spec, reading):
            landings += 1
            log.info("verify %s: a run landed meanwhile, reading again", spec.identity)
            continue
        new = {d.span for d in reading.report.differences if mends_itself(spec, reading, d)}
        waiting |= new
        if not new:
            break
        log.info("verify %s: left to the next run of the offload: %s", spec.identity, ", ".join(map(str, sorted(new))))
    return record(ctx, spec, reading)


def _whole(head: Head) -> Span:
    assert head.origin_us is not None and head.watermark_us is not None  # noqa: S101 - asked before
    return Span(min(head.origin_us, head.watermark_us), head.watermark_us)


def mends_itself(spec: TableSpec, reading: Reading, difference: Difference) -> bool:
    """Whether a difference is a change in ClickHouse that reconcile ships with the next run (rule 9)."""
    window = Grid(spec.window_us).number(difference.span.lo)
    shipped = reading.shipped.get(window)
    untouched = (
        shipped is not None
        and shipped.fingerprint == reading.fingerprint
        and (shipped.state.rows, shipped.state.hash) == (difference.lake.rows, difference.lake.hash)
    )
    grown = difference.source.rows >= difference.lake.rows or spec.deletes == "follow"
    return untouched and grown and difference.span.lo >= reading.now_us - spec.horizon_us


def _landed(ctx: Context, spec: TableSpec, reading: Reading) -> bool:
    """Whether a plan landed since the reading began: what was read may be of two states."""
    head = ctx.ledger.head(spec.identity)
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    marker = None if table is None else table.properties.get(f"{markers.PREFIX}plan")
    return head is None or head.plan_id != reading.head.plan_id or marker != reading.marker


def must_be_equal(report: VerifyReport) -> None:
    """Raises OFL-409 for a report of a difference."""
    if not report.ok:
        raise OffloadError(VERIFY_FAILED, "; ".join(report.findings()[:5]), table=report.table)
