"""Decide what a table needs, from its metadata alone (docs/howto-maintain.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pyiceberg.table import Table

from include.offload.context import Context
from include.offload.errors import TARGET_MISSING, OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.lake.marker import Marker
from include.offload.lake.reach import reaching
from include.offload.maintenance.model import Bounds, Care, MaintenancePlan, Skipped, Step
from include.offload.maintenance.survey import FileFact, bounds, facts, measure
from include.offload.source.icetypes import text_of
from include.offload.spec.fields import TIME_TRANSFORMS, split_transform
from include.offload.spec.model import Maintenance, TableSpec
from include.offload.windows import Span, from_us, merge, to_us

MIN_FILES = 5
"""Fewer small files of one partition are left alone, Iceberg's own default: a late row must not rewrite a day."""
MANY_MANIFESTS = 10
"""So many manifests more than their bytes need are rewritten."""
MANIFEST_BYTES = 8 * 2**20
"""Iceberg's target size of a manifest (`commit.manifest.target-size-bytes`)."""
ORPHAN_JOBS = 4
"""A file may be the work of a job that still runs; removal waits for so many times the longest one (rule 13)."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to compact now. spans: cursor time; max_files: see Step. left_bytes: for the next runs."""

    spans: tuple[Span, ...]
    files: int
    bytes: int
    left_bytes: int
    max_files: int | None = None


def plan_maintenance(ctx: Context, spec: TableSpec, now_us: int) -> MaintenancePlan:
    """What `spec`'s table needs at `now_us` (µs UTC).

    Raises OFL-309 when there is no Iceberg table, OFL-303 to OFL-305 and OFL-311 when the offload would refuse it too:
    what somebody did to it is not made permanent.
    """
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    if table is None:
        raise OffloadError(TARGET_MISSING, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
    with reaching(spec.identity):
        marker = markers.read(table, spec.identity, ctx.pipeline)
        files = facts(table, spec.cursor)
        sizes = bounds(files, spec.maintenance.file_size, spec.slice.rows, spec.slice.bytes)
        before = measure(table, files, sizes.small)
    care = spec.maintenance
    settled_us = None if marker is None else marker.watermark_us
    longest_us = ctx.settings.job_timeout_s * 1_000_000
    wanted = (
        _compact(files, sizes, care, settled_us, slot_of(spec)),
        _manifests(before.manifests, before.metadata_bytes),
        _expire(table, marker, care, now_us),
        _orphans(table, care, now_us, longest_us),
        _statistics(table, care),
    )
    return MaintenancePlan(
        table=spec.identity,
        target=(spec.target.namespace, spec.target.table),
        cursor=spec.cursor,
        cursor_type=text_of(table.schema().find_type(spec.cursor)),
        strategy=care.strategy,
        bounds=sizes,
        before=before,
        steps=tuple(s for s in wanted if isinstance(s, Step)),
        skipped=tuple(s for s in wanted if isinstance(s, Skipped)),
    )


# ---- compaction ------------------------------------------------------------------------------------------------------

Slot = Callable[[int], Span]


def slot_of(spec: TableSpec) -> Slot | None:
    """Cursor time (µs UTC) to the time partition that holds it; None for a table without a partition by time."""
    units = [
        split_transform(f.transform)[0]
        for f in spec.target.partition
        if f.column == spec.cursor and split_transform(f.transform)[0] in TIME_TRANSFORMS
    ]
    if not units:
        return None
    finest = max(units, key=TIME_TRANSFORMS.index)
    return lambda us: time_partition(finest, us)


def time_partition(unit: str, us: int) -> Span:
    """The year, month, day or hour around an instant, UTC."""
    lo = from_us(us).replace(minute=0, second=0, microsecond=0)
    if unit == "hour":
        return Span(to_us(lo), to_us(lo + timedelta(hours=1)))
    lo = lo.replace(hour=0)
    if unit == "day":
        return Span(to_us(lo), to_us(lo + timedelta(days=1)))
    lo = lo.replace(day=1)
    if unit == "month":
        return Span(to_us(lo), to_us((lo + timedelta(days=32)).replace(day=1)))
    lo = lo.replace(month=1)
    return Span(to_us(lo), to_us(lo.replace(year=lo.year + 1)))


def choose(
    files: Sequence[FileFact], sizes: Bounds, settled_us: int, slot: Slot | None, most_bytes: int
) -> Chosen | None:
    """The settled partitions to compact, the oldest first, until `most_bytes`; None: all are as they should be.

    A partition that no window of which is open gets no more rows, but for late ones.
    """
    groups: dict[Span, list[FileFact]] = defaultdict(list)
    for file in files:
        if file.lo_us is None or file.hi_us is None:
            continue
        span = Span(-(2**62), settled_us) if slot is None else slot(file.lo_us)
        # a file of an older, coarser partition spec may reach beyond
        if span.hi <= settled_us and file.hi_us < span.hi:
            groups[span].append(file)
    needed = {span: chosen for span, found in sorted(groups.items()) if (chosen := candidates(found, sizes))}
    if not needed:
        return None
    taken: list[Span] = []
    size = count = 0
    for span, found in needed.items():
        here = sum(f.bytes for f in found)
        if taken and size + here > most_bytes:
            break
        taken.append(span)
        size, count = size + here, count + len(found)
    total = sum(f.bytes for found in needed.values() for f in found)
    if size <= most_bytes:
        return Chosen(tuple(taken), count, size, total - size)
    # one partition alone is too much: as many of its files as fit for sure, whichever Iceberg takes
    largest = sorted((f.bytes for f in needed[taken[0]]), reverse=True)
    fits = fitting(largest, most_bytes)
    some = sum(largest[:fits])
    return Chosen((taken[0],), fits, some, total - some, max_files=fits)


def fitting(sizes: Iterable[int], most: int) -> int:
    """How many of these sizes, in this order, are no more than `most` together; two at least, or nothing is joined."""
    total = count = 0
    for size in sizes:
        total += size
        if total > most and count >= 2:
            break
        count += 1
    return count


def candidates(files: Sequence[FileFact], sizes: Bounds) -> list[FileFact]:
    """The files of a time partition that Iceberg would rewrite, by the options that it is given."""
    small = Counter(f.partition for f in files if f.bytes < sizes.small)
    return [f for f in files if f.deletes or (f.bytes < sizes.small and small[f.partition] >= MIN_FILES)]


def _compact(
    files: Sequence[FileFact], sizes: Bounds, care: Maintenance, settled_us: int | None, slot: Slot | None
) -> Step | Skipped:
    if settled_us is None:
        return Skipped(Care.COMPACT, "nothing is settled yet")
    chosen = choose(files, sizes, settled_us, slot, care.bytes_per_run)
    if chosen is None:
        return Skipped(Care.COMPACT, f"no settled partition holds {MIN_FILES} files below {sizes.small:,} bytes")
    why = f"{chosen.files} files of {chosen.bytes:,} bytes in {len(chosen.spans)} settled partitions"
    if chosen.left_bytes:
        why += f"; {chosen.left_bytes:,} bytes are left for the next runs"
    # a commit for each partition; neighbours of an hour's partition share one
    spans = merge(chosen.spans) if len(chosen.spans) > MOST_COMMITS else chosen.spans
    return Step(Care.COMPACT, why, spans=tuple(spans), max_files=chosen.max_files)


MOST_COMMITS = 31
"""More partitions than a month has days are compacted span by span."""

# ---- metadata --------------------------------------------------------------------------------------------------------


def _manifests(manifests: int, metadata_bytes: int) -> Step | Skipped:
    needed = -(-metadata_bytes // MANIFEST_BYTES)
    if manifests <= needed + MANY_MANIFESTS:
        return Skipped(Care.MANIFESTS, f"{manifests} manifests are few enough")
    return Step(Care.MANIFESTS, f"{manifests} manifests, {needed} would do")


def _expire(table: Table, marker: Marker | None, care: Maintenance, now_us: int) -> Step | Skipped:
    """Snapshots older than the spec's age expire, but for the newest ones, and never the marker's own.

    With it the summaries of main keep naming the last plan, and `restore-main` has a snapshot to go back to.
    """
    cut_us = now_us - care.snapshot_age_us
    own = None if marker is None else table.snapshot_by_id(marker.snapshot_id)
    if own is not None:
        # strictly older ones expire, so this one stays
        cut_us = min(cut_us, own.timestamp_ms * 1000)
    newest = sorted((s.timestamp_ms for s in table.metadata.snapshots), reverse=True)
    old = [ms for ms in newest[care.snapshots :] if ms * 1000 < cut_us]
    if not old:
        return Skipped(Care.EXPIRE, f"none of {len(newest)} snapshots is old enough")
    why = f"{len(old)} snapshots from before {from_us(cut_us):%Y-%m-%dT%H:%M:%SZ}"
    return Step(Care.EXPIRE, why, older_than_us=cut_us, keep=care.snapshots)


def _orphans(table: Table, care: Maintenance, now_us: int, longest_us: int) -> Step | Skipped:
    if care.orphan_age_us is None:
        return Skipped(Care.ORPHANS, "the spec wants none removed")
    if table.metadata.current_snapshot_id is None:
        return Skipped(Care.ORPHANS, "the table has no snapshot")
    cut_us = now_us - max(care.orphan_age_us, ORPHAN_JOBS * longest_us)
    why = f"files that no snapshot names, from before {from_us(cut_us):%Y-%m-%dT%H:%M:%SZ}"
    return Step(Care.ORPHANS, why, older_than_us=cut_us)


def _statistics(table: Table, care: Maintenance) -> Step | Skipped:
    if not care.statistics:
        return Skipped(Care.STATISTICS, "the spec wants none")
    current = table.metadata.current_snapshot_id
    if current is None or any(s.snapshot_id == current for s in table.metadata.statistics):
        return Skipped(Care.STATISTICS, "the current snapshot has them")
    return Step(Care.STATISTICS, "the current snapshot has none")
