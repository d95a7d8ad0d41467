"""What changed in the source behind our back: rows that went without a delete, and rows that came too late.

Rule 18: what expired, or went with its partition, must never be erased from the lake. The source can't be asked about
rows that it no longer has, so each look is compared with the one before: blocks that are in no part any more, another
TTL, a TTL that was applied to old rows. Windows that have lost rows at such a moment are never replaced again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.errors import RANGE_REFUSED, SOURCE_COLUMN_MISSING, SOURCE_QUERY_FAILED, OffloadError
from include.offload.ledger import looks
from include.offload.ledger.looks import Look
from include.offload.ledger.store import Head
from include.offload.model import EXPIRED_LONG_AGO, SourceTable, WindowState, earliest
from include.offload.planning import Leave, LedgerWindow, Left
from include.offload.source.client import Client
from include.offload.source.expressions import check_expression
from include.offload.source.extent import ExtentQuery, read_survey
from include.offload.source.parts import (
    Parts,
    deletes_since,
    lost,
    materialized_us,
    read_parts,
    ttl_text,
)
from include.offload.source.sql import WINDOW, spans_sql, window_sql
from include.offload.spec.model import TableSpec
from include.offload.verify import lake_hash, lake_source
from include.offload.windows import ALL_TIME, Span, from_us, merge

log = logging.getLogger(__name__)

MAX_PROOFS = 1_000
"""Of how many windows at most it is asked whether they lost rows; more are protected unasked."""
MAX_PROOF_ROWS = 5_000_000
"""And of how many rows at most the lake's hashes are held in ClickHouse's memory once an hour: some hundred MB."""


@dataclass(frozen=True, slots=True)
class LookBack:
    """What to remember of this look. `expiries`: µs per shipped window, where the ledger's is wrong by now.

    `before`: the look that it was compared with. `lost`: rows went without a delete since, for sure. `doubted`: this
    replica may lack what it has not fetched yet, so the expiries are for this run only. `keep`: whether the look is to
    be remembered; a first one that is doubted is not.
    """

    look: Look
    parts: Parts
    before: Look | None = None
    lost: bool = False
    expiries: Mapping[int, int] = field(default_factory=dict)
    doubted: bool = False
    keep: bool = True

    @property
    def lasting(self) -> Mapping[int, int]:
        """The expiries that are to stay in the ledger."""
        return {} if self.doubted else self.expiries

    def corrected(self, shipped: Mapping[int, LedgerWindow]) -> dict[int, LedgerWindow]:
        """The ledger's windows with the corrected expiries."""
        return {
            n: replace(w, state=replace(w.state, expiry_us=self.expiries.get(n, w.state.expiry_us)))
            for n, w in shipped.items()
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What the questions of one look share. `now_us`: ClickHouse's clock, µs UTC."""

    ctx: Context
    client: Client
    spec: TableSpec
    query: ExtentQuery
    head: Head
    now_us: int
    delay_s: int
    """How far this replica is behind, seconds (`absolute_delay`); 0 for a table without replicas."""


def look_back(asked: Asked, source: SourceTable, table: Table | None, *, safe_until_us: int | None) -> LookBack:
    """Compare the source with the last look at it. Call it after the extent was read: what went before is seen.

    safe_until_us: as `planning.Rules`. Raises OFL-2xx, 5xx.
    """
    ctx, client, spec, now_us = asked.ctx, asked.client, asked.spec, asked.now_us
    known = looks.load(ctx.ledger, asked.head.table_id)
    parts = read_parts(client, spec.source.database, spec.source.table)
    ttl = ttl_text(source, spec)
    applied = materialized_us(client, spec.source.database, spec.source.table)
    gone = () if known is None else lost(known.blocks, parts.blocks, now_us)
    other_ttl = known is not None and (ttl != known.ttl or applied > known.materialized_us)
    expiries: dict[int, int] = {}
    # without a look to compare with, whatever is missing went unseen
    if known is None or gone or other_ttl:
        log.info("%s: %d blocks went, TTL %s", spec.identity, len(gone), "changed" if other_ttl else "unchanged")
        expires = asked.query.expiry is not None or safe_until_us is None
        expiries = _protected(asked, known, table, other_ttl=other_ttl, expires=expires)
    # how long rows lived under another TTL says nothing of this one
    ttl_us = known.ttl_us if known is not None and known.ttl == ttl else None
    here = client.endpoint.name
    look = replace(
        known or Look(now_us, (), ""),
        seen_us=now_us,
        blocks=parts.blocks,
        ttl=ttl,
        ttl_us=ttl_us,
        materialized_us=applied if known is None else max(applied, known.materialized_us),
        replica=here,
        doubted_by="",
        missing=(),
        compared_us=now_us,
    )
    doubted = bool(expiries) and not _sure(asked, known)
    if doubted:
        log.warning("%s: %s may lack data yet; what is missing there is not final", spec.identity, here)
    if doubted and known is not None:
        look = replace(
            look,
            blocks=known.blocks,
            ttl=known.ttl,
            materialized_us=known.materialized_us,
            replica=known.replica,
            doubted_by=here if not asked.delay_s else "",
            missing=gone,
            compared_us=known.compared_us or known.seen_us,
        )
    lost_rows = not doubted and known is not None and (bool(gone) or other_ttl)
    return LookBack(look, parts, known, lost_rows, expiries, doubted, keep=not doubted or known is not None)


def _sure(asked: Asked, known: Look | None) -> bool:
    """Whether what is missing on this replica is gone (rule 9): it is not behind, and it is the one of the last look,
    or had the time of a run to fetch what that one had."""
    here = asked.client.endpoint.name
    return not asked.delay_s and (known is None or here in (known.replica or here, known.doubted_by))


def parts_went(
    ctx: Context, client: Client, spec: TableSpec, table_id: int, now_us: int, *, remember: bool = True
) -> bool:
    """Whether blocks went since the last look, seen while a job reads. remember: new ones, as of the look's replica."""
    parts = read_parts(client, spec.source.database, spec.source.table)
    known = looks.add_blocks(ctx.ledger, table_id, parts.blocks) if remember else looks.load(ctx.ledger, table_id)
    # those that were missing when the plan was made are in no window that it replaces
    return known is not None and not set(lost(known.blocks, parts.blocks, now_us)) <= set(known.missing)


def ttl_moved(ctx: Context, client: Client, source: SourceTable, spec: TableSpec, table_id: int) -> bool:
    """Whether the source's TTL is another than at the last look, or was applied to old rows since."""
    known = looks.load(ctx.ledger, table_id)
    if known is None:
        return False
    applied = materialized_us(client, spec.source.database, spec.source.table)
    return ttl_text(source, spec) != known.ttl or applied > known.materialized_us


def _protected(
    asked: Asked, known: Look | None, table: Table | None, *, other_ttl: bool, expires: bool
) -> dict[int, int]:
    """New expiries: of the windows that lost rows, and under another TTL of all the others.

    Without a look to compare with, as after a rebuild, a window with as many rows as ever was changed, not emptied,
    where nothing expires.
    """
    shipped, _ = asked.ctx.ledger.windows(asked.head, asked.query.grid, [ALL_TIME])
    shipped = {n: w for n, w in shipped.items() if w.state.expiry_us is None or w.state.expiry_us > asked.now_us}
    if not shipped:
        return {}
    grid = asked.query.grid
    whole = Span(grid.span(min(shipped)).lo, grid.span(max(shipped)).hi)
    found = read_survey(asked.client, asked.query, [whole], hashed=True)
    suspects: list[int] = []
    expiries: dict[int, int] = {}
    for number, window in shipped.items():
        now = found.get(number, WindowState(number, 0, 0))
        comparable = window.fingerprint == asked.query.projection.fingerprint
        other = now.rows != window.state.rows or (comparable and now.hash != window.state.hash)
        if now.rows < window.state.rows or (other and (known is not None or expires)):
            suspects.append(number)
        if other_ttl and now.expiry_us is not None:
            expiries[number] = min(now.expiry_us, window.state.expiry_us or now.expiry_us)
    whole_windows: set[int] = set()
    if table is not None and len(suspects) <= MAX_PROOFS:
        proven = [n for n in suspects if shipped[n].fingerprint == asked.query.projection.fingerprint]
        whole_windows = still_whole(asked.client, asked.spec, asked.query, known, table, proven)
    return expiries | {n: EXPIRED_LONG_AGO for n in suspects if n not in whole_windows}


def still_whole(
    client: Client, spec: TableSpec, query: ExtentQuery, known: Look | None, table: Table, numbers: Sequence[int]
) -> set[int]:
    """The windows of which ClickHouse still has every row of the lake, but for those that deletes name.

    ClickHouse looks for each row of the lake by its hash. Deletes count when the spec follows them, and only those
    since the last look: the ones before it were seen.
    """
    if not numbers:
        return set()
    source = spec.source
    spans = list(merge(query.grid.span(n) for n in numbers))
    named = ""
    if spec.deletes == "follow" and known is not None:
        ordered = deletes_since(client, source.database, source.table, known.compared_us or known.seen_us)
        named = "".join(f" AND ifNull(({c}), 0) = 0" for c in ordered if _repeatable(c))
    row = lake_hash(query.projection.columns)
    sql = (
        f"SELECT DISTINCT {window_sql(query.cursor, query.grid.width_us)} FROM {lake_source(table)}"
        f" WHERE {spans_sql(query.cursor, spans)}{named} AND {row} NOT IN"
        f" (SELECT {query.projection.hash_sql} FROM {query.source} WHERE {spans_sql(query.cursor, spans)})"
    )
    missing = _beside_the_lake(client, sql)
    return set() if missing is None else set(numbers) - {int(w) for (w,) in missing}


def _repeatable(condition: str) -> bool:
    try:
        check_expression(condition)
    except ValueError:
        return False
    return True


def survey(
    asked: Asked,
    back: LookBack,
    left: Sequence[Left],
    table: Table | None,
    *,
    horizon_lo: int,
    safe_until_us: int | None,
) -> LookBack:
    """Count the rows below the watermark that the lake does not have and that no run ships by itself, once an hour.

    Older than the horizon those are the rows of a window that was never shipped, and what a shipped one has more.
    Where a window has fewer rows than were shipped, late ones hide behind those that went: each is looked for in the
    lake by its hash, for MAX_PROOFS windows and MAX_PROOF_ROWS rows, the newest first; the rest is said to be unknown.
    left: what the plan leaves alone. horizon_lo, safe_until_us: as for `look_back`. Raises OFL-2xx, 5xx.
    """
    if asked.now_us - back.look.surveyed_us < asked.ctx.settings.survey_every_s * 1_000_000:
        return back
    head, grid = asked.head, asked.query.grid
    none = replace(
        back.look,
        surveyed_us=asked.now_us,
        late_rows=0,
        late_windows=0,
        late_expiring=0,
        late_unknown=0,
        late_from_us=None,
        late_to_us=None,
    )
    if head.origin_us is None or head.watermark_us is None:
        return replace(back, look=none)
    shipped, _ = asked.ctx.ledger.windows(head, grid, [Span(head.origin_us, head.watermark_us)])
    shipped = back.corrected(shipped)
    below = Span(head.origin_us, max(head.origin_us, min(horizon_lo, head.watermark_us)))
    found = {} if below.empty else read_survey(asked.client, asked.query, [below])
    late = {
        n: state.rows - (shipped[n].state.rows if n in shipped else 0)
        for n, state in found.items()
        # a window that a range left pending is neither shipped nor verified empty
        if n not in shipped or state.rows > shipped[n].state.rows
    }
    stuck = {x.window for x in left if 0 < x.rows <= x.ledger_rows and x.reason is not Leave.UNKNOWN}
    fewer = {n for n, state in found.items() if n in shipped and state.rows < shipped[n].state.rows}
    hidden = _not_in_lake(asked, table, {n: shipped[n] for n in (stuck | fewer) & shipped.keys()})
    late |= {n: rows for n, rows in hidden.items() if rows}

    def stays(number: int) -> bool:
        if number not in shipped or number in stuck:
            return number in stuck
        if number in fewer and asked.spec.deletes == "keep":
            return True
        expiry = earliest(found[number].expiry_us, shipped[number].state.expiry_us)
        return safe_until_us is None or (expiry is not None and expiry <= safe_until_us)

    look = replace(
        none,
        late_rows=sum(late.values()),
        late_windows=len(late),
        late_expiring=sum(rows for n, rows in late.items() if stays(n)),
        late_unknown=len((stuck | fewer) & shipped.keys() - hidden.keys()),
        late_from_us=grid.span(min(late)).lo if late else None,
        late_to_us=grid.span(max(late)).hi if late else None,
    )
    return replace(back, look=look)


def _not_in_lake(asked: Asked, table: Table | None, windows: Mapping[int, LedgerWindow]) -> dict[int, int]:
    """How many rows of ClickHouse the lake does not have, by content hash; windows of which that is unknown are not in
    it: too many, or shipped with other columns, or ClickHouse can't read the lake. A row that was changed counts."""
    query = asked.query
    chosen: list[int] = []
    rows = 0
    for number in sorted(windows, reverse=True):
        rows += windows[number].state.rows
        if len(chosen) == MAX_PROOFS or rows > MAX_PROOF_ROWS:
            break
        if windows[number].fingerprint == query.projection.fingerprint:
            chosen.append(number)
    if table is None or not chosen:
        return {}
    spans = spans_sql(query.cursor, list(merge(query.grid.span(n) for n in chosen)))
    sql = (
        f"SELECT {window_sql(query.cursor, query.grid.width_us)} AS {WINDOW}, count() FROM {query.source}"
        f" WHERE {spans} AND {query.projection.hash_sql} NOT IN"
        f" (SELECT {lake_hash(query.projection.columns)} FROM {lake_source(table)} WHERE {spans}) GROUP BY {WINDOW}"
    )
    found = _beside_the_lake(asked.client, sql)
    return {} if found is None else dict.fromkeys(chosen, 0) | {int(w): int(n) for w, n in found}


def _beside_the_lake(client: Client, sql: str) -> list[tuple[Any, ...]] | None:
    """A question about rows of the source and of the lake; None when ClickHouse can't read the lake. Raises OFL-2xx."""
    try:
        return client.query(sql)
    except OffloadError as error:
        if error.kind not in (SOURCE_QUERY_FAILED, SOURCE_COLUMN_MISSING, RANGE_REFUSED):
            raise
        log.warning("rows of ClickHouse and of the lake can't be held against each other: %s", error.cause)
        return None


def late_note(look: Look, table: str) -> str | None:
    """What the log and `status` say of rows that came later than the horizon; None when there are none."""
    unknown = (
        f"{look.late_unknown} windows hold fewer rows than were shipped; whether late ones are among them was not"
        f" looked into (at most {MAX_PROOFS:,} windows and {MAX_PROOF_ROWS:,} rows, of today's columns)"
        if look.late_unknown
        else None
    )
    if not look.late_rows or look.late_from_us is None or look.late_to_us is None:
        return unknown
    lo, hi = (f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}" for us in (look.late_from_us, look.late_to_us))
    lines = f"{look.late_rows} rows in {look.late_windows} windows came later than the horizon and are not in the lake"
    if look.late_expiring == look.late_rows:
        lines += "; they can't be shipped any more: their windows are expiring, or lost other rows that the lake keeps"
    else:
        stuck = f" ({look.late_expiring} of them can't be shipped any more)" if look.late_expiring else ""
        lines += f"{stuck}: bin/offload reconcile {table} --from {lo} --to {hi}"
    return lines if unknown is None else f"{lines}; {unknown}"
