"""The TTL guard: ClickHouse stops deleting rows of a table whose unshipped rows are about to expire.

ClickHouse forgets `SYSTEM STOP TTL MERGES` when it restarts, so the ledger remembers it and every run says it again.
It works per server: every replica that the guard's URI lists is told.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from include.offload.context import Context
from include.offload.errors import OffloadError
from include.offload.ledger import looks
from include.offload.source.client import Client, parse_uri
from include.offload.source.sql import quote
from include.offload.spec.human import format_duration
from include.offload.spec.model import TableSpec
from include.offload.windows import from_us

log = logging.getLogger(__name__)

TIMEOUT_S = 60
"""How long a server may take to stop or start TTL merges, seconds: it only sets a flag."""


@dataclass(frozen=True, slots=True)
class GuardState:
    """Whether TTL merges of a table are stopped by us, and a line for the log when there is something to say."""

    stopped: bool = False
    note: str | None = None


def check_ready(ctx: Context, spec: TableSpec) -> None:
    """Raises OFL-102 when the spec says `stop` and there is no guard URI: better now than when rows are at risk."""
    if spec.ttl_guard == "stop":
        ctx.settings.guard_uris()


def must_hold(spec: TableSpec, first_expiry_us: int | None, now_us: int) -> bool:
    """Whether the spec wants TTL merges stopped: the first unshipped row expires within its limit; None: none does."""
    if spec.ttl_guard != "stop" or first_expiry_us is None:
        return False
    return first_expiry_us - now_us < spec.ttl_guard_headroom_us


def watch(ctx: Context, spec: TableSpec, table_id: int, first_expiry_us: int | None, now_us: int) -> GuardState:
    """Stop TTL merges when an unshipped row is about to expire; start them again when none is.

    first_expiry_us: of the unshipped rows, None: none expires. A server that does not obey is said in the note, the
    ledger and the metrics, and stops nothing else: shipping is what saves the rows.
    """
    if not must_hold(spec, first_expiry_us, now_us):
        return release(ctx, spec, table_id)
    reason = f"unshipped rows expire from {from_us(first_expiry_us or 0):%Y-%m-%dT%H:%M:%SZ} on, the limit is"
    looks.set_guard(ctx.ledger, table_id, f"{reason} {format_duration(spec.ttl_guard_headroom_us)} before")
    failure = _tell(ctx, spec, "STOP")
    looks.guard_answered(ctx.ledger, table_id, None if failure is None else str(failure))
    if failure is not None:
        ctx.metrics.failure(spec.identity, "check_extent", failure.id, final=False)
        ctx.metrics.guarded(spec.identity, stopped=False, refused=True)
        return GuardState(False, f"TTL merges could not be stopped: {failure}")
    ctx.metrics.guarded(spec.identity, stopped=True)
    return GuardState(True, f"TTL merges of the source are stopped: {reason} near")


def release(ctx: Context, spec: TableSpec, table_id: int) -> GuardState:
    """Start TTL merges again if we stopped them; until ClickHouse obeys, the ledger keeps saying that they are."""
    if spec.identity not in looks.guarded(ctx.ledger, spec.identity):
        ctx.metrics.guarded(spec.identity, stopped=False)
        return GuardState()
    failure = _tell(ctx, spec, "START")
    if failure is not None:
        looks.guard_answered(ctx.ledger, table_id, str(failure), "start")
        ctx.metrics.failure(spec.identity, "update_watermark", failure.id, final=False)
        ctx.metrics.guarded(spec.identity, stopped=True)
        return GuardState(True, f"TTL merges could not be started again: {failure}")
    looks.clear_guard(ctx.ledger, table_id)
    ctx.metrics.guarded(spec.identity, stopped=False)
    return GuardState(False, "TTL merges of the source run again")


def _tell(ctx: Context, spec: TableSpec, word: str) -> OffloadError | None:
    """`SYSTEM STOP|START TTL MERGES` on every server; the first failure, after all were told."""
    failure: OffloadError | None = None
    source = f"{quote(spec.source.database)}.{quote(spec.source.table)}"
    try:
        uris = ctx.settings.guard_uris()
    except OffloadError as error:
        return error
    for uri in uris:
        try:
            with Client(
                parse_uri(uri),
                settings={"max_execution_time": TIMEOUT_S},
                comment=f"offload ttl guard {spec.identity}",
                table=spec.identity,
            ) as client:
                client.command(f"SYSTEM {word} TTL MERGES {source}")
        except OffloadError as error:
            log.warning("%s: %s TTL MERGES: %s", spec.identity, word, error)
            failure = failure or error
    return failure
