"""The extent: what ClickHouse holds, as rows and content hash per window and Iceberg partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.offload.model import Cell, Extent, PartitionColumn, Projection
from include.offload.source.client import Client
from include.offload.source.sql import cursor_us_sql, instant_sql, literal, quote, spans_sql, window_sql
from include.offload.spec.fields import yaml_text
from include.offload.windows import Grid, Span

MAX_WINDOWS_PER_PLAN = 5_000
"""How many windows with rows one plan may append: it bounds the plan's size; the next run goes on."""


@dataclass(frozen=True, slots=True)
class ExtentQuery:
    """What to look at. `expiry`: SQL for the first expiry of a row as DateTime64(6), None when rows never expire."""

    database: str
    table: str
    cursor: str
    sequence: str | None
    final: bool
    grid: Grid
    projection: Projection
    partition: tuple[PartitionColumn, ...]
    expiry: str | None

    @property
    def source(self) -> str:
        return f"{quote(self.database)}.{quote(self.table)}{' FINAL' if self.final else ''}"

    def cells_sql(self, spans: Sequence[Span]) -> str:
        keys = "".join(f", {c.expr} AS p{i}" for i, c in enumerate(self.partition))
        group = "".join(f", p{i}" for i in range(len(self.partition)))
        expiry = f"toUnixTimestamp64Micro(min({self.expiry}))" if self.expiry else "NULL"
        sequence = f"max({quote(self.sequence)})" if self.sequence else "NULL"
        return (
            f"SELECT {window_sql(self.cursor, self.grid.width_us)} AS w, count(){self._readable()} AS n,"
            f" sum({self.projection.hash_sql}) AS h, {expiry} AS e, {sequence} AS s{keys}"
            f" FROM {self.source} WHERE {spans_sql(self.cursor, spans)}"
            f" GROUP BY w{group} ORDER BY w{group}"
        )

    def _readable(self) -> str:
        """Added to the count: 0, or the query fails for a partition value that a plan could not name as text."""
        out = ""
        for i, column in enumerate(self.partition):
            why = literal(
                f"column {column.source} holds text that is no UTF-8 and target.partition names it; write into"
                f" columns.overrides {yaml_text(column.source)}: {{type: binary}}"
            )
            # on the grouped keys, so it costs one look a cell and not one a row
            out += f" + throwIf(NOT isValidUTF8(ifNull(toString(p{i}), '')), {why})"
        return out


def min_cursor_us(client: Client, query: ExtentQuery) -> int | None:
    """The oldest cursor in the table, µs UTC; None when it is empty. Only a first run asks."""
    sql = f"SELECT count(), min({cursor_us_sql(query.cursor)}) FROM {query.source}"
    ((rows, oldest),) = client.query(sql)
    return int(oldest) if rows else None


def cut_to_limit(
    client: Client, query: ExtentQuery, spans: Sequence[Span], *, rows: int, windows: int = MAX_WINDOWS_PER_PLAN
) -> int | None:
    """Where to cut `spans`, µs UTC, so that they hold no more windows with rows, and no more rows, all together.

    One window stays however many rows it holds; None: all of it fits. Of FINAL all versions count: it is a bound.
    """
    counted = (
        f"SELECT {window_sql(query.cursor, query.grid.width_us)} AS __offload_w, count() AS __offload_n"
        f" FROM {quote(query.database)}.{quote(query.table)} WHERE {spans_sql(query.cursor, spans)}"
        " GROUP BY __offload_w"
    )
    ((beyond, found),) = client.query(
        "SELECT min(w), count() FROM (SELECT __offload_w AS w, row_number() OVER up AS i, sum(__offload_n) OVER up AS r"
        f" FROM ({counted}) WINDOW up AS (ORDER BY __offload_w ROWS UNBOUNDED PRECEDING))"
        f" WHERE i > 1 AND (i > {windows} OR r > {rows})"
    )
    return query.grid.span(int(beyond)).lo if found else None


def read_extent(client: Client, query: ExtentQuery, spans: Sequence[Span], *, now_us: int, origin_us: int) -> Extent:
    """Count and hash every window of `spans` on the client's replica.

    now_us: ClickHouse's clock. origin_us: where the table's accounting begins; rows before it are counted and
    reported, never shipped. Raises OFL-2xx.
    """
    cells: list[Cell] = []
    max_sequence: int | None = None
    if spans:
        for window, rows, hash_, expiry, sequence, *partition in client.query(query.cells_sql(spans)):
            cells.append(
                Cell(int(window), tuple(partition), int(rows), int(hash_), None if expiry is None else int(expiry))
            )
            if sequence is not None:
                max_sequence = max(int(sequence), max_sequence if max_sequence is not None else int(sequence))
    name = quote(query.cursor)
    source = f"{quote(query.database)}.{quote(query.table)}"
    ((total,),) = client.query(f"SELECT count() FROM {source}")
    ((before,),) = client.query(f"SELECT count() FROM {source} WHERE {name} < {instant_sql(origin_us)}")
    future_from = instant_sql(now_us + query.grid.width_us)
    ((future,),) = client.query(f"SELECT count() FROM {source} WHERE {name} >= {future_from}")
    return Extent(
        now_us=now_us,
        replica=client.endpoint.name,
        spans=tuple(spans),
        cells=tuple(cells),
        max_sequence=max_sequence,
        rows_total=int(total),
        rows_before_start=int(before),
        rows_in_future=int(future),
    )
