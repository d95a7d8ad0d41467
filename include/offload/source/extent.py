"""The extent: what ClickHouse holds, as rows and content hash per window and Iceberg partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.offload.model import Cell, Extent, PartitionColumn, Projection, WindowState
from include.offload.source.client import Client
from include.offload.source.sql import WINDOW, cursor_us_sql, instant_sql, literal, quote, spans_sql, window_sql
from include.offload.spec.fields import yaml_text
from include.offload.windows import Grid, Span

MAX_WINDOWS_PER_PLAN = 5_000
"""How many windows with rows one plan may append: it bounds the plan's size; the next run goes on."""


@dataclass(frozen=True, slots=True)
class ExtentQuery:
    """What to look at.

    `expiry`, `due`: SQL for the first expiry of a row as DateTime64(6), None when rows never expire; `expiry` whatever
    the conditions of a TTL say, for what may be replaced, `due` as they stand now (rule 18).
    """

    database: str
    table: str
    cursor: str
    sequence: str | None
    final: bool
    grid: Grid
    projection: Projection
    partition: tuple[PartitionColumn, ...]
    expiry: str | None
    due: str | None = None

    @property
    def source(self) -> str:
        return f"{quote(self.database)}.{quote(self.table)}{' FINAL' if self.final else ''}"

    @property
    def first_expiry(self) -> str:
        """The aggregate: when the first of the rows expires, µs UTC, NULL for never."""
        return f"toUnixTimestamp64Micro(min({self.expiry}))" if self.expiry else "NULL"

    @property
    def shortest_ttl(self) -> str:
        """The aggregate: the shortest time from a row's cursor to its expiry, µs, NULL for never."""
        if not self.due:
            return "NULL"
        return f"min(toUnixTimestamp64Micro({self.due}) - {cursor_us_sql(self.cursor)})"

    @property
    def first_due(self) -> str:
        """The aggregate: when ClickHouse deletes the first of the rows as they are now, µs UTC, NULL for never."""
        return f"toUnixTimestamp64Micro(min({self.due}))" if self.due else "NULL"

    def survey_sql(self, spans: Sequence[Span], *, hashed: bool) -> str:
        """Rows, first expiry and (0 unless `hashed`) content hash per window: what a count costs, when not hashed."""
        content = f"sum({self.projection.hash_sql})" if hashed else "0"
        return (
            f"SELECT {window_sql(self.cursor, self.grid.width_us)} AS {WINDOW}, count(), {content},"
            f" {self.first_expiry} FROM {self.source} WHERE {spans_sql(self.cursor, spans)} GROUP BY {WINDOW}"
        )

    def cells_sql(self, spans: Sequence[Span]) -> str:
        # aliases that no column has: ClickHouse puts an alias in the place of a column of its name, everywhere
        keys = "".join(f", {c.expr} AS __offload_p{i}" for i, c in enumerate(self.partition))
        group = "".join(f", __offload_p{i}" for i in range(len(self.partition)))
        sequence = f"max({quote(self.sequence)})" if self.sequence else "NULL"
        return (
            f"SELECT {window_sql(self.cursor, self.grid.width_us)} AS {WINDOW}, count(){self._readable()},"
            f" sum({self.projection.hash_sql}), {self.first_expiry}, {self.shortest_ttl}, {sequence}{keys}"
            f" FROM {self.source} WHERE {spans_sql(self.cursor, spans)}"
            f" GROUP BY {WINDOW}{group} ORDER BY {WINDOW}{group}"
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
            out += f" + throwIf(NOT isValidUTF8(ifNull(toString(__offload_p{i}), '')), {why})"
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
        f"SELECT {window_sql(query.cursor, query.grid.width_us)} AS {WINDOW}, count() AS __offload_n"
        f" FROM {quote(query.database)}.{quote(query.table)} WHERE {spans_sql(query.cursor, spans)}"
        f" GROUP BY {WINDOW}"
    )
    ((beyond, found),) = client.query(
        f"SELECT min({WINDOW}), count() FROM (SELECT {WINDOW}, row_number() OVER up AS i, sum(__offload_n) OVER up AS r"
        f" FROM ({counted}) WINDOW up AS (ORDER BY {WINDOW} ROWS UNBOUNDED PRECEDING))"
        f" WHERE i > 1 AND (i > {windows} OR r > {rows})"
    )
    return query.grid.span(int(beyond)).lo if found else None


def read_survey(
    client: Client, query: ExtentQuery, spans: Sequence[Span], *, hashed: bool = False
) -> dict[int, WindowState]:
    """The windows with rows of `spans`; their hash is 0 unless asked for. Raises OFL-2xx."""
    if not spans:
        return {}
    found = client.query(query.survey_sql(spans, hashed=hashed))
    return {int(w): WindowState(int(w), int(n), int(h), None if e is None else int(e)) for w, n, h, e in found}


def first_expiry_us(client: Client, query: ExtentQuery, from_us: int) -> int | None:
    """When ClickHouse may first delete a row whose cursor is at or after `from_us`, µs UTC; None: never."""
    if query.due is None:
        return None
    ((expiry,),) = client.query(
        f"SELECT {query.first_due} FROM {quote(query.database)}.{quote(query.table)}"
        f" WHERE {quote(query.cursor)} >= {instant_sql(from_us)}"
    )
    return None if expiry is None else int(expiry)


def read_extent(
    client: Client,
    query: ExtentQuery,
    spans: Sequence[Span],
    *,
    now_us: int,
    origin_us: int,
    tail_us: int | None = None,
) -> Extent:
    """Count and hash every window of `spans` on the client's replica.

    now_us: ClickHouse's clock. origin_us: where the table's accounting begins; rows before it are counted and
    reported, never shipped. tail_us: rows from here on stay unshipped, and are asked when they expire (default: the
    end of the spans). Raises OFL-2xx.
    """
    cells: list[Cell] = []
    max_sequence: int | None = None
    if spans:
        for window, rows, hash_, expiry, ttl, sequence, *partition in client.query(query.cells_sql(spans)):
            known = (None if us is None else int(us) for us in (expiry, ttl))
            cells.append(Cell(int(window), tuple(partition), int(rows), int(hash_), *known))
            if sequence is not None:
                max_sequence = max(int(sequence), max_sequence if max_sequence is not None else int(sequence))
    name = quote(query.cursor)
    source = f"{quote(query.database)}.{quote(query.table)}"
    ((total,),) = client.query(f"SELECT count() FROM {source}")
    ((before,),) = client.query(f"SELECT count() FROM {source} WHERE {name} < {instant_sql(origin_us)}")
    future_us = now_us + query.grid.width_us
    tail = min(future_us, tail_us if tail_us is not None else max((s.hi for s in spans), default=future_us))
    ((future, tail_expiry),) = client.query(
        f"SELECT countIf({name} >= {instant_sql(future_us)}), {query.first_due} FROM {source}"
        f" WHERE {name} >= {instant_sql(tail)}"
    )
    return Extent(
        now_us=now_us,
        replica=client.endpoint.name,
        spans=tuple(spans),
        cells=tuple(cells),
        max_sequence=max_sequence,
        rows_total=int(total),
        rows_before_start=int(before),
        rows_in_future=int(future),
        tail_expiry_us=None if tail_expiry is None else int(tail_expiry),
    )
