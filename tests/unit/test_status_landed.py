"""`status` between a commit and its confirmation: what the Iceberg table says itself, on real Iceberg metadata."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from include.offload.cli.overview import InLake, TableStatus, in_lake, shipped_until, with_lake
from include.offload.lake.marker import Marker
from include.offload.spec.model import TableSpec

OURS, THEIRS = uuid.UUID(int=1), uuid.UUID(int=9)
SPEC = TableSpec.model_validate({"identity": "db.t", "cursor": "ts"})
ROWS = pa.table({"id": pa.array(range(10), pa.int64())})
NOON, ONE = 1_790_000_000_000_000, 1_790_003_600_000_000


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    """A commit of ours that ends at ONE."""
    made = SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}")
    made.create_namespace(SPEC.target.namespace)
    table = made.create_table((SPEC.target.namespace, SPEC.target.table), schema=ROWS.schema)
    table.append(ROWS)
    newest = table.current_snapshot()
    assert newest is not None and newest.sequence_number is not None
    marker = Marker(
        OURS, "source", uuid.UUID(int=2), 1, uuid.UUID(int=3), ONE, newest.snapshot_id, newest.sequence_number
    )
    with table.transaction() as change:
        change.set_properties(marker.properties())
    yield made
    made.close()


def test_rows_of_a_commit_that_the_ledger_does_not_know_are_shipped(catalog: SqlCatalog) -> None:
    lake = in_lake(catalog, SPEC, OURS)
    assert (lake.rows, lake.watermark_us, lake.problem) == (10, ONE, None)
    behind = TableStatus("db.t", "ok", watermark_us=NOON)
    assert shipped_until(behind, lake) == ONE
    seen = with_lake(behind, lake)
    assert (seen.iceberg_rows, seen.watermark_us, seen.landed_us) == (10, NOON, ONE)
    assert seen.notes[0].startswith("landed, not confirmed: rows before 2026-09-21T15:13:20Z are in Iceberg")


def test_a_first_commit_counts_before_there_is_a_watermark(catalog: SqlCatalog) -> None:
    new = TableStatus("db.t", "new")
    assert shipped_until(new, in_lake(catalog, SPEC, OURS)) == ONE
    assert with_lake(new, in_lake(catalog, SPEC, OURS)).landed_us == ONE


def test_a_confirmed_commit_is_no_news(catalog: SqlCatalog) -> None:
    seen = with_lake(TableStatus("db.t", "ok", watermark_us=ONE), in_lake(catalog, SPEC, OURS))
    assert (seen.landed_us, seen.notes) == (None, ())


def test_the_marker_of_another_pipeline_ships_nothing_and_is_said(catalog: SqlCatalog) -> None:
    behind = TableStatus("db.t", "ok", watermark_us=NOON)
    lake = in_lake(catalog, SPEC, THEIRS)
    assert shipped_until(behind, lake) == NOON
    seen = with_lake(behind, lake)
    assert (seen.iceberg_rows, seen.landed_us) == (10, None)
    assert seen.notes[0].startswith("OFL-303 another pipeline owns the Iceberg table")


def test_a_lake_that_says_nothing_changes_nothing(catalog: SqlCatalog) -> None:
    assert in_lake(catalog, SPEC, None).watermark_us is None
    assert shipped_until(TableStatus("db.t", "ok", watermark_us=NOON), InLake()) == NOON
    assert shipped_until(TableStatus("db.t", "new"), InLake()) is None
