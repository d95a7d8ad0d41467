"""What an attempt leaves in the store when it is refused: nothing, as long as no commit was sent (rule 13)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.offload.errors import (
    PLAN_SUPERSEDED,
    RANGE_REFUSED,
    SOURCE_COLUMNS_CHANGED,
    TARGET_ROWS_ADDED,
    ErrorKind,
    OffloadError,
)
from tests.support.domain import COLUMNS, DomainTable, MakeDomainTable, meanwhile

pytestmark = pytest.mark.timeout(120)
BY_SYM = "CREATE TABLE {table} (" + COLUMNS + ") ENGINE = MergeTree ORDER BY (sym, ts) PARTITION BY sym"


def passed(t: DomainTable) -> None:
    t.run("another")


def column_added(t: DomainTable) -> None:
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")


def partition_dropped(t: DomainTable) -> None:
    t.sql("ALTER TABLE {table} DROP PARTITION 'b'")


def foreign_rows(t: DomainTable) -> None:
    """Into the window that is replaced; part of its file is to stay, so a remainder is written before it is seen."""
    t.lake().append(t.lake().scan(row_filter="id = 1").to_arrow())


REFUSED: list[tuple[Callable[[DomainTable], None], ErrorKind]] = [
    (passed, PLAN_SUPERSEDED),
    (column_added, SOURCE_COLUMNS_CHANGED),
    (partition_dropped, RANGE_REFUSED),
    (foreign_rows, TARGET_ROWS_ADDED),
]


@pytest.mark.parametrize(("happens", "kind"), REFUSED, ids=[f.__name__ for f, _ in REFUSED])
def test_an_attempt_that_is_refused_before_its_commit_leaves_no_file(
    table: MakeDomainTable, happens: Callable[[DomainTable], None], kind: ErrorKind
) -> None:
    t = table(ddl=BY_SYM).insert(0, sym="a").insert(1, sym="a").insert(2, sym="b")
    t.run()
    t.insert(0, sym="a", rows=1).insert(4, sym="a")
    plan = t.check("the run").plan.plan_id
    with pytest.raises(OffloadError) as refused:
        t.ship(plan, meanwhile(lambda: happens(t)))
    assert refused.value.kind is kind, str(refused.value)
    assert t.stored() == named(t)
    if happens is partition_dropped:
        t.unverifiable = "ClickHouse lost rows that the lake keeps"
    else:
        t.run(from_us=t.at(0), force=happens is foreign_rows)


def named(t: DomainTable) -> list[str]:
    """The data files that a snapshot names, sorted."""
    manifests = (m for s in t.snapshots() for m in s.manifests(t.lake().io))
    return sorted({str(e.data_file.file_path) for m in manifests for e in m.fetch_manifest_entry(t.lake().io)})
