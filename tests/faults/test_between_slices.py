"""The source changes, or dies, between two slices of one plan or in the middle of one.

Each plan goes through to its end: what could not be shipped whole stays pending (rule 12), an attempt that failed
leaves nothing, and the next one lands. When a test ends, both verifiers read its table and the ledger is held against
the lake.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from include.offload import job
from include.offload.errors import (
    FINAL_UNSAFE,
    SOURCE_QUERY_FAILED,
    SOURCE_STREAM_BROKEN,
    SOURCE_UNREACHABLE,
    ErrorKind,
    OffloadError,
)
from include.offload.planning import Leave
from tests.support.between import between, mid_stream
from tests.support.domain import COLUMNS, SPEC, DomainTable, MakeDomainTable, RunTasks, meanwhile
from tests.torture.servers import come_back, kill_server

pytestmark = pytest.mark.timeout(180)
BY_NOTE = SPEC.replace('"day(ts)"', "note")
BY_SYM = SPEC.replace('"day(ts)"', "sym")
FINAL = "source: {final: true}\n"
VERSIONED = (
    "CREATE TABLE {table} (" + COLUMNS + ", version UInt32 DEFAULT 1)"
    " ENGINE = ReplacingMergeTree(version) ORDER BY (sym, ts) PARTITION BY toDate(ts)"
)
Change = Callable[[DomainTable], object]


# ---- rows change -----------------------------------------------------------------------------------------------------


def two_slices(table: MakeDomainTable, more: str = "") -> DomainTable:
    """Two windows of ten rows, ids 1 to 20; of each, a third has no note. The slice with notes is read first."""
    return table(more, spec=BY_NOTE).insert(0, note="x").insert(1, note="x")


def doubled(t: DomainTable) -> None:
    t.mutate("UPDATE note = NULL WHERE id = 2")


def doubled_and_late_rows(t: DomainTable) -> None:
    doubled(t)
    t.insert(0, rows=4, note="z")


def missed(t: DomainTable) -> None:
    t.mutate("UPDATE note = 'x' WHERE id = 1")


def doubled_and_missed(t: DomainTable) -> None:
    """As many rows come as were planned."""
    t.mutate("UPDATE note = if(id = 1, 'x', NULL) WHERE id IN (1, 2)")


def half_old_half_new(t: DomainTable) -> None:
    t.mutate("UPDATE price = price + 1 WHERE id <= 10")


def hidden_by_late_rows(t: DomainTable) -> None:
    """The piece that was read has grown since, although a row went from it to the other one."""
    doubled(t)
    t.insert(0, rows=4, note="x")


def late_rows(t: DomainTable) -> None:
    """Also to the piece that was read: nothing says that it has not given a row as well."""
    t.insert(0, rows=4, note="x")


CHANGES: list[Change] = [
    doubled,
    doubled_and_late_rows,
    hidden_by_late_rows,
    late_rows,
    missed,
    doubled_and_missed,
    half_old_half_new,
]


def finished(t: DomainTable) -> None:
    """The next run brings the lake to where ClickHouse is, and the one after that has nothing to do."""
    t.run()
    assert t.lake_ids() == t.source_ids()
    assert not t.run().check.plan.touches_lake


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: str(c.__name__))
def test_rule_12_a_window_that_changes_between_its_slices_stays_pending(table: MakeDomainTable, change: Change) -> None:
    t = two_slices(table)
    run = t.run(run_tasks=between(lambda: change(t)))
    assert run.outcome is not None
    assert run.outcome.pending == (t.number(0),)
    assert t.lake_ids() == list(range(11, 21)), "of the window that changed nothing is in the lake, the other is whole"
    assert run.watermark.watermark_us == t.at(0)
    t.consistent()
    assert t.stored() == sorted(t.files())
    finished(t)


def test_rule_12_a_window_seen_empty_that_rows_move_through_stays_pending(table: MakeDomainTable) -> None:
    """It was planned without a row, so nothing says how many to expect."""
    t = table(spec=BY_NOTE).insert(0, note="x").insert(2, note="x")

    check = t.check()
    t.insert(1, note="x", rows=2)
    outcome = t.ship(check.plan.plan_id, between(lambda: t.mutate("UPDATE note = NULL WHERE id = 22")))
    assert outcome.pending == (t.number(1),)
    assert t.watermark(check.plan.plan_id).watermark_us == t.at(1)
    assert t.run().rows == 2
    assert t.lake_ids() == t.source_ids()


@pytest.mark.parametrize("deletes", ["keep", "follow"])
def test_rule_12_the_same_where_windows_are_read_again(table: MakeDomainTable, deletes: str) -> None:
    """The lake keeps what it has of a window that changes while it is to be replaced."""
    t = two_slices(table, f"deletes: {deletes}\n")
    t.run()
    t.insert(0, note="x", rows=2).insert(1, note="x", rows=2)
    run = t.run(run_tasks=between(lambda: doubled(t)))
    assert run.outcome is not None
    assert run.outcome.pending == (t.number(0),)
    assert t.lake_ids() == [*range(1, 21), 23, 24]
    finished(t)


def late(t: DomainTable) -> None:
    """One without a note, to the piece that is still to be read."""
    t.insert(0, rows=1)


def merged(t: DomainTable) -> None:
    t.insert(5, note="x")
    t.sql("OPTIMIZE TABLE {table} FINAL")


@pytest.mark.parametrize(("change", "first", "second"), [(late, 21, 0), (merged, 20, 10)], ids=["late", "merged"])
def test_rule_12_rows_that_come_and_parts_that_merge_between_slices_leave_nothing_pending(
    table: MakeDomainTable, change: Change, first: int, second: int
) -> None:
    """More rows than planned are accepted where all that came is what ClickHouse holds."""
    t = two_slices(table)
    run = t.run(run_tasks=between(lambda: change(t)))
    assert run.outcome is not None
    assert (run.outcome.pending, run.rows) == ((), first)
    assert t.run().rows == second
    assert t.lake_ids() == t.source_ids()


def test_rule_12_one_query_is_one_moment_whatever_changes_beside_it(table: MakeDomainTable) -> None:
    """Two windows, each whole in one slice of its own; an UPDATE of both lies between them."""
    t = table(spec=SPEC.replace("day(ts)", "hour(ts)")).fill(0, 20)
    run = t.run(run_tasks=between(lambda: t.mutate("UPDATE note = 'new' WHERE true")))
    assert run.outcome is not None
    assert (run.outcome.pending, run.rows) == ((), 20)
    assert [w.window for w in t.run().check.plan.windows] == [t.number(0)]
    assert set(t.lake().scan().to_arrow().column("note").to_pylist()) == {"new"}


def test_rule_12_newer_versions_between_slices_of_a_final_table(table: MakeDomainTable) -> None:
    t = table(FINAL, spec=BY_SYM, ddl=VERSIONED)
    t.insert(0, sym="a").insert(0, sym="b").insert(1, sym="a").insert(1, sym="b")
    newer = "INSERT INTO {table} SELECT * REPLACE ('newer' AS note, 2 AS version) FROM {table} WHERE id IN (3, 13)"
    run = t.run(run_tasks=between(lambda: t.sql(newer)))
    assert run.outcome is not None
    assert run.outcome.pending == (t.number(0),)
    t.run()
    assert t.lake_ids() == list(range(1, 41))
    assert t.lake().scan(row_filter="note = 'newer'").to_arrow().column("id").to_pylist() == [3, 13]
    assert not t.run().check.plan.touches_lake


def test_rule_9_a_final_table_is_not_filed_by_what_a_newer_version_may_change(table: MakeDomainTable) -> None:
    """Its old version would be read in one slice and the new one in another."""
    t = table(FINAL, spec=BY_NOTE, ddl=VERSIONED).fill(0)
    with pytest.raises(OffloadError) as refused:
        t.check()
    assert refused.value.kind is FINAL_UNSAFE
    assert "target.partition names note" in refused.value.cause
    t.unverifiable = "nothing is ever offloaded"


def test_rows_that_an_older_version_doubled_are_healed_by_command(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`deletes: keep`: to the ledger the window has shrunk, and no run touches it; over a range somebody decides."""
    t = two_slices(table)
    with monkeypatch.context() as unmended:
        unmended.setattr(job, "changed_windows", lambda *_: set())
        t.run(run_tasks=between(lambda: doubled(t)))
    assert t.lake_ids() == sorted([2, *range(1, 21)])
    t.mutate("DELETE WHERE id = 20")
    for force in (False, True):
        left = t.run(from_us=t.at(0), to_us=t.at(2), force=force).check.left
        assert [x.reason for x in left] == [Leave.SHRUNK, Leave.SHRUNK]
    healed = t.run(from_us=t.at(0), to_us=t.at(1), follow_deletes=True)
    assert (healed.rows, healed.check.left) == (10, ())
    assert t.lake_ids() == list(range(1, 21)), "the other window keeps the row that was deleted"
    assert [x.reason for x in t.run().check.left] == [Leave.SHRUNK]
    t.consistent()
    t.unverifiable = "ClickHouse lost a row that the lake keeps"


# ---- ClickHouse fails ------------------------------------------------------------------------------------------------


@pytest.fixture
def large(table: MakeDomainTable) -> DomainTable:
    """Two slices, the first with far more bytes than fit between ClickHouse and its reader at once."""
    t = table("source: {limits: {memory: 1GiB, threads: 1}}\n", spec=BY_SYM)
    wide(t, 0, "a", 1, 80_000)
    return t.insert(0, sym="b")


def wide(t: DomainTable, window: float, sym: str, first: int, rows: int, size: int = 1_000) -> None:
    """Rows with a text of `size` random bytes each."""
    t.sql(
        "INSERT INTO {table} (ts, id, sym, note) SELECT"
        f" fromUnixTimestamp64Micro(toInt64({t.at(window)} + number), 'UTC'), 100000 + {first} + number, '{sym}',"
        f" randomPrintableASCII({size}) FROM numbers({rows})"
    )


def killed(_: DomainTable) -> None:
    kill_server("clickhouse")


def query_killed(t: DomainTable) -> None:
    """It has answered 200 and sent rows; the error comes after them."""
    ours = f"position(query, '{t.name}') > 0 AND position(query, 'system.processes') = 0 AND query NOT LIKE '%KILL%'"
    t.sql(f"KILL QUERY WHERE {ours} ASYNC")
    assert t.ask(f"SELECT is_cancelled FROM system.processes WHERE {ours}") == [(1,)], "it had ended before"


BREAKS = {
    "ClickHouse killed in a slice": (mid_stream, killed, {SOURCE_STREAM_BROKEN}),
    "ClickHouse killed between slices": (between, killed, {SOURCE_UNREACHABLE, SOURCE_QUERY_FAILED}),
    "200, and then an error": (mid_stream, query_killed, {SOURCE_STREAM_BROKEN}),
}


@pytest.mark.parametrize("how", BREAKS)
def test_an_attempt_that_breaks_leaves_nothing_and_the_next_one_lands(large: DomainTable, how: str) -> None:
    t = large
    disturbed, happens, kinds = BREAKS[how]
    plan = t.check().plan.plan_id
    try:
        broken(t, plan, disturbed(lambda: happens(t)), kinds)
    finally:
        come_back("clickhouse")
    outcome = t.ship(plan)
    assert (outcome.status, outcome.rows, outcome.pending) == ("committed", 80_010, ())
    t.watermark(plan)
    assert t.lake_ids() == t.source_ids()
    assert t.stored() == sorted(t.files())


def test_a_query_that_meets_its_memory_limit_while_it_streams(large: DomainTable) -> None:
    """Rows of 60 MB come after planning. Raised in the spec, the limit lets the next plan through."""
    t = large.write_spec(BY_SYM, "source: {limits: {memory: 100MiB, threads: 1}}\n")
    plan = t.check().plan.plan_id
    error = broken(t, plan, meanwhile(lambda: wide(t, 0.5, "a", 90_000, 2, 60_000_000)), {SOURCE_STREAM_BROKEN})
    # its name, MEMORY_LIMIT_EXCEEDED, is last in the message, and not always sent before the connection is closed
    assert "Code: 241" in error.cause
    t.write_spec(BY_SYM, "source: {limits: {memory: 1GiB, threads: 1}}\n")
    assert t.run().rows == 80_012
    assert t.lake_ids() == t.source_ids()
    assert t.stored() == sorted(t.files())


def broken(t: DomainTable, plan: uuid.UUID, run_tasks: RunTasks, kinds: set[ErrorKind]) -> OffloadError:
    """The attempt is refused in one of these ways, may be tried again, and has left no file."""
    with pytest.raises(OffloadError) as refused:
        t.ship(plan, run_tasks)
    assert refused.value.kind in kinds, str(refused.value)
    assert refused.value.kind.retry
    assert t.stored() == []
    assert t.snapshots() == []
    return refused.value
