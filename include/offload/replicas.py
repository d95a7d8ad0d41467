"""Which replica an attempt reads (rule 11): the one that its plan pinned, or a copy of it while that one is away.

A plan is frozen with the replica that was counted. When that one dies under the job, each retry would meet it again,
until the next run plans anew. So a retry may read another replica of the same table, under a stricter audit: a window
that does not come exactly as planned stays pending (`audit.unlike_planned`). What the other replica lacks, or has not
changed yet, is then neither shipped nor taken for the truth.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from include.offload.context import Context
from include.offload.errors import (
    REPLICA_LAGS,
    SOURCE_STREAM_BROKEN,
    SOURCE_TABLE_MISSING,
    SOURCE_UNREACHABLE,
    OffloadError,
)
from include.offload.model import Plan
from include.offload.source.client import Client
from include.offload.source.describe import describe
from include.offload.spec.model import TableSpec

log = logging.getLogger(__name__)

UNFIT = (SOURCE_UNREACHABLE, SOURCE_STREAM_BROKEN, SOURCE_TABLE_MISSING, REPLICA_LAGS)
"""Why one replica can't stand in while the next one still may; any other refusal holds for all of them."""


def check_lag(client: Client, spec: TableSpec) -> int:
    """How far the client's replica of a table is behind, seconds; 0 for a table without replicas.

    Raises OFL-210 for more than settle, OFL-2xx.
    """
    ((delay,),) = client.query(
        "SELECT max(absolute_delay) FROM system.replicas WHERE database = {db:String} AND table = {table:String}",
        {"db": spec.source.database, "table": spec.source.table},
    )
    if int(delay) * 1_000_000 > spec.settle_us:
        raise OffloadError(
            REPLICA_LAGS,
            f"{client.endpoint.name} is {delay} s behind, settle is {spec.settle_us // 1_000_000} s",
            table=spec.identity,
        )
    return int(delay)


def standing_in(ctx: Context, spec: TableSpec, plan: Plan) -> Plan:
    """The plan as this attempt reads it: with another replica in place of the pinned one while that does not answer.

    A pinned one that is no longer configured is not replaced: somebody took it out, and the next plan is another's.
    Raises OFL-201 when no replica of the same table answers that is less than settle behind.
    """
    names = [endpoint.name for endpoint in ctx.endpoints(spec)]
    others = [name for name in names if name != plan.replica]
    if plan.replica not in names or not others:
        return plan
    comment = f"offload stand-in {plan.table} plan {plan.plan_id}"
    try:
        ctx.connect(spec, comment, plan.replica).close()
        return plan
    except OffloadError as error:
        if error.kind is not SOURCE_UNREACHABLE:
            raise
        causes = [error.cause]
    for name in others:
        unfit = _unfit(ctx, spec, plan, comment, name)
        if unfit is None:
            log.warning(
                "%s: the plan pinned %s, which does not answer; this attempt reads %s", plan.table, plan.replica, name
            )
            return replace(plan, replica=name)
        causes.append(unfit)
    raise OffloadError(SOURCE_UNREACHABLE, "; ".join(causes), table=plan.table)


def _unfit(ctx: Context, spec: TableSpec, plan: Plan, comment: str, name: str) -> str | None:
    """Why a replica can't stand in for the one that a plan pinned; None when it can."""
    try:
        with ctx.connect(spec, comment, name) as client:
            found = describe(client, spec.source.database, spec.source.table, plan.table).identity
            if found != plan.source_identity:
                return f"{name} holds another table, {found}"
            check_lag(client, spec)
    except OffloadError as error:
        if error.kind not in UNFIT:
            raise
        return error.cause
    return None
