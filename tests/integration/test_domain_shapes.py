"""Tables of other shapes: partitions, NULLs, merging engines read with FINAL, TTLs, empty sources, many slices."""

from __future__ import annotations

import pytest
from pyiceberg.table.snapshots import Operation

from include.offload.errors import RANGE_REFUSED, OffloadError
from include.offload.model import Action
from include.offload.planning import Leave
from tests.support.domain import COLUMNS, DDL, SPEC, WINDOW_US, Domain, MakeDomainTable, meanwhile

pytestmark = pytest.mark.timeout(120)
PARTITION = '["day(ts)"]'
TTL_HOURS = 8


def partitioned(fields: str) -> str:
    return SPEC.replace(PARTITION, fields)


# ---- partitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    ["[]", "[sym]", '["hour(ts)", sym]', '["bucket(4, id)"]', '["truncate(1, sym)"]', '["month(ts)", note]'],
)
def test_rows_land_in_their_partition_and_late_ones_too(table: MakeDomainTable, fields: str) -> None:
    t = table(spec=partitioned(fields))
    t.insert(0, sym="a").insert(0, sym="b", note="x").insert(13, sym="b").insert(1, sym="it's \\ ü")
    t.run()
    t.insert(0, rows=3, sym="c").insert(13, rows=2, sym="a")
    run = t.run()
    assert [w.action for w in run.check.plan.windows] == [Action.REPLACE] * 2
    assert t.lake_ids() == t.source_ids()
    assert t.operations() == [Operation.APPEND, Operation.OVERWRITE]


def test_null_is_a_partition_of_its_own(table: MakeDomainTable) -> None:
    t = table(spec=partitioned("[note]")).insert(0, rows=9, note="x")
    run = t.run()
    assert {s.partition for s in run.check.plan.slices} == {(None,), ("x",)}
    assert t.lake().scan(row_filter="note is null").to_arrow().num_rows == 3
    assert t.lake().scan(row_filter="note = 'x'").to_arrow().num_rows == 6


def test_a_row_in_a_partition_that_was_not_there_when_planned_is_shipped_by_the_next_run(
    table: MakeDomainTable,
) -> None:
    t = table(spec=partitioned("[sym]")).fill(0)
    run = t.run(run_tasks=meanwhile(lambda: t.insert(0, rows=4, sym="new")))
    assert run.rows == 10
    assert t.run().rows == 14
    assert t.lake_ids() == t.source_ids()


def test_rows_that_come_while_a_window_is_read_are_shipped_once(table: MakeDomainTable) -> None:
    """Rule 12: more rows than planned are accepted, and the ledger records what was shipped."""
    t = table().fill(0, 4)
    run = t.run(run_tasks=meanwhile(lambda: t.insert(0, rows=3).insert(2, rows=2)))
    assert run.rows == 25
    assert t.accounted() == {t.number(0): 13, t.number(2): 2, t.number(4): 10}
    assert not t.run().check.plan.touches_lake


def test_a_window_that_loses_rows_while_it_is_first_read_ships_what_is_left(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    run = t.run(run_tasks=meanwhile(lambda: t.mutate("DELETE WHERE id <= 3 OR id > 10")))
    assert run.rows == 7
    assert t.lake_ids() == t.source_ids()
    assert t.number(1) not in t.accounted()


# ---- slices ----------------------------------------------------------------------------------------------------------


def test_slices_respect_the_row_limit_and_every_file_is_one_slice(table: MakeDomainTable) -> None:
    t = table("slice: {rows: 1000}\n")
    for window in range(5):
        t.insert(window, rows=600)
    run = t.run()
    assert [s.rows for s in run.check.plan.slices] == [600] * 5
    assert len(t.files()) == 5


def test_a_slice_that_fails_leaves_no_file_behind(table: MakeDomainTable) -> None:
    """Rule 13: an attempt deletes its own files before a commit was sent."""
    from collections.abc import Iterator, Sequence

    from include.offload.lake import shipping
    from include.offload.lake.shipping import SliceTask
    from include.offload.model import ShippedFile

    t = table("slice: {rows: 1000}\n").insert(0, rows=600).insert(1, rows=600)
    written: list[str] = []

    def second_fails(tasks: Sequence[SliceTask]) -> Iterator[ShippedFile]:
        file = shipping.ship(tasks[0])
        written.append(file.path)
        yield file
        raise RuntimeError("the executor is gone")

    plan = t.check().plan.plan_id
    with pytest.raises(RuntimeError, match="the executor is gone"):
        t.ship(plan, second_fails)
    (path,) = written
    assert not t.lake().io.new_input(path).exists()
    assert t.lake().current_snapshot() is None
    assert t.ship(plan).rows == 1200
    t.watermark(plan)


# ---- engines that merge ----------------------------------------------------------------------------------------------

REPLACING = (
    "CREATE TABLE {table} (" + COLUMNS + ", version UInt32 DEFAULT 1)"
    " ENGINE = ReplacingMergeTree(version) ORDER BY (sym, ts) PARTITION BY toDate(ts)"
)
FINAL = "source: {final: true}\n"


def test_a_replacing_table_is_read_final_and_a_new_version_replaces_the_old(table: MakeDomainTable) -> None:
    t = table(FINAL, ddl=REPLACING).fill(0, 1)
    t.sql("INSERT INTO {table} SELECT * REPLACE ('twice' AS note, 2 AS version) FROM {table} WHERE id <= 3")
    assert t.run().rows == 20
    t.sql("INSERT INTO {table} SELECT * REPLACE ('thrice' AS note, 3 AS version) FROM {table} FINAL WHERE id = 5")
    run = t.run()
    assert [(w.action, w.rows) for w in run.check.plan.windows] == [(Action.REPLACE, 10)]
    assert t.lake_ids() == list(range(1, 21))
    t.sql("OPTIMIZE TABLE {table} FINAL")
    assert not t.run().check.plan.touches_lake, "a merge changes nothing that FINAL shows"


# ---- TTL -------------------------------------------------------------------------------------------------------------


def test_rule_18_an_expiring_window_is_never_replaced(table: MakeDomainTable, domain: Domain) -> None:
    """Rows expire after 8 hours; the job's time-out and margin are 70 minutes together."""
    t = table(ddl=DDL + f" TTL toDateTime(ts) + INTERVAL {TTL_HOURS} HOUR")
    now = (domain.admin.now_us() - domain.zero_us) / WINDOW_US
    old, young = now - (TTL_HOURS * 60 - 30) / 5, now - 24
    t.insert(old).insert(young)
    t.run()
    t.insert(old, rows=1).insert(young, rows=1)
    run = t.run(force=True)
    assert [x.reason for x in run.check.left] == [Leave.EXPIRING] * len(run.check.left)
    assert run.check.left
    assert run.check.plan.windows
    assert all(w.expiry_us and w.expiry_us > domain.admin.now_us() for w in run.check.plan.windows)
    assert set(t.lake_ids()) < set(t.source_ids())
    t.unverifiable = "the late row of the expiring window stays out of the lake"


def test_rule_18_late_rows_in_empty_expiring_time_are_shipped(table: MakeDomainTable, domain: Domain) -> None:
    t = table(ddl=DDL + f" TTL toDateTime(ts) + INTERVAL {TTL_HOURS} HOUR")
    now = (domain.admin.now_us() - domain.zero_us) / WINDOW_US
    t.insert(now - 24)
    t.run()
    t.insert(now - (TTL_HOURS * 60 - 30) / 5, rows=1)
    assert t.run().rows == 1
    assert t.lake_ids() == t.source_ids()


# ---- nothing to ship -------------------------------------------------------------------------------------------------


def test_an_empty_source_is_no_error_and_its_first_rows_are_found(table: MakeDomainTable) -> None:
    t = table()
    run = t.run()
    assert not run.check.plan.touches_lake
    assert run.watermark.watermark_us is None
    assert any("never held a row" in n for n in run.check.notes)
    assert not t.exists()
    with pytest.raises(OffloadError) as refused:
        t.check(from_us=None, to_us=t.at(3))
    assert refused.value.kind is RANGE_REFUSED
    t.fill(0)
    assert t.run().rows == 10
