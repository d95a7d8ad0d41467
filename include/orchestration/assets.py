"""One Asset a table, announced exactly once a plan.

Airflow writes an asset event for every declared outlet whenever a task succeeds, so a cleared
`update_watermark` would announce old rows again. Airflow's own events are the record of what was announced:
they are stored in the same transaction as the task's success, so neither a crash nor a clear can lose or
double one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Asset, Context
from airflow.sdk.execution_time.context import InletEventsAccessor

from include.offload.spec.model import TableSpec

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


def announced(asset: Asset, plan_id: str, created: datetime) -> bool:
    """Whether Airflow already holds an event of this plan, made at `created`. Runs inside a task."""
    since = (created - CLOCK_MARGIN).isoformat()
    events = InletEventsAccessor(asset_name=asset.name, asset_uri=asset.uri).after(since)
    return any((event.extra or {}).get("plan") == plan_id for event in events)


def announce_once(context: Context, asset: Asset, plan_id: str, created: datetime, extra: dict[str, Any]) -> bool:
    """Let this task's success announce the plan, unless it was announced before. Returns whether it will."""
    if announced(asset, plan_id, created):
        # Airflow announces what the task declares at its end: take the declaration back for this try
        task = context["ti"].task
        task.outlets = [outlet for outlet in task.outlets if outlet != asset]
        return False
    context["outlet_events"][asset].extra = {"plan": plan_id, **extra}
    return True
