"""`spec new`: a first YAML for a table, guessed from ClickHouse, each guess explained in a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from include.offload.errors import CURSOR_UNFIT, OffloadError
from include.offload.model import SourceColumn, SourceTable
from include.offload.source import chtypes, icetypes
from include.offload.source.describe import Queries
from include.offload.source.projection import MERGING_ENGINES, TIME_TYPES, options_for
from include.offload.source.sql import cursor_us_sql, quote
from include.offload.source.ttl import UNREADABLE, ttl_us
from include.offload.source.typemap import NoMappingError, base_type, map_type
from include.offload.spec import human
from include.offload.spec.fields import quote_if_needed, yaml_text
from include.offload.spec.headroom import short_headroom_us
from include.offload.spec.model import TARGET_NAME

MAX_IDENTITY_VALUES = 100
"""More distinct values than this in a partition column, and the partitions get small."""
DAILY_ROWS_FOR_DAYS = 100_000
"""Fewer rows a day than this fill a file better by month."""

_PERIODS = tuple(
    n * unit
    for unit, counts in ((human.DAY_US, (1,)), (human.HOUR_US, (12, 6, 4, 2, 1)), (human.MINUTE_US, (30, 15, 10, 5, 1)))
    for n in counts
)
_TIME_NAMES = ("event_time", "exchange_timestamp", "timestamp", "event_timestamp", "window_start", "ts", "time")
_LATE_NAMES = re.compile(r"updat|modif|process|ingest|insert|load|expire|delete", re.I)
_SEQUENCE = re.compile(r"(^|_)(seq|sequence|sequence_number|offset|lsn|version)($|_)|sequence", re.I)
_TRANSFORMS = {
    "toYYYYMMDD": "day", "toDate": "day", "toDate32": "day", "toStartOfDay": "day", "toMonday": "day",
    "toStartOfWeek": "day", "toYYYYMM": "month", "toStartOfMonth": "month", "toYear": "year", "toStartOfYear": "year",
    "toStartOfHour": "hour",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stats:
    """What a look at the rows adds. Instants in µs since the epoch, UTC; None where the table is empty.

    distinct: per partition-key column, its number of distinct values. period_us: the largest usual period that
    divides every cursor value, per time column. rows_per_day: over the span of the cursor, per time column.
    """

    rows: int = 0
    distinct: dict[str, int] | None = None
    period_us: dict[str, int | None] | None = None
    rows_per_day: dict[str, int] | None = None


def gather(client: Queries, source: SourceTable) -> Stats:
    """Look at the rows: one pass over the time columns and the bare partition columns. Raises OFL-2xx."""
    times = [c.name for c in cursors(source)]
    keys = [c.name for c in source.columns if c.name in _bare_keys(source)]
    items = ["count()"]
    for name in times:
        us = cursor_us_sql(name)
        items += [f"min({us})", f"max({us})", *(f"countIf({us} % {p} != 0)" for p in _PERIODS)]
    items += [f"uniq({quote(k)})" for k in keys]
    row = list(client.query(f"SELECT {', '.join(items)} FROM {quote(source.database)}.{quote(source.table)}")[0])
    values = [int(str(v)) for v in row]
    rows, at = values[0], 1
    periods: dict[str, int | None] = {}
    daily: dict[str, int] = {}
    for name in times:
        oldest, newest, *misfits = values[at : at + 2 + len(_PERIODS)]
        at += 2 + len(_PERIODS)
        fitting = [p for p, bad in zip(_PERIODS, misfits, strict=True) if bad == 0]
        periods[name] = fitting[0] if rows and fitting and newest > oldest else None
        daily[name] = int(rows / max((newest - oldest) / human.DAY_US, 1))
    return Stats(rows, dict(zip(keys, values[at:], strict=True)), periods, daily)


def identity_of(source: SourceTable) -> str:
    """The identity (and path) under which a spec for this table is filed."""
    names = (re.sub(r"[^A-Za-z0-9_]", "_", n) for n in (source.database, source.table))
    return ".".join(n if n[:1].isalpha() else f"t_{n}" for n in names)


def cursors(source: SourceTable) -> list[SourceColumn]:
    """The columns that can be the cursor, the best first."""
    fit = []
    for column in source.columns:
        kind, nullable = base_type(column.type)
        if kind.name in TIME_TYPES and not nullable and column.default_kind not in ("ALIAS", "EPHEMERAL"):
            fit.append(column)
    return sorted(fit, key=lambda c: (-_score(source, c), c.position))


def _score(source: SourceTable, column: SourceColumn) -> int:
    word = re.compile(rf"(?<![A-Za-z0-9_`])`?{re.escape(column.name)}`?(?![A-Za-z0-9_`])")
    score = 4 * bool(word.search(source.partition_key)) + 4 * (column.name in source.sorting_key)
    score += 3 * bool(source.ttl and word.search(source.ttl))
    score += 2 * (column.name.lower() in _TIME_NAMES) - 3 * bool(_LATE_NAMES.search(column.name))
    score += base_type(column.type)[0].name.startswith("DateTime")
    return score


def draft(source: SourceTable, stats: Stats | None = None) -> str:
    """The YAML of a spec for `source`. Raises OFL-206 when no column can be the cursor."""
    stats = stats or Stats()
    fit = cursors(source)
    if not fit:
        raise OffloadError(CURSOR_UNFIT, _no_cursor(source), table=f"{source.database}.{source.table}")
    cursor = fit[0]
    lines = [
        "# yaml-language-server: $schema=../../../include/offload/spec/schema.json",
        f"# Drafted from {source.database}.{source.table} ({source.engine}, {stats.rows:,} rows).",
        "# Read each guess, then:",
        f"#   bin/offload spec check --source {identity_of(source)}",
        "doc: |",
        f"  What {source.database}.{source.table} holds, who writes it, who reads it.",
        "owner: data-platform",
        "",
        *_cursor(source, cursor, fit[1:]),
        *_sequence(source),
        *_source(source, cursor),
        *_times(source, cursor, stats),
        *_target(source, cursor, stats),
        *_overrides(source, cursor),
    ]
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _no_cursor(source: SourceTable) -> str:
    nullable = [c.name for c in source.columns if base_type(c.type)[0].name in TIME_TYPES]
    if nullable:
        return f"its time columns may be NULL or are not stored ({', '.join(nullable)}); make one NOT NULL"
    return "it has no column of type Date, DateTime or DateTime64; rows without a time can't be cut into windows"


def _cursor(source: SourceTable, cursor: SourceColumn, others: list[SourceColumn]) -> Iterator[str]:
    reasons = [
        text
        for text, true in (
            ("in the sorting key", cursor.name in source.sorting_key),
            ("in the partition key", cursor.name in source.partition_key),
            ("in the TTL", bool(source.ttl and cursor.name in source.ttl)),
        )
        if true
    ]
    yield f"# The cursor orders the rows in time: {cursor.name} is {', '.join(reasons) or 'the first time column'}."
    if others:
        yield f"# Also possible: {', '.join(c.name for c in others)}."
    if cursor.name not in source.sorting_key and cursor.name not in source.partition_key:
        yield "# It is in neither key: every look at a window reads the whole table."
    yield f"cursor: {yaml_text(cursor.name)}"


def _sequence(source: SourceTable) -> Iterator[str]:
    for column in source.columns:
        kind, _ = base_type(column.type)
        if _SEQUENCE.search(column.name) and re.fullmatch(r"U?Int\d+", kind.name):
            yield "# A number that grows with the rows, by its name; its maximum is recorded with each offload."
            yield f"sequence: {yaml_text(column.name)}"
            return


def _source(source: SourceTable, cursor: SourceColumn) -> Iterator[str]:
    merging = _merging(source)
    database, table = identity_of(source).split(".")
    if not merging and (database, table) == (source.database, source.table):
        return
    yield ""
    yield "source:"
    if database != source.database:
        yield f"  database: {yaml_text(source.database)}"
    if table != source.table:
        yield f"  table: {yaml_text(source.table)}"
    if _final(source, cursor):
        yield f"  # {source.engine} merges rows in the background; FINAL reads them merged."
        yield "  final: true"
    elif merging:
        yield f"  # {source.engine} merges rows in the background, but {cursor.name} is not in the sorting key:"
        yield "  # a merge could move a row into another window, so rows are offloaded as they are stored."
        yield "  final: false"


def _final(source: SourceTable, cursor: SourceColumn) -> bool:
    """Whether the rows are to be read merged, and can be."""
    return _merging(source) and cursor.name in source.sorting_key


def _merging(source: SourceTable) -> bool:
    return any(name in source.engine for name in MERGING_ENGINES)


def _times(source: SourceTable, cursor: SourceColumn, stats: Stats) -> Iterator[str]:
    period = (stats.period_us or {}).get(cursor.name)
    merging = _merging(source)
    if base_type(cursor.type)[0].name in ("Date", "Date32"):
        period = human.DAY_US
    yield ""
    if period is not None and (merging or period >= human.DAY_US):
        window = max(period, 5 * human.MINUTE_US)
        span = human.format_duration(period)
        yield f"# Every {cursor.name} is a multiple of {span}: a row spans that long, and a window must be no shorter."
        yield f"period: {span}"
    else:
        window = 5 * human.MINUTE_US
        yield "# Rows are counted and compared per window of cursor time."
    yield f"window: {human.format_duration(window)}"
    yield "# A window is offloaded when it has been over for this long; later rows are healed, at a cost."
    yield "settle: 2m"
    keeps = ttl_us(source)
    horizon = max(window, human.DAY_US)
    if keeps is not None and keeps < 2 * horizon:
        horizon = max(window, keeps // 2 // window * window)
    yield "# How far back late and changed rows are looked for."
    yield f"horizon: {human.format_duration(horizon)}"
    yield from _ttl(source, cursor)
    headroom = short_headroom_us(keeps, window, 2 * human.MINUTE_US)
    if headroom is not None:
        yield "# Rows live shorter than the usual limits of the alerts, 6 hours and a day, are made for."
        yield f"alerts: {{ttl_headroom: {human.format_duration(headroom)}}}"


def _ttl(source: SourceTable, cursor: SourceColumn) -> Iterator[str]:
    columns = [c.name for c in source.columns if c.ttl is not None]
    if source.ttl == UNREADABLE:
        yield "# The TTL can't be read: write when a row is deleted, else no window is ever replaced."
        yield "# ttl: 7d"
    elif source.ttl_group_by:
        yield f"# TTL {source.ttl}"
        yield "# rolls rows up (GROUP BY): windows of this table are offloaded once and never replaced."
    elif source.ttl is not None:
        yield f"# ClickHouse deletes by TTL {' '.join(source.ttl.split())}"
    elif not columns:
        yield "# The table has no TTL. If something else deletes old rows, say after how long:"
        yield "# ttl: 30d"
    if columns:
        yield f"# Column TTLs zero {', '.join(columns)}; a window is never replaced after that."


def _target(source: SourceTable, cursor: SourceColumn, stats: Stats) -> Iterator[str]:
    yield ""
    yield "target:"
    identity = identity_of(source).split(".")
    for key, name in zip(("namespace", "table"), identity, strict=True):
        if not re.fullmatch(TARGET_NAME, name):
            yield "  # Iceberg catalogs agree on lower-case names only."
            yield f"  {key}: {name.lower()}"
    fields, notes = _partition(source, cursor, stats)
    yield from (f"  # {n}" for n in notes)
    yield f"  partition: [{', '.join(yaml_text(f) for f in fields)}]"
    # A column with one value per partition has nothing to sort within a file.
    sort = [k for k in source.sorting_key if _sortable(source, k) and quote_if_needed(k) not in fields]
    if sort:
        yield "  # The sorting key: rows that are read together lie together."
        yield f"  sort: [{', '.join(yaml_text(quote_if_needed(k)) for k in sort)}]"


def _bare_keys(source: SourceTable) -> list[str]:
    """The columns that stand in the partition key without a function around them."""
    names = {c.name for c in source.columns}
    return [k for k in (_unquoted(i) for i in _key_items(source.partition_key)) if k in names]


def _key_items(key: str) -> list[str]:
    text = key.strip()
    wrapped = re.fullmatch(r"(?:tuple)?\((.*)\)", text, re.S)
    return chtypes.split(wrapped[1] if wrapped else text) if text else []


def _unquoted(item: str) -> str:
    return chtypes.unescape(item[1:-1], "`") if item.startswith("`") and item.endswith("`") else item


def _partition(source: SourceTable, cursor: SourceColumn, stats: Stats) -> tuple[list[str], list[str]]:
    """Partition fields as a spec writes them, and why."""
    by_name = {c.name: c for c in source.columns}
    fields: list[str] = []
    notes: list[str] = []
    time_done = False
    for item in _key_items(source.partition_key):
        call = re.fullmatch(r"(\w+)\(([^()]+)\)", item)
        name = _unquoted(call[2].split(",")[0].strip() if call else item)
        column = by_name.get(name)
        if column is None:
            notes.append(f"Iceberg has no transform for {item} of ClickHouse's partition key.")
        elif _final(source, cursor) and name not in source.sorting_key:
            notes.append(f"{name} is not in the sorting key: FINAL could merge rows of two partitions.")
        elif call and call[1] in _TRANSFORMS and base_type(column.type)[0].name in TIME_TYPES:
            fields.append(f"{_TRANSFORMS[call[1]]}({quote_if_needed(name)})")
            time_done = True
        elif call:
            notes.append(f"Iceberg has no transform for {item} of ClickHouse's partition key.")
        elif (stats.distinct or {}).get(name, 0) > MAX_IDENTITY_VALUES:
            notes.append(f"{name} has {(stats.distinct or {})[name]:,} values: buckets instead of one partition each.")
            fields.append(f"bucket(16, {quote_if_needed(name)})")
        elif _partitionable(column):
            fields.append(quote_if_needed(name))
        else:
            notes.append(f"{name} of type {column.type} can't be a partition column in Iceberg.")
    if not time_done:
        daily = (stats.rows_per_day or {}).get(cursor.name) if stats.rows else None
        unit = "day" if daily is None or daily >= DAILY_ROWS_FOR_DAYS else "month"
        fields.insert(0, f"{unit}({quote_if_needed(cursor.name)})")
        notes.append(f"By {unit} of the cursor" + ("." if daily is None else f": about {daily:,} rows a day."))
    else:
        notes.insert(0, f"As in ClickHouse: PARTITION BY {' '.join(source.partition_key.split())}.")
    return fields, notes


def _partitionable(column: SourceColumn) -> bool:
    try:
        ice = icetypes.parse(map_type(column.type).iceberg_type)
    except NoMappingError:
        return False
    return not ice.nested and ice.kind not in ("float", "double")


def _sortable(source: SourceTable, name: str) -> bool:
    column = next((c for c in source.columns if c.name == name), None)
    if column is None:
        return False
    try:
        return not icetypes.parse(map_type(column.type).iceberg_type).nested
    except NoMappingError:
        return False


def _overrides(source: SourceTable, cursor: SourceColumn) -> Iterator[str]:
    refused: list[tuple[SourceColumn, NoMappingError]] = []
    for column in source.columns:
        if column.default_kind in ("ALIAS", "EPHEMERAL"):
            continue
        try:
            map_type(column.type)
        except NoMappingError as error:
            refused.append((column, error))
    if not refused:
        return
    # Only the cursor's override is no choice: without it there is nothing to offload.
    mark = "" if any(column.name == cursor.name for column, _ in refused) else "# "
    yield ""
    yield "# Without a lossless mapping; choose one line for each, or name the column in exclude:"
    yield f"{mark}columns:"
    yield f"{mark}  overrides:"
    for column, refusal in refused:
        yield f"#     {column.name} is {' '.join(column.type.split())}: {refusal.why}"
        if column.name == cursor.name:
            expr = f"toDateTime64({quote_if_needed(cursor.name)}, 6, 'UTC')"
            yield "    # The cursor is cut at microseconds, the finest that Iceberg holds."
            yield f"    {yaml_text(column.name)}: {{expr: {yaml_text(expr)}, type: timestamptz}}"
            continue
        yield from (f"#     {option}" for option in options_for(column, refusal))
