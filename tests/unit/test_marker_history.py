"""Rule 4 on real Iceberg metadata: a table in an SQLite catalog, whose expiry drops the parent's id of what is left."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from include.offload.errors import TARGET_ROLLED_BACK, TARGET_ROWS_REMOVED, OffloadError
from include.offload.lake.marker import Marker, read

PIPELINE = uuid.UUID(int=1)
ROWS = pa.table({"id": pa.array(range(10), pa.int64())})
ONE = Marker(PIPELINE, "source", uuid.UUID(int=2), 1, uuid.UUID(int=4), 5, 0, 0)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    """Two snapshots of rows; the marker names the second one."""
    catalog = SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("ns")
    made = catalog.create_table("ns.t", schema=ROWS.schema)
    made.append(ROWS)
    made.append(ROWS)
    mark(made)
    yield made
    catalog.close()


def mark(table: Table) -> None:
    """Properties as after a commit of ours; the newest snapshot is it."""
    newest = table.current_snapshot()
    assert newest is not None and newest.sequence_number is not None
    marker = replace(ONE, snapshot_id=newest.snapshot_id, sequence_number=newest.sequence_number)
    with table.transaction() as change:
        change.set_properties(marker.properties())


def refusal(table: Table) -> str:
    with pytest.raises(OffloadError) as refused:
        read(table.refresh(), "db.t", PIPELINE)
    return refused.value.id


def accepted(table: Table) -> bool:
    return read(table.refresh(), "db.t", PIPELINE) is not None


def expire_all_but(table: Table, newest: int) -> None:
    """Leave so many snapshots, the newest ones."""
    found = sorted(table.refresh().snapshots(), key=lambda s: s.sequence_number or 0)
    table.maintenance.expire_snapshots().by_ids([s.snapshot_id for s in found[:-newest]]).commit()
    assert len(table.refresh().snapshots()) == newest


def test_the_marker_s_own_snapshot_and_appends_after_it_are_fine(table: Table) -> None:
    assert accepted(table)
    table.append(ROWS)
    assert accepted(table)


@pytest.mark.parametrize("left", [1, 2])
def test_an_append_is_fine_when_what_was_before_it_has_expired(table: Table, left: int) -> None:
    table.append(ROWS)
    table.append(ROWS)
    expire_all_but(table, left)
    oldest = min(table.snapshots(), key=lambda s: s.sequence_number or 0)
    assert oldest.parent_snapshot_id is None, "this catalog drops it, so it tells nothing"
    assert accepted(table)


@pytest.mark.parametrize("condition", ["id = 3", "id >= 0"])
def test_a_foreign_delete_is_seen_also_behind_an_append(table: Table, condition: str) -> None:
    table.delete(condition)
    assert refusal(table) == TARGET_ROWS_REMOVED.id
    table.append(ROWS)
    assert refusal(table) == TARGET_ROWS_REMOVED.id


def test_a_foreign_overwrite_is_seen(table: Table) -> None:
    table.overwrite(ROWS)
    assert refusal(table) == TARGET_ROWS_REMOVED.id


def test_a_delete_before_our_commit_is_no_concern(table: Table) -> None:
    table.delete("id = 3")
    table.append(ROWS)
    mark(table)
    assert accepted(table)


def test_a_roll_back_is_seen_also_behind_an_append(table: Table) -> None:
    first = min(table.snapshots(), key=lambda s: s.sequence_number or 0)
    table.manage_snapshots().rollback_to_snapshot(first.snapshot_id).commit()
    assert refusal(table) == TARGET_ROLLED_BACK.id
    table.append(ROWS)
    assert refusal(table) == TARGET_ROLLED_BACK.id


def test_a_main_that_begins_anew_is_no_expired_history(table: Table) -> None:
    """What CREATE OR REPLACE leaves: properties and UUID, and a first snapshot with a later sequence number."""
    table.manage_snapshots().remove_branch("main").commit()
    assert refusal(table) == TARGET_ROLLED_BACK.id
    table.append(ROWS)
    assert refusal(table) == TARGET_ROLLED_BACK.id
