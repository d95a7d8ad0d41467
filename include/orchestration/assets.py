"""One Asset a table, announced exactly once a plan.

Airflow writes an asset event for every declared outlet whenever a task succeeds, so a cleared
`update_watermark` would announce old rows again. Airflow's own events are the record of what was announced:
they are stored in the same transaction as the task's success, so neither a crash nor a clear can lose or
double one.

A plan whose run died after its commit is recorded by the next run, and announced by it too, through the alias; so
are those of several runs in a row that died.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow.sdk import Asset, AssetAlias, Context
from airflow.sdk.execution_time.context import InletEventsAccessor

from include.offload.errors import PLAN_UNKNOWN, OffloadError
from include.offload.spec.model import TableSpec
from include.offload.windows import from_us

if TYPE_CHECKING:
    from include.offload.context import Context as Servers
    from include.offload.ledger import Ledger
    from include.offload.model import Plan

MAX_UNANNOUNCED = 20
"""How far back a run looks for plans that landed and that no run lived to announce: five hours of runs that died.

Plans of `bin/offload backfill` do not count: each is announced, however many one backfill made.
"""
MAX_BACKFILLED = 5_000
"""An end to that: so many events in one task's success are a page of Airflow's database, and not yet a burden."""
BACKFILL_RUN = "cli__backfill__"
"""How the run ids of `bin/offload backfill` begin."""
CLOCK_MARGIN = timedelta(days=1)
"""A plan's events are younger than the plan; the margin forgives clocks that differ."""


def asset_of(spec: TableSpec) -> Asset:
    """The Iceberg table as Airflow knows it, for consumers: `schedule=[Asset("lake.k2.silver_trades")]`."""
    return Asset(
        name=f"lake.{spec.target.namespace}.{spec.target.table}",
        uri=f"iceberg://lake/{spec.target.namespace}/{spec.target.table}",
        group="offload",
        extra={"source": f"{spec.source.database}.{spec.source.table}", "table": spec.identity},
    )


def alias_of(asset: Asset) -> AssetAlias:
    """The second outlet: it announces the same asset, but only what is added to it."""
    return AssetAlias(name=f"{asset.name} (recorded late)", group="offload")


def instant(us: int | None) -> str | None:
    """Microseconds since the epoch as ISO text with a Z."""
    return f"{from_us(us):%Y-%m-%dT%H:%M:%S}Z" if us is not None else None


def announced(asset: Asset, since: datetime) -> set[str]:
    """The ids of the plans that Airflow holds events of, as far back as `since`. Runs inside a task."""
    events = InletEventsAccessor(asset_name=asset.name, asset_uri=asset.uri).after((since - CLOCK_MARGIN).isoformat())
    return {str(event.extra["plan"]) for event in events if event.extra and "plan" in event.extra}


def landed(servers: Servers, plan: Plan) -> dict[str, Any]:
    """What a recorded plan did, as its snapshot and its attempt tell it; nothing moved when it has no snapshot."""
    from include.offload.lake import marker as markers
    from include.offload.lake.catalog import find_table

    found: dict[str, Any] = {
        "plan": str(plan.plan_id),
        "table": plan.table,
        "rows": 0,
        "windows": 0,
        "snapshot_id": None,
        "watermark": instant(plan.watermark_after),
        "generation": plan.generation,
    }
    table = find_table(servers.catalog, plan.target.identifier, plan.table) if plan.touches_lake else None
    for snapshot in reversed(table.metadata.snapshots if table is not None else []):
        marker = markers.parse(snapshot.summary.additional_properties if snapshot.summary else {})
        if marker is not None and marker.plan == plan.plan_id:
            outcome = servers.ledger.attempt(marker.attempt)
            # text: 64-bit numbers lose their last digits in a browser
            found |= {"snapshot_id": str(marker.snapshot_id), "watermark": instant(marker.watermark_us)}
            if outcome is not None:
                found |= {"rows": outcome.rows, "windows": len(outcome.windows)}
            return found
    return found


def announce(context: Context, asset: Asset, servers: Servers, plan_id: UUID) -> tuple[dict[str, Any], list[str]]:
    """Let this task's success announce the plan, and those before it that nobody announced.

    Returns what is said of the plan, and the ids of the plans that will be announced.
    """
    plan, _ = servers.ledger.plan(plan_id)
    told, said = [], landed(servers, plan)
    if str(plan_id) in announced(asset, from_us(plan.created_us)):
        # Airflow announces what the task declares at its end: take the declaration back for this try
        task = context["ti"].task
        task.outlets = [outlet for outlet in task.outlets if outlet != asset]
    else:
        context["outlet_events"][asset].extra = said
        told.append(str(plan_id))
    for before in unannounced(servers.ledger, plan, lambda since: announced(asset, since)):
        context["outlet_events"][alias_of(asset)].add(asset, extra=landed(servers, before))
        told.append(str(before.plan_id))
    return said, told


def unannounced(ledger: Ledger, plan: Plan, known: Callable[[datetime], set[str]]) -> list[Plan]:
    """The plans before this one, up to the first that was announced, newest first; those without rows are left out.

    known: the ids of the plans that were announced since an instant. The chain ends where a lost ledger began.
    """
    found: list[Plan] = []
    others, batch = 0, 1
    while others < MAX_UNANNOUNCED and len(found) < MAX_BACKFILLED:
        walked: list[Plan] = []
        while len(walked) < batch and others < MAX_UNANNOUNCED:
            before = _before(ledger, walked[-1] if walked else plan)
            if before is None:
                break
            walked.append(before)
            others += not before.run_id.startswith(BACKFILL_RUN)
        if not walked:
            break
        # one question for several plans, for each takes all events since
        told = known(from_us(walked[-1].created_us))
        for one in walked:
            if one.touches_lake and str(one.plan_id) in told:
                return found
            found += [one] if one.touches_lake else []
        plan, batch = walked[-1], batch * 2
    return found


def _before(ledger: Ledger, plan: Plan) -> Plan | None:
    if plan.predecessor is None:
        return None
    try:
        return ledger.plan(plan.predecessor)[0]
    except OffloadError as error:
        if error.kind is not PLAN_UNKNOWN:
            raise
        return None
