"""Main set back to our last commit, on real Iceberg metadata: tables in an SQLite catalog, one of it each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from include.offload.errors import TARGET_ROLLED_BACK, TARGET_WITHOUT_MARKER, OffloadError
from include.offload.lake.mainline import Undoing, undo, undoing
from include.offload.lake.marker import Marker, read

PIPELINE = uuid.UUID(int=1)
ROWS = pa.table({"id": pa.array(range(10), pa.int64())})
ONE = Marker(PIPELINE, "source", uuid.UUID(int=2), 1, uuid.UUID(int=4), 5, 0, 0)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    made = SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}")
    made.create_namespace("ns")
    yield made
    made.close()


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    """Three snapshots of ten rows; the marker names the third one."""
    made = catalog.create_table("ns.t", schema=ROWS.schema)
    for _ in range(3):
        made.append(ROWS)
    newest = made.current_snapshot()
    assert newest is not None and newest.sequence_number is not None
    marker = replace(ONE, snapshot_id=newest.snapshot_id, sequence_number=newest.sequence_number)
    with made.transaction() as change:
        change.set_properties(marker.properties())
    return made


def back(table: Table) -> None:
    """Somebody rolls main back by two commits."""
    oldest = min(table.snapshots(), key=lambda s: s.sequence_number or 0)
    table.manage_snapshots().rollback_to_snapshot(oldest.snapshot_id).commit()


def rows(table: Table) -> int:
    return table.refresh().scan().to_arrow().num_rows


def undone(catalog: SqlCatalog, table: Table) -> Undoing:
    what = undoing(table.refresh(), "db.t")
    undo(catalog, table, what)
    assert read(table.refresh(), "db.t", PIPELINE) is not None, "the offload goes on"
    assert undoing(table, "db.t").nothing
    return what


def test_a_roll_back_is_undone_and_nothing_leaves(catalog: SqlCatalog, table: Table) -> None:
    back(table)
    assert rows(table) == 10
    with pytest.raises(OffloadError):
        read(table, "db.t", PIPELINE)
    what = undone(catalog, table)
    assert (what.leaving, what.tag) == ((), None)
    assert rows(table) == 30


@pytest.mark.parametrize("act", ["append", "delete"])
def test_what_others_did_leaves_main_and_is_kept_by_a_tag(catalog: SqlCatalog, table: Table, act: str) -> None:
    if act == "append":
        back(table)
        table.append(ROWS)
    else:
        table.delete("id < 4")
    there = rows(table)
    what = undone(catalog, table)
    assert len(what.leaving) == 1
    assert ("+10 rows" if act == "append" else "-30 rows") in str(what)
    assert rows(table) == 30
    assert what.tag is not None and what.tag in str(what)
    kept = table.snapshot_by_name(what.tag)
    assert kept is not None
    assert table.scan(snapshot_id=kept.snapshot_id).to_arrow().num_rows == there


def test_main_where_it_belongs_is_left_alone(table: Table) -> None:
    what = undoing(table, "db.t")
    assert what.nothing
    assert "nothing to undo" in str(what)


def test_what_has_expired_is_not_brought_back(table: Table) -> None:
    newest = table.current_snapshot()
    back(table)
    assert newest is not None
    table.maintenance.expire_snapshots().by_id(newest.snapshot_id).commit()
    with pytest.raises(OffloadError, match="has expired") as refused:
        undoing(table.refresh(), "db.t")
    assert refused.value.kind is TARGET_ROLLED_BACK


def test_a_table_without_a_marker_has_nothing_to_go_back_to(catalog: SqlCatalog) -> None:
    made = catalog.create_table("ns.bare", schema=ROWS.schema)
    made.append(ROWS)
    with pytest.raises(OffloadError) as refused:
        undoing(made, "db.bare")
    assert refused.value.kind is TARGET_WITHOUT_MARKER


def test_a_commit_that_came_between_is_not_taken_off_main(catalog: SqlCatalog, table: Table) -> None:
    back(table)
    old = catalog.load_table("ns.t")
    what = undoing(old, "db.t")
    table.append(ROWS)
    with pytest.raises(CommitFailedException):
        undo(catalog, old, what)
    assert rows(table) == 20
