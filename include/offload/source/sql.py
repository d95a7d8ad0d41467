"""The few pieces of ClickHouse SQL that extent, shipping and verification share."""

from __future__ import annotations

from collections.abc import Iterable

from include.offload.model import PartitionColumn, PartitionValue
from include.offload.windows import Span

WINDOW = "__offload_window"
"""The alias of the window number, and no column's name: ClickHouse would put it in the place of that column."""


def quote(identifier: str) -> str:
    """A ClickHouse identifier in backticks, whatever is in it."""
    return "`" + identifier.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value: PartitionValue) -> str:
    """A ClickHouse literal of a partition value."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def cursor_us_sql(cursor: str) -> str:
    """The cursor as Int64 microseconds since the epoch, UTC."""
    return f"toUnixTimestamp64Micro(toDateTime64({quote(cursor)}, 6, 'UTC'))"


def window_sql(cursor: str, width_us: int) -> str:
    """The window number of a row; floored, so that it is right before 1970 too (intDiv truncates)."""
    us = cursor_us_sql(cursor)
    return f"(intDiv({us}, {width_us}) - toInt64(({us} % {width_us}) < 0))"


def instant_sql(us: int) -> str:
    """A DateTime64(6, 'UTC') constant. Comparing the raw cursor with it keeps the primary key usable."""
    return f"fromUnixTimestamp64Micro(toInt64({us}), 'UTC')"


def spans_sql(cursor: str, spans: Iterable[Span]) -> str:
    """The condition that the cursor lies in one of the spans."""
    name = quote(cursor)
    parts = [f"({name} >= {instant_sql(s.lo)} AND {name} < {instant_sql(s.hi)})" for s in spans]
    return f"({' OR '.join(parts)})" if parts else "false"


def partition_sql(columns: Iterable[PartitionColumn], values: Iterable[PartitionValue]) -> str:
    """The condition that a row lies in the Iceberg partition with these values."""
    parts = [
        f"({c.expr}) IS NULL" if v is None else f"({c.expr}) = {literal(v)}"
        for c, v in zip(columns, values, strict=True)
    ]
    return " AND ".join(parts) or "true"
