"""What the ledger remembers of the last look at a source, and of TTL merges that were stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import RowMapping, text

from include.offload.ledger import findings
from include.offload.ledger.findings import SUMS, Sum, sum_of
from include.offload.ledger.store import Head, Ledger
from include.offload.limits import SCHEDULE, expires_us
from include.offload.planning import Left
from include.offload.source.parts import Block, lost
from include.offload.windows import Grid, to_us


@dataclass(frozen=True, slots=True)
class Look:
    """What one `check_extent` saw of a source. Instants µs UTC by ClickHouse's clock.

    late_*: rows that are not in the lake and that no run ships by itself, at `surveyed_us`: older than the horizon, or
    in windows that lost others; of those, `late_expiring` lie in windows that can't be replaced any more. late_unknown:
    windows that lost rows and were not looked into. next_expiry_us: of the rows that its plan leaves unshipped;
    unshipped_us: of all at or after the watermark; gone_us: of a row that was seen unshipped and is not there any
    more, None: of none, or the loss is recorded. left: windows that differ and were not touched, out of what its plan
    looked at. expires: whether the source has a TTL, None: not known; ttl_us: how long its rows live, as a rule.
    settle_us, schedule, lag_limit_s, headroom_limit_s: the spec's. replica: whose blocks these are, "": not known;
    doubted_by: another one, that lacked those of `missing` at the last look; compared_us: when they were seen, 0: at
    `seen_us`.
    """

    seen_us: int
    blocks: tuple[Block, ...]
    ttl: str
    materialized_us: int = 0
    replica: str = ""
    doubted_by: str = ""
    missing: tuple[Block, ...] = ()
    compared_us: int = 0
    surveyed_us: int = 0
    late_rows: int = 0
    late_windows: int = 0
    late_expiring: int = 0
    late_unknown: int = 0
    late_from_us: int | None = None
    late_to_us: int | None = None
    rows_before_start: int = 0
    rows_in_future: int = 0
    first_expiry_us: int | None = None
    next_expiry_us: int | None = None
    unshipped_us: int | None = None
    gone_us: int | None = None
    expires: bool | None = None
    ttl_us: int | None = None
    settle_us: int = 0
    schedule: str = SCHEDULE
    lag_limit_s: int | None = None
    headroom_limit_s: int | None = None
    left: tuple[Left, ...] = ()


@dataclass(frozen=True, slots=True)
class Guarded:
    """TTL merges that the offload stopped. `applied_at`: when ClickHouse last obeyed, None: it never did.

    wanted: what it was last told, `stop` or `start`; last_error: what it said instead of obeying.
    """

    since: datetime
    reason: str
    applied_at: datetime | None
    last_error: str | None
    wanted: str = "stop"

    @property
    def refused(self) -> bool:
        """Whether ClickHouse was to stop deleting rows and goes on."""
        return self.wanted == "stop" and (self.applied_at is None or self.last_error is not None)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the ledger knows of a table's past. `landed`: its last run ended well after `look` was taken.

    met_us: when the ledger first met the table, µs UTC; found: what is neither mended nor accepted; guard: None while
    the offload stopped no TTL merges.
    """

    watermark_us: int | None
    last_success_us: int | None
    look: Look | None
    landed: bool
    met_us: int | None = None
    found: Sum = Sum()
    guard: Guarded | None = None

    @property
    def first_expiry_us(self) -> int | None:
        """When ClickHouse deletes the first row that may not be in the lake (µs UTC); None: never, or not known."""
        if self.look is None:
            return None
        seen = self.look.next_expiry_us if self.landed else self.look.first_expiry_us
        return expires_us(seen, self.watermark_us, self.look.ttl_us)

    @property
    def seen_expiry_us(self) -> int | None:
        """When the first row that was seen in ClickHouse alone expires (µs UTC); None: none was seen, or none expires.

        Unlike `first_expiry_us` only of a row that was there, at or after the watermark.
        """
        if self.look is None:
            return None
        return self.look.next_expiry_us if self.landed else self.look.unshipped_us


_LOOK = TypeAdapter(Look)
_SAVE = text(
    "INSERT INTO offload.looks (table_id, document) VALUES (:id, CAST(:document AS jsonb))"
    " ON CONFLICT (table_id) DO UPDATE SET document = excluded.document, updated_at = now()"
)


def _document(look: Look) -> str:
    """The look as JSON. Whether a window differs is written too, so that SQL need not know what `Left.differs` says."""
    document = _LOOK.dump_python(look, mode="json")
    for kept, left in zip(document["left"], look.left, strict=True):
        kept["differs"] = left.differs
    return json.dumps(document)


_LOAD = "SELECT document FROM offload.looks WHERE table_id = :id"
_REMEMBERED = (
    "SELECT t.identity, t.created_at AS met_at, w.watermark, w.last_successful_run, l.document, l.updated_at,"
    " g.since, g.reason, g.applied_at, g.last_error, g.wanted, f.* FROM offload.tables t"
    " JOIN offload.watermarks w USING (table_id) LEFT JOIN offload.looks l USING (table_id)"
    f" LEFT JOIN offload.ttl_guard g USING (table_id) LEFT JOIN ({SUMS}) f USING (table_id)"
)


def load(ledger: Ledger, table_id: int) -> Look | None:
    """The last look at a table's source, None before the first."""
    with ledger.begin() as c:
        found = c.execute(text(_LOAD), {"id": table_id}).scalar_one_or_none()
    return None if found is None else _LOOK.validate_python(found, strict=False)


def remembered(ledger: Ledger, identity: str) -> Remembered | None:
    """What was known of a table before this run; None for one that the ledger has not met."""
    with ledger.begin(identity) as c:
        row = c.execute(text(_REMEMBERED + " WHERE t.identity = :identity"), {"identity": identity}).mappings().first()
    return None if row is None else _remembered(row)


def all_remembered(ledger: Ledger) -> dict[str, Remembered]:
    """What is known of every table, by identity."""
    with ledger.begin() as c:
        return {str(r["identity"]): _remembered(r) for r in c.execute(text(_REMEMBERED)).mappings()}


def _remembered(row: RowMapping) -> Remembered:
    success, looked = row["last_successful_run"], row["updated_at"]
    return Remembered(
        None if row["watermark"] is None else to_us(row["watermark"]),
        None if success is None else to_us(success),
        None if row["document"] is None else _LOOK.validate_python(row["document"], strict=False),
        success is not None and looked is not None and success >= looked,
        to_us(row["met_at"]),
        sum_of(row),
        None if row["since"] is None else _guarded(row),
    )


_CHAIN = text("SELECT plan_id, generation FROM offload.watermarks WHERE table_id = :id")


def save(
    ledger: Ledger,
    head: Head,
    grid: Grid,
    look: Look,
    expiries: Mapping[int, int],
    *,
    before: Look | None,
    lost: bool,
    unshipped: Mapping[int, int],
) -> bool:
    """Keep a look, the expiries of shipped windows that it corrected, and what it saw expire, in one transaction.

    head, before: the chain's end and the look that it was compared with. False, and nothing is kept, when either is
    another by now: windows that landed meanwhile have no expiry of this look, and blocks that a job added would be
    forgotten. lost: rows went without a delete; what an older plan ships from now on is protected when it lands.
    unshipped: rows that expired before they were shipped, as `findings.lose`.
    """
    with ledger.begin() as c:
        # who promotes a plan waits here, or is waited for; the watermark's row is left to those who move it
        c.execute(text("SELECT FROM offload.tables WHERE table_id = :id FOR NO KEY UPDATE"), {"id": head.table_id})
        now = c.execute(_CHAIN, {"id": head.table_id}).one()
        document = c.execute(text(_LOAD + " FOR UPDATE"), {"id": head.table_id}).scalar_one_or_none()
        stored = None if document is None else _LOOK.validate_python(document, strict=False)
        if (now.plan_id, now.generation) != (head.plan_id, head.generation) or _compared(stored) != _compared(before):
            return False
        if lost:
            c.execute(
                text("UPDATE offload.tables SET lost_at = clock_timestamp() WHERE table_id = :id"),
                {"id": head.table_id},
            )
        if expiries:
            c.execute(
                text(
                    "UPDATE offload.windows SET expiry_us = :expiry WHERE table_id = :id AND span = int8range(:lo, :hi)"
                    " AND fingerprint IS NOT NULL"
                ),
                [
                    {"id": head.table_id, "lo": grid.span(n).lo, "hi": grid.span(n).hi, "expiry": e}
                    for n, e in expiries.items()
                ],
            )
        findings.lose_in(c, head.table_id, grid, unshipped)
        c.execute(_SAVE, {"id": head.table_id, "document": _document(look)})
    return True


def _compared(look: Look | None) -> tuple[object, ...]:
    """What the next look is compared with."""
    if look is None:
        return ()
    return look.seen_us, look.blocks, look.ttl, look.materialized_us, look.replica, look.missing


def save_expiry(
    ledger: Ledger, table_id: int, expiry_us: int | None, ttl_us: int | None, gone_us: int | None = None
) -> None:
    """Keep when the first unshipped row expires (µs UTC, None: never), for a run that fails before it has a look.

    ttl_us: how long rows live, None when that is not known any more; gone_us: the expiry of an unshipped row that is
    not there any more; the first such one stays.
    """
    _change(
        ledger,
        "UPDATE offload.looks SET document = document || jsonb_build_object("
        "'first_expiry_us', CAST(:expiry AS bigint), 'next_expiry_us', CAST(:expiry AS bigint),"
        " 'unshipped_us', CAST(:expiry AS bigint), 'ttl_us', CAST(:ttl AS bigint), 'gone_us',"
        " coalesce((document ->> 'gone_us')::bigint, CAST(:gone AS bigint))) WHERE table_id = :id",
        {"id": table_id, "expiry": expiry_us, "ttl": ttl_us, "gone": gone_us},
    )


def add_blocks(ledger: Ledger, table_id: int, blocks: tuple[Block, ...]) -> Look | None:
    """Remember blocks that came since the look, since their rows may have been shipped too; the look as it was."""
    with ledger.begin() as c:
        found = c.execute(text(_LOAD + " FOR UPDATE"), {"id": table_id}).scalar_one_or_none()
        if found is None:
            return None
        known = _LOOK.validate_python(found, strict=False)
        new = lost(blocks, known.blocks, -(2**63))
        if new:
            merged = replace(known, blocks=(*lost(known.blocks, new, -(2**63)), *new))
            c.execute(_SAVE, {"id": table_id, "document": _document(merged)})
        return known


def forget(ledger: Ledger, table_id: int) -> None:
    """The next look is a first one: for a source that was accepted, or a ledger that was rebuilt."""
    with ledger.begin() as c:
        c.execute(text("DELETE FROM offload.looks WHERE table_id = :id"), {"id": table_id})


def all_looks(ledger: Ledger) -> dict[str, Look]:
    """The last look of every table, by identity."""
    with ledger.begin() as c:
        rows = c.execute(text("SELECT identity, document FROM offload.looks JOIN offload.tables USING (table_id)"))
        return {str(r.identity): _LOOK.validate_python(r.document, strict=False) for r in rows}


# stopped TTL merges ---------------------------------------------------------------------------------------------------


def guarded(ledger: Ledger, identity: str | None = None) -> dict[str, Guarded]:
    """The tables whose TTL merges are stopped by us, by identity; only this one when named."""
    with ledger.begin(identity) as c:
        rows = c.execute(
            text(
                "SELECT identity, since, reason, applied_at, last_error, wanted FROM offload.ttl_guard"
                " JOIN offload.tables USING (table_id) WHERE identity = coalesce(:identity, identity)"
            ),
            {"identity": identity},
        )
        return {str(r["identity"]): _guarded(r) for r in rows.mappings()}


def _guarded(row: RowMapping) -> Guarded:
    return Guarded(row["since"], row["reason"], row["applied_at"], row["last_error"], row["wanted"])


def set_guard(ledger: Ledger, table_id: int, reason: str) -> None:
    """Record that TTL merges are to be stopped; the first reason stays."""
    _change(
        ledger,
        "INSERT INTO offload.ttl_guard (table_id, reason) VALUES (:id, :reason) ON CONFLICT DO NOTHING",
        {"id": table_id, "reason": reason},
    )


def guard_answered(ledger: Ledger, table_id: int, error: str | None, wanted: str = "stop") -> None:
    """Record whether ClickHouse obeyed; `error`: what it said instead; wanted: what it was told, `stop` or `start`."""
    _change(
        ledger,
        "UPDATE offload.ttl_guard SET last_error = :error, wanted = :wanted,"
        " applied_at = CASE WHEN CAST(:error AS text) IS NULL THEN now() ELSE applied_at END WHERE table_id = :id",
        {"id": table_id, "error": error, "wanted": wanted},
    )


def clear_guard(ledger: Ledger, table_id: int) -> None:
    """Record that TTL merges run again."""
    _change(ledger, "DELETE FROM offload.ttl_guard WHERE table_id = :id", {"id": table_id})


def _change(ledger: Ledger, sql: str, values: dict[str, Any]) -> None:
    with ledger.begin() as c:
        c.execute(text(sql), values)
