"""The panel that says when ClickHouse deletes the first row that is not in Iceberg: of all tables, and of one."""

from __future__ import annotations

from enum import IntEnum

from monitoring.dashboards.expressions import never_expires
from monitoring.dashboards.parts import GREEN, NEVER_S, ORANGE, RED, Maker, Panel, Query
from monitoring.values import Values


def colours(v: Values) -> str:
    """The panel's colours in words."""
    return f"Red under {v.text('ttl_headroom_critical')}, orange under {v.text('ttl_headroom_warning')}"


def expires(make: Maker, panel: IntEnum, title: str, selector: str, more: str) -> Panel:
    """The least headroom among what `selector` picks. `more`: how the panel's description goes on."""
    v = make.v
    return make.number(
        panel,
        title,
        8,
        Query(f"min(offload:ttl_headroom_seconds{{{selector}}}) or {never_expires(selector, NEVER_S)}"),
        "s",
        f"Time until ClickHouse's TTL deletes a row that is not in Iceberg{more}",
        steps=(
            (None, RED),
            (v.seconds("ttl_headroom_critical"), ORANGE),
            (v.seconds("ttl_headroom_warning"), GREEN),
        ),
        never="Nothing waits to expire",
        height=5,
    )
