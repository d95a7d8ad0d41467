"""Main of an Iceberg table, set back to the last commit of ours: what undoes a roll-back without losing a row (rule 4).

A rebuild takes what main holds now as the truth, and ships the rest again as far as ClickHouse still has it. While the
marker's snapshot is there, main can be set to it instead, and every row that was ever shipped is back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    AssertTableUUID,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from include.offload.errors import TARGET_ROLLED_BACK, TARGET_WITHOUT_MARKER, OffloadError
from include.offload.lake import marker as markers
from include.offload.lake.marker import Marker

TAG = "offload-undone-"


@dataclass(frozen=True, slots=True)
class Undoing:
    """What setting main to the marker's snapshot would do.

    now: main's snapshot, None when main is gone; then: the marker's. leaving: what is on main now and will not be,
    the newest first; it stays readable by the tag `tag`, None when nothing leaves.
    """

    table: str
    now: int | None
    then: int
    leaving: tuple[Snapshot, ...]

    @property
    def tag(self) -> str | None:
        """The name that keeps what leaves main."""
        return f"{TAG}{self.now}" if self.leaving else None

    @property
    def nothing(self) -> bool:
        """Whether main is there already."""
        return self.now == self.then

    def __str__(self) -> str:
        if self.nothing:
            return f"{self.table}: main is at the last commit of the offload, snapshot {self.then}; nothing to undo"
        told = [f"{self.table}: main is at snapshot {self.now or 'none'}, the offload committed {self.then} last"]
        for one in self.leaving:
            summary = one.summary
            changes = {} if summary is None else summary.additional_properties
            rows = [f"{sign}{changes[key]} rows" for sign, key in SIGNS if key in changes]
            kind = "?" if summary is None else summary.operation.value
            told.append(f"leaves main: snapshot {one.snapshot_id}, {' '.join([kind, *rows])}")
        if self.tag:
            told.append(f"what leaves main stays readable by the tag {self.tag}")
        return "\n".join(told)


SIGNS = (("+", "added-records"), ("-", "deleted-records"))


def undoing(table: Table, identity: str) -> Undoing:
    """What would be undone. Reads the table's metadata only.

    Raises OFL-304 when its properties hold no marker, OFL-305 when the marker's snapshot has expired, or when the
    table was replaced by one of other columns: then only a rebuild goes on.
    """
    try:
        marker = markers.parse(table.properties)
    except ValueError as error:
        raise markers.unreadable(error, identity) from error
    if marker is None:
        raise OffloadError(TARGET_WITHOUT_MARKER, "its properties hold no marker to go back to", table=identity)
    return _undoing(table, marker, identity)


def _undoing(table: Table, marker: Marker, identity: str) -> Undoing:
    wanted = table.snapshot_by_id(marker.snapshot_id)
    if wanted is None:
        raise OffloadError(
            TARGET_ROLLED_BACK,
            f"the offload's last commit, snapshot {marker.snapshot_id}, has expired: main can not be set to it,"
            " and `ledger rebuild` is what is left",
            table=identity,
        )
    current = table.current_snapshot()
    kept = {one.snapshot_id for one in _ancestry(table, wanted)}
    on_main = list(_ancestry(table, current))
    if on_main and not kept & {one.snapshot_id for one in on_main} and _columns_differ(table, wanted):
        raise OffloadError(
            TARGET_ROLLED_BACK,
            f"the table was replaced by one of other columns; the offload's last commit is snapshot"
            f" {marker.snapshot_id}: copy what you need from it, and `ledger rebuild`",
            table=identity,
        )
    leaving = tuple(one for one in on_main if one.snapshot_id not in kept)
    return Undoing(identity, None if current is None else current.snapshot_id, marker.snapshot_id, leaving)


def undo(catalog: Catalog, table: Table, what: Undoing) -> None:
    """Set main, and the tag, in one commit; on nothing else than what was looked at.

    Raises what the catalog raises; a commit of somebody else that came between is a CommitFailedException.
    """
    requirements: list[TableRequirement] = [
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=what.now),
    ]
    updates: list[TableUpdate] = []
    if what.tag is not None and what.now is not None and what.tag not in table.metadata.refs:
        requirements.append(AssertRefSnapshotId(ref=what.tag, snapshot_id=None))
        updates.append(_ref(what.tag, SnapshotRefType.TAG, what.now, None))
    # what somebody chose for main's expiry stays chosen
    updates.append(_ref(MAIN_BRANCH, SnapshotRefType.BRANCH, what.then, table.metadata.refs.get(MAIN_BRANCH)))
    catalog.commit_table(table, tuple(requirements), tuple(updates))


def _ref(name: str, kind: SnapshotRefType, snapshot_id: int, like: SnapshotRef | None) -> SetSnapshotRefUpdate:
    return SetSnapshotRefUpdate(
        ref_name=name,
        type=kind,
        snapshot_id=snapshot_id,
        max_ref_age_ms=like.max_ref_age_ms if like else None,
        max_snapshot_age_ms=like.max_snapshot_age_ms if like else None,
        min_snapshots_to_keep=like.min_snapshots_to_keep if like else None,
    )


def _ancestry(table: Table, snapshot: Snapshot | None) -> Iterator[Snapshot]:
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.snapshot_by_id(parent)


def _columns_differ(table: Table, wanted: Snapshot) -> bool:
    """Whether a snapshot's columns are not among those of today, each with its id, name and type."""
    schema = table.schemas().get(wanted.schema_id) if wanted.schema_id is not None else None
    if schema is None:
        return True
    now = {(field.field_id, field.name, str(field.field_type)) for field in table.schema().fields}
    return not {(field.field_id, field.name, str(field.field_type)) for field in schema.fields} <= now
