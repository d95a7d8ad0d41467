"""Verify: two readers that share no code say whether Iceberg holds what ClickHouse holds.

First ClickHouse reads the Iceberg table itself (`icebergS3`, given the committed metadata file) and must find the same
count and content hash in every window as in the MergeTree. Second PyIceberg reads it and must find the same count and
the same sum of every number, size and checksum in every column, nested or not.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from urllib.parse import urlsplit

from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.eras import Era, eras, without
from include.offload.errors import RANGE_REFUSED, TARGET_MISSING, OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.lake.evolution import project_onto
from include.offload.ledger import findings, verified
from include.offload.ledger.findings import Finding, Kind
from include.offload.ledger.store import Head
from include.offload.ledger.verified import Seen, Verification
from include.offload.model import ProjectedColumn, Projection, WindowState
from include.offload.planning import LedgerWindow
from include.offload.source.client import Client
from include.offload.source.describe import describe
from include.offload.source.sql import WINDOW, literal, quote, spans_sql, window_sql
from include.offload.spec.model import TableSpec
from include.offload.sums import ColumnSum, Sums
from include.offload.windows import ALL_TIME, Grid, Span, merge, subtract

MAX_HOLES = 200
"""Into how many pieces verify cuts a table at most: each is a condition of every query of both readers."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A window in which ClickHouse and Iceberg differ, as ClickHouse reads both."""

    span: Span
    source: WindowState
    lake: WindowState

    def __str__(self) -> str:
        what = "rows" if self.source.rows != self.lake.rows else "content"
        return f"{self.span}: {what} differ, ClickHouse {self.source.rows}, Iceberg {self.lake.rows}"


@dataclass(frozen=True, slots=True)
class OlderWindows:
    """Shipped windows from before the named columns were; `hashed` False: no column is known, rows were counted."""

    windows: int
    without: tuple[str, ...]
    hashed: bool

    def __str__(self) -> str:
        how = "compared without" if self.hashed else "only counted, the ledger does not know their columns:"
        return f"{self.windows} windows are older than a change of the columns: {how} {', '.join(self.without)}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verify found in `span`. `skipped_before_us`: windows before it have begun to expire in ClickHouse.

    `left_out`: within `span`, what is not compared: of it ClickHouse no longer holds all, as a recovery found or as
    its TTL says. `lake_total`, `ledger_total`: rows of the whole Iceberg table, wherever they lie, and of all that was
    shipped; None where only a range is compared, or a run landed just then.
    """

    table: str
    span: Span
    skipped_before_us: int | None
    windows: int
    source_rows: int
    lake_rows: int
    pyiceberg_rows: int
    differences: tuple[Difference, ...]
    sums: tuple[ColumnSum, ...]
    snapshot_id: int | None
    seconds: float
    older: tuple[OlderWindows, ...] = ()
    """Windows that were shipped before a column was: there that column is not compared."""
    left_out: tuple[Span, ...] = ()
    not_chosen: tuple[Span, ...] = ()
    lake_total: int | None = None
    ledger_total: int | None = None

    @property
    def ok(self) -> bool:
        return (
            not self.differences
            and self.lake_total == self.ledger_total
            and self.source_rows == self.lake_rows == self.pyiceberg_rows
            and all(s.equal for s in self.sums)
        )

    def findings(self) -> list[str]:
        """What is not equal, one sentence each; empty when all is."""
        found = [str(d) for d in self.differences]
        found += [
            f"sum of the {s.what} of {s.column}: ClickHouse {s.source}, PyIceberg {s.lake}"
            for s in self.sums
            if not s.equal
        ]
        if not self.source_rows == self.lake_rows == self.pyiceberg_rows:
            found.append(
                f"rows: ClickHouse {self.source_rows}, Iceberg read by ClickHouse {self.lake_rows}, by PyIceberg"
                f" {self.pyiceberg_rows}"
            )
        if self.lake_total != self.ledger_total:
            found.append(
                f"rows of the whole table: Iceberg {self.lake_total}, shipped {self.ledger_total}; what no window"
                " accounts for was appended or deleted by somebody else"
            )
        return found


def verify(ctx: Context, spec: TableSpec, from_us: int | None = None, to_us: int | None = None) -> VerifyReport:
    """Compare all accounted windows (or those of a range, µs UTC) that have not begun to expire, and all rows counted.

    What it finds stays in the ledger until these windows are seen to be equal, and is sent as a metric. Raises OFL-309
    when the Iceberg table is gone, OFL-407 when there is nothing to compare.
    """
    return record(ctx, spec, read_both(ctx, spec, from_us, to_us))


@dataclass(frozen=True, slots=True)
class Reading:
    """What both readers saw, by window number, and what it was read beside.

    head, marker: the ledger's head and the plan of the table's marker when it began; shipped: what the ledger says of
    the windows that were compared; fingerprint: today's projection's.
    began_at: by the ledger's clock; now_us: by ClickHouse's.
    """

    report: VerifyReport
    head: Head
    marker: str | None
    shipped: Mapping[int, LedgerWindow]
    source: Mapping[int, WindowState]
    lake: Mapping[int, WindowState]
    fingerprint: str
    began_at: datetime
    now_us: int


def record(ctx: Context, spec: TableSpec, reading: Reading) -> VerifyReport:
    """Keep what was found until the same windows are seen to be equal, and of each window that it was seen."""
    report, grid, table_id = reading.report, Grid(spec.window_us), reading.head.table_id
    looked_at, found = compared_by(report)
    known = findings.compared(ctx.ledger, table_id, grid, looked_at, found)
    different = merge(f.span for f in found if f.kind is Kind.VERIFY)
    seen = [_seen(reading, n, grid, different) for n in sorted({*reading.shipped, *reading.source, *reading.lake})]
    differing = sum(not w.equal for w in seen)
    run = Verification(reading.began_at, len(seen), differing, report.ok, report.snapshot_id)
    verified.record(ctx.ledger, table_id, run, seen)
    ctx.metrics.verified(spec.identity, known)
    ctx.metrics.compared(spec.identity, equal=len(seen) - differing, differing=differing)
    return report


def _seen(reading: Reading, number: int, grid: Grid, different: Sequence[Span]) -> Seen:
    nothing = WindowState(number, 0, 0)
    span = grid.span(number)
    source, lake = reading.source.get(number, nothing), reading.lake.get(number, nothing)
    at = bisect_left(different, span.hi, key=lambda s: s.lo) - 1
    return Seen(span.lo, source.rows, lake.rows, at < 0 or not different[at].overlaps(span))


def compared_by(report: VerifyReport) -> tuple[dict[Kind, tuple[Span, ...]], list[Finding]]:
    """What a report looked at, and what differs there.

    Windows that have begun to expire are not compared: a difference that was found there earlier stays, until somebody
    accepts it. What no window shows counts as one.
    """
    spans = tuple(subtract(report.span, (*report.left_out, *report.not_chosen)))
    looked_at = {Kind.VERIFY: spans, Kind.RECONCILE: spans}
    found = [Finding(Kind.VERIFY, d.span, 1) for d in report.differences]
    if report.lake_total is not None:
        looked_at[Kind.TOTAL] = (ALL_TIME,)
        if report.lake_total != report.ledger_total:
            found.append(Finding(Kind.TOTAL, ALL_TIME, 1))
    if not report.ok and not found:
        found += [Finding(Kind.VERIFY, span, 1) for span in spans]
    return looked_at, found


def read_both(
    ctx: Context, spec: TableSpec, from_us: int | None, to_us: int | None, leave: Sequence[Span] = ()
) -> Reading:
    """Let both readers compare a range, without what is to be left; nothing is recorded. Raises as `verify`."""
    started, began_at = time.monotonic(), verified.now(ctx.ledger)
    head = ctx.ledger.head(spec.identity)
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    if head is None or head.watermark_us is None or head.origin_us is None:
        raise OffloadError(RANGE_REFUSED, "nothing was offloaded yet", table=spec.identity)
    grid = Grid(spec.window_us)
    with ctx.connect(spec, f"offload verify {spec.identity}") as client:
        asked = Span(
            grid.floor(from_us) if from_us is not None else head.origin_us,
            min(grid.ceil(to_us), head.watermark_us) if to_us is not None else head.watermark_us,
        )
        now_us = client.now_us()
        span, skipped, left_out = _unexpired(ctx, spec, asked, now_us)
        not_chosen = tuple(part for s in leave for part in _within(s, span))
        described = describe(client, spec.source.database, spec.source.table, spec.identity)
        projection = project_onto(spec, described, table)
        source = f"{quote(spec.source.database)}.{quote(spec.source.table)}{' FINAL' if spec.source.final else ''}"
        if table is None:
            if _windows(client, source, spec.cursor, grid, "0", [span]):
                raise OffloadError(TARGET_MISSING, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
            nothing = VerifyReport(spec.identity, span, skipped, 0, 0, 0, 0, (), (), None, time.monotonic() - started)
            return Reading(nothing, head, None, {}, {}, {}, projection.fingerprint, began_at, now_us)
        known = without(eras(ctx, head, table, projection, grid, span), (*left_out, *not_chosen))
        shipped, _ = ctx.ledger.windows(head, grid, [s for era in known for s in era.spans])
        ours: dict[int, WindowState] = {}
        theirs: dict[int, WindowState] = {}
        sums = Sums(projection.columns)
        for era in known:
            ours |= _windows(client, source, spec.cursor, grid, _source_hash(era.columns), era.spans)
            theirs |= _windows(client, lake_source(table), spec.cursor, grid, lake_hash(era.columns), era.spans)
            sums.add_source(client, source, spec.cursor, era)
    rows = sum(sums.add_lake(table, spec.cursor, era) for era in known)
    of_all = totals(ctx, spec, head, table) if from_us is None and to_us is None else (None, None)
    report = VerifyReport(
        table=spec.identity,
        span=span,
        skipped_before_us=skipped,
        windows=len(ours.keys() | theirs.keys()),
        source_rows=sum(w.rows for w in ours.values()),
        lake_rows=sum(w.rows for w in theirs.values()),
        pyiceberg_rows=rows,
        differences=_differences(ours, theirs, grid),
        sums=sums.compared(),
        snapshot_id=table.metadata.current_snapshot_id,
        seconds=time.monotonic() - started,
        older=tuple(_older(e, projection) for e in known if len(e.columns) < len(projection.columns)),
        left_out=left_out,
        not_chosen=not_chosen,
        lake_total=of_all[0],
        ledger_total=of_all[1],
    )
    marker = table.properties.get(f"{markers.PREFIX}plan")
    return Reading(report, head, marker, shipped, ours, theirs, projection.fingerprint, began_at, now_us)


def _within(span: Span, whole: Span) -> Sequence[Span]:
    return [Span(max(span.lo, whole.lo), min(span.hi, whole.hi))] if span.overlaps(whole) else []


def totals(ctx: Context, spec: TableSpec, head: Head, table: Table) -> tuple[int | None, int | None]:
    """Rows of the current snapshot, as its summary says, and of all shipped windows, when both speak of one plan.

    Costs no read of the table. Rows before its beginning or after the watermark are in no span that is compared.
    """
    snapshot = table.current_snapshot()
    total = None if snapshot is None or snapshot.summary is None else snapshot.summary["total-records"]
    shipped, _ = ctx.ledger.windows(head, Grid(spec.window_us), [ALL_TIME])
    now = ctx.ledger.head(spec.identity)
    plans = {str(head.plan_id), str(now and now.plan_id), table.properties.get(f"{markers.PREFIX}plan")}
    if total is None or len(plans) > 1:
        return None, None
    return int(total), sum(w.state.rows for w in shipped.values())


def _older(era: Era, projection: Projection) -> OlderWindows:
    without = tuple(c.name for c in projection.columns if c not in era.columns)
    return OlderWindows(era.windows, without, bool(era.columns))


def _unexpired(ctx: Context, spec: TableSpec, asked: Span, now_us: int) -> tuple[Span, int | None, tuple[Span, ...]]:
    """A range without the windows at its beginning that have begun to expire; the ledger knows when each one does.

    And what of the rest is to be left out: such a window says nothing of those before it, where each row has a life of
    its own. Bounded: no more than MAX_HOLES spans, the smallest gaps between them, and of those that hold no window to
    compare first, are left out too.
    """
    head = ctx.ledger.head(spec.identity)
    if head is None or asked.hi <= asked.lo:
        raise OffloadError(RANGE_REFUSED, f"nothing was offloaded in {asked.lo}..{asked.hi} µs", table=spec.identity)
    grid = Grid(spec.window_us)
    shipped, _ = ctx.ledger.windows(head, grid, [asked])
    gone = {n for n, w in shipped.items() if w.state.expiry_us is not None and w.state.expiry_us <= now_us}
    holes = few(merge(map(grid.span, gone)), [grid.span(n).lo for n in sorted(shipped.keys() - gone)], MAX_HOLES)
    span, skipped = asked, None
    if holes and holes[0].lo <= asked.lo:
        skipped = holes[0].hi
        span, holes = Span(min(skipped, asked.hi), asked.hi), holes[1:]
    if not any(subtract(span, holes)):
        raise OffloadError(RANGE_REFUSED, "all of it has begun to expire in ClickHouse", table=spec.identity)
    return span, skipped, holes


def few(holes: Sequence[Span], wanted: Sequence[int], most: int) -> tuple[Span, ...]:
    """At most `most` spans that cover these disjoint, sorted ones. wanted: sorted instants to spare where possible."""

    def cost(gap: Span) -> tuple[int, int]:
        return bisect_left(wanted, gap.hi) - bisect_left(wanted, gap.lo), gap.hi - gap.lo

    gaps = [Span(a.hi, b.lo) for a, b in pairwise(holes)]
    return merge([*holes, *sorted(gaps, key=cost)[: max(0, len(holes) - most)]])


def lake_source(table: Table) -> str:
    """The ClickHouse table function that reads this Iceberg table at its committed metadata file."""
    properties = table.io.properties
    location = urlsplit(table.location())
    metadata = table.metadata_location.removeprefix(table.location()).lstrip("/")
    if location.scheme in {"s3", "s3a", "s3n"}:
        endpoint = str(properties.get("s3.endpoint", "")).rstrip("/")
        if not endpoint:
            region = properties.get("s3.region", "us-east-1")
            endpoint = f"https://s3.{region}.amazonaws.com"
        url = f"{endpoint}/{location.netloc}{location.path}/"
        keys = [str(properties.get(k, "")) for k in ("s3.access-key-id", "s3.secret-access-key")]
        arguments = ", ".join(literal(v) for v in ([url, *keys] if all(keys) else [url]))
        function = "icebergS3"
    elif location.scheme in {"file", ""}:
        function, arguments = "icebergLocal", literal(location.path + "/")
    else:
        raise OffloadError(RANGE_REFUSED, f"ClickHouse reads no Iceberg table at {location.scheme}://")
    return f"{function}({arguments}, SETTINGS iceberg_metadata_file_path = {literal(metadata)})"


def source_rows(client: Client, spec: TableSpec, span: Span) -> dict[int, int]:
    """Rows per window of the source within `span`."""
    source = f"{quote(spec.source.database)}.{quote(spec.source.table)}{' FINAL' if spec.source.final else ''}"
    sql = (
        f"SELECT {window_sql(spec.cursor, spec.window_us)} AS {WINDOW}, count() FROM {source}"
        f" WHERE {spans_sql(spec.cursor, [span])} GROUP BY {WINDOW}"
    )
    return {int(w): int(n) for w, n in client.query(sql)}


def lake_windows(client: Client, table: Table, spec: TableSpec, projection: Projection) -> dict[int, WindowState]:
    """Rows and content hash per window of the whole lake table, as ClickHouse reads it."""
    grid = Grid(spec.window_us)
    return _windows(client, lake_source(table), spec.cursor, grid, lake_hash(projection.columns), None)


def lake_expiries(client: Client, table: Table, spec: TableSpec, expiry: str) -> dict[int, int]:
    """The first expiry per window of the lake table, µs UTC; a window of which nothing ever expires is not in it.

    Raises OFL-2xx when the TTL needs what the lake lacks.
    """
    sql = (
        f"SELECT {window_sql(spec.cursor, spec.window_us)} AS {WINDOW}, toUnixTimestamp64Micro(min({expiry}))"
        f" FROM {lake_source(table)} GROUP BY {WINDOW}"
    )
    return {int(w): int(e) for w, e in client.query(sql) if e is not None}


def lake_hash(columns: Sequence[ProjectedColumn]) -> str:
    """The row hash as ClickHouse computes it over the lake's own columns."""
    return f"cityHash64(tuple({', '.join(quote(c.name) for c in columns)}))" if columns else "0"


def _source_hash(columns: Sequence[ProjectedColumn]) -> str:
    return Projection(tuple(columns), "").hash_sql if columns else "0"


def _windows(
    client: Client, source: str, cursor: str, grid: Grid, hash_sql: str, spans: Sequence[Span] | None
) -> dict[int, WindowState]:
    where = "" if spans is None else f" WHERE {spans_sql(cursor, spans)}"
    window = f"{window_sql(cursor, grid.width_us)} AS {WINDOW}"
    sql = f"SELECT {window}, count(), sum({hash_sql}) FROM {source}{where} GROUP BY {WINDOW}"
    return {int(w): WindowState(int(w), int(n), int(h)) for w, n, h in client.query(sql)}


def _differences(
    ours: Mapping[int, WindowState], theirs: Mapping[int, WindowState], grid: Grid
) -> tuple[Difference, ...]:
    out = []
    for number in sorted(ours.keys() | theirs.keys()):
        nothing = WindowState(number, 0, 0)
        source, lake = ours.get(number, nothing), theirs.get(number, nothing)
        if source != lake:
            out.append(Difference(grid.span(number), source, lake))
    return tuple(out)
