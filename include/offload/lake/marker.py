"""The commit marker: what the Iceberg table itself says of the last plan that landed (rules 1 to 4)."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import AssertTableUUID, SetPropertiesUpdate

from include.offload.errors import (
    MARKER_NEWER,
    TARGET_FOREIGN,
    TARGET_ROLLED_BACK,
    TARGET_ROWS_REMOVED,
    TARGET_WITHOUT_MARKER,
    OffloadError,
)

VERSION = "1"
"""Raised when code that knows only an older one would misread the marker: it then refuses the table (OFL-316)."""
PREFIX = "offload."
PAST_SOURCES = f"{PREFIX}past-sources"
"""The table property that names the sources of expired snapshots, so that a rebuild still knows of them (rule 2)."""
RETIRED = f"{PREFIX}retired"


class NewerMarkerError(ValueError):
    """A marker that newer code wrote."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Table properties and snapshot summary of a commit of ours. `watermark_us`: µs UTC, None before any.

    `retired_us`: when `retire` ended the table, µs UTC; None: it goes on.
    """

    pipeline: uuid.UUID
    source: str
    plan: uuid.UUID
    generation: int
    attempt: uuid.UUID
    watermark_us: int | None
    snapshot_id: int
    sequence_number: int
    retired_us: int | None = None

    def properties(self) -> dict[str, str]:
        """The `offload.*` entries, the same in table properties and snapshot summary."""
        retired = {} if self.retired_us is None else {RETIRED: str(self.retired_us)}
        return retired | {
            f"{PREFIX}version": VERSION,
            f"{PREFIX}pipeline": str(self.pipeline),
            f"{PREFIX}source": self.source,
            f"{PREFIX}plan": str(self.plan),
            f"{PREFIX}generation": str(self.generation),
            f"{PREFIX}attempt": str(self.attempt),
            f"{PREFIX}watermark": "" if self.watermark_us is None else str(self.watermark_us),
            f"{PREFIX}snapshot-id": str(self.snapshot_id),
            f"{PREFIX}sequence-number": str(self.sequence_number),
        }


def parse(properties: dict[str, str]) -> Marker | None:
    """The marker in a set of properties, None when there is none. Raises ValueError on a mangled or newer one."""
    if f"{PREFIX}plan" not in properties:
        return None

    def get(name: str) -> str:
        value = properties.get(PREFIX + name)
        if value is None:
            raise ValueError(f"the commit marker lacks {PREFIX}{name}")
        return value

    version = get("version")
    if version != VERSION:
        newer = version.isdecimal() and int(version) > int(VERSION)
        said = f"the commit marker has version {version}, this code knows {VERSION}"
        raise NewerMarkerError(said) if newer else ValueError(said)
    watermark = get("watermark")
    retired = properties.get(RETIRED)
    return Marker(
        pipeline=uuid.UUID(get("pipeline")),
        source=get("source"),
        plan=uuid.UUID(get("plan")),
        generation=int(get("generation")),
        attempt=uuid.UUID(get("attempt")),
        watermark_us=int(watermark) if watermark else None,
        snapshot_id=int(get("snapshot-id")),
        sequence_number=int(get("sequence-number")),
        retired_us=int(retired) if retired else None,
    )


def unreadable(error: ValueError, identity: str) -> OffloadError:
    """The refusal for a marker that `parse` does not take: OFL-316 when newer code wrote it, else OFL-304."""
    kind = MARKER_NEWER if isinstance(error, NewerMarkerError) else TARGET_WITHOUT_MARKER
    return OffloadError(kind, str(error), table=identity)


def read(table: Table, identity: str, pipeline: uuid.UUID) -> Marker | None:
    """The marker of a table, checked: ours, and not rolled back. None: the table has no snapshot at all.

    Raises OFL-303 (another pipeline), OFL-304 (data, but no marker), OFL-305 (rolled back), OFL-311 (rows removed),
    OFL-316 (newer code wrote it).
    """
    try:
        marker = parse(table.properties) or recover(table)
    except ValueError as error:
        raise unreadable(error, identity) from error
    if marker is None:
        if table.metadata.snapshots:
            raise OffloadError(
                TARGET_WITHOUT_MARKER, f"{len(table.metadata.snapshots)} snapshots, none with a marker", table=identity
            )
        return None
    if marker.pipeline != pipeline:
        raise OffloadError(TARGET_FOREIGN, f"pipeline {marker.pipeline} wrote it, this is {pipeline}", table=identity)
    check_history(table, marker, identity)
    return marker


def recover(table: Table) -> Marker | None:
    """The newest marker in the snapshot summaries of main's ancestry (rule 3)."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        marker = parse(summary)
        if marker is not None:
            return marker
        snapshot = _parent(table, snapshot.parent_snapshot_id)
    return None


def sources(table: Table) -> set[str]:
    """Every source that a marker of this table names, as far back as summaries are kept; expired ones as remembered."""
    named = [s.summary.additional_properties for s in table.metadata.snapshots if s.summary]
    kept = {p[f"{PREFIX}source"] for p in (*named, table.properties) if p.get(f"{PREFIX}source")}
    return kept | set(json.loads(table.properties.get(PAST_SOURCES, "[]")))


def remember_sources(catalog: Catalog, table: Table) -> None:
    """Keep in the table's properties what its summaries say of earlier sources: they are about to expire.

    No part of the marker, so it makes no snapshot. Raises what the catalog raises; repeating it is safe.
    """
    past = sources(table) - {table.properties.get(f"{PREFIX}source", "")}
    if past <= set(json.loads(table.properties.get(PAST_SOURCES, "[]"))):
        return
    update = SetPropertiesUpdate(updates={PAST_SOURCES: json.dumps(sorted(past))})
    catalog.commit_table(table, (AssertTableUUID(uuid=table.metadata.table_uuid),), (update,))


def check_history(table: Table, marker: Marker, identity: str) -> None:
    """Walk main back to the marker's snapshot (rule 4); where expiry cut the history off, the walk ends well.

    Raises OFL-305 when an older snapshot comes first or main begins anew, OFL-311 when a foreign one took rows away.
    """
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise OffloadError(
            TARGET_ROLLED_BACK, f"main has no snapshot, the marker names {marker.snapshot_id}", table=identity
        )
    while snapshot is not None:
        if snapshot.snapshot_id == marker.snapshot_id:
            return
        if (snapshot.sequence_number is not None and snapshot.sequence_number < marker.sequence_number) or _begins_anew(
            snapshot
        ):
            raise OffloadError(
                TARGET_ROLLED_BACK,
                f"main holds snapshot {snapshot.snapshot_id} (sequence {snapshot.sequence_number}) where the marker"
                f" names {marker.snapshot_id} (sequence {marker.sequence_number})",
                table=identity,
            )
        if _takes_rows(snapshot):
            raise OffloadError(
                TARGET_ROWS_REMOVED,
                f"snapshot {snapshot.snapshot_id} (sequence {snapshot.sequence_number}) is no commit of ours",
                table=identity,
            )
        snapshot = _parent(table, snapshot.parent_snapshot_id)


def _takes_rows(snapshot: Snapshot) -> bool:
    """Whether a snapshot removed or changed rows. Compaction (`replace`) moves them only."""
    if snapshot.summary is None or snapshot.summary.operation not in {Operation.DELETE, Operation.OVERWRITE}:
        return False
    return any(_count(snapshot, name) for name in ("deleted-data-files", "added-delete-files"))


def _begins_anew(snapshot: Snapshot) -> bool:
    """Whether nothing was there before a snapshot. Some catalogs drop the parent's id when the parent expires."""
    first = snapshot.parent_snapshot_id is None and not _count(snapshot, "deleted-data-files")
    return first and _count(snapshot, "total-data-files") == _count(snapshot, "added-data-files")


def _count(snapshot: Snapshot, name: str) -> int:
    """A figure of the snapshot's summary; 0 when it is not there, as Iceberg leaves zeros out."""
    return int(snapshot.summary.additional_properties.get(name, 0)) if snapshot.summary else 0


def _parent(table: Table, snapshot_id: int | None) -> Snapshot | None:
    return None if snapshot_id is None else table.snapshot_by_id(snapshot_id)
