"""Columns, types, partition fields and sort order change while a table is offloaded: nothing is lost, nothing comes
twice, and all rows of all times stay readable. Both verifiers read every table when its test ends."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.update import AddSchemaUpdate, AddSnapshotUpdate, TableUpdate
from pyiceberg.types import StringType
from typer.testing import CliRunner

from include.offload.accepting import schema_accept, schema_diff
from include.offload.cli import app
from include.offload.errors import (
    PLAN_SUPERSEDED,
    SCHEMA_NEEDS_ACCEPT,
    SOURCE_COLUMNS_CHANGED,
    TARGET_CHANGED,
    TARGET_SCHEMA_DISAGREES,
    ErrorKind,
    OffloadError,
)
from include.offload.model import Action, ChangeKind, Verdict
from include.offload.planning import Leave
from include.offload.recovery import rebuild
from include.offload.settings import load
from include.offload.steps import ship
from tests.support.domain import COLUMNS, DDL, SPEC, Domain, DomainTable, MakeDomainTable, inline, meanwhile
from tests.support.one_step import one_step

pytestmark = pytest.mark.timeout(120)
BY_SYM = SPEC.replace('["day(ts)"]', '["day(ts)", "sym"]')


def refused(act: Callable[[], object], kind: ErrorKind, *names: str) -> OffloadError:
    with pytest.raises(OffloadError) as found:
        act()
    assert found.value.kind is kind, str(found.value)
    for name in names:
        assert name in found.value.cause
    return found.value


def lake(t: DomainTable, column: str) -> dict[int, Any]:
    """The values of a column in the lake by id, as PyIceberg reads them; no id is there twice."""
    rows = t.lake().scan(selected_fields=("id", column)).to_arrow().to_pylist()
    assert len({r["id"] for r in rows}) == len(rows)
    return {r["id"]: r[column] for r in rows}


def source(t: DomainTable, column: str) -> dict[int, Any]:
    """The same in ClickHouse."""
    return {int(i): v for i, v in t.ask(f"SELECT id, {column} FROM {{table}}")}


def columns(t: DomainTable) -> dict[str, str]:
    return {f.name: str(f.field_type) for f in t.lake().schema().fields}


def insert_extra(t: DomainTable, window: int, first: int, value: str, rows: int = 5) -> None:
    """Rows whose column `extra` has a value of its own."""
    t.sql(
        "INSERT INTO {table} (ts, id, sym, price, size, note, tags, extra) SELECT"
        f" fromUnixTimestamp64Micro(toInt64({t.at(window)} + number * 1000000), 'UTC'), {first} + number, 'x', 1, 0.5,"
        f" NULL, [], {value} FROM numbers({rows})"
    )


# ---- a column appears ------------------------------------------------------------------------------------------------


def test_an_added_column_lands_with_its_first_rows_in_one_commit(table: MakeDomainTable) -> None:
    """Rule 15: no reader sees the column without the plan that brought it; rows from before read NULL."""
    t = table().fill(0, 1)
    t.run()
    before = t.lake().metadata
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    t.fill(3)
    insert_extra(t, 4, 1000, "number")
    run = t.run()
    assert run.rows == 15, "old windows are not shipped again"
    after = t.lake().metadata
    assert len(after.metadata_log) == len(before.metadata_log) + 1, "one commit"
    added = t.lake().schema().find_field("extra")
    assert (added.field_id, added.required, str(added.field_type)) == (before.last_column_id + 1, False, "int")
    values = lake(t, "extra")
    assert values == {i: None if i <= 20 else v for i, v in source(t, "extra").items()}
    # time travel still reads the old schema
    first = t.snapshots()[0].snapshot_id
    assert "extra" not in t.lake().scan(snapshot_id=first).to_arrow().column_names
    assert t.snapshots()[1].schema_id == after.current_schema_id
    # rule 10: another fingerprint means unknown, and the next run leaves those windows alone
    again = t.run()
    assert not again.check.plan.touches_lake
    assert {x.reason for x in again.check.left} == {Leave.UNKNOWN}
    report = t.verified()
    assert [(o.windows, o.without, o.hashed) for o in report.older] == [(2, ("extra",), True)]


def test_a_run_without_rows_changes_no_schema(table: MakeDomainTable) -> None:
    """Rule 8: a plan without rows touches only the ledger."""
    t = table().fill(0)
    t.run()
    t.mutate("ADD COLUMN extra String")
    run = t.run()
    assert not run.check.plan.touches_lake
    assert run.check.plan.evolution is None
    assert "extra" not in columns(t)


def test_a_late_row_in_an_old_window_brings_the_whole_window_into_the_new_columns(table: MakeDomainTable) -> None:
    """A window that holds more rows than were shipped is replaced, whatever its fingerprint (rule 10)."""
    t = table().fill(0, 1)
    t.run()
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    insert_extra(t, 1, 1000, "42", rows=1)
    run = t.run()
    assert [w.action for w in run.check.plan.windows] == [Action.REPLACE]
    values = lake(t, "extra")
    assert [values[i] for i in (1, 10, 11, 20, 1000)] == [None, None, 7, 7, 42]
    assert t.lake_ids() == t.source_ids()


def test_a_difference_in_an_old_window_s_own_columns_is_still_found(table: MakeDomainTable) -> None:
    """Verify skips the column that was not there, not the window."""
    t = table().fill(0, 1)
    t.run()
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    t.fill(3)
    t.run()
    from include.offload.verify import verify

    t.mutate("UPDATE size = size + 1 WHERE id = 3")
    report = verify(t.ctx, t.spec)
    assert not report.ok
    assert len(report.differences) == 1
    assert [s.column for s in report.sums if not s.equal] == ["size"]
    t.mutate("UPDATE size = size - 1 WHERE id = 3")
    t.verified()


def test_forcing_a_range_fills_the_column_for_old_rows(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    assert t.run(from_us=t.at(0), to_us=t.at(2), force=True).rows == 20
    assert set(lake(t, "extra").values()) == {7}
    assert not t.verified().older


def test_a_column_in_the_middle_and_a_reordered_source_keep_their_values(table: MakeDomainTable) -> None:
    """Columns meet by name and field id, never by position: `a` and `b` have one type, a swap would go unseen."""
    t = table(ddl=DDL.replace("tags Array", "a String DEFAULT 'a', b String DEFAULT 'b', tags Array")).fill(0)
    t.run()
    t.mutate("MODIFY COLUMN b String DEFAULT 'b' AFTER ts")
    t.fill(2)
    t.run()
    t.mutate("ADD COLUMN c String DEFAULT 'c' AFTER ts")
    t.fill(4)
    t.run()
    assert set(lake(t, "a").values()) == {"a"}
    assert set(lake(t, "b").values()) == {"b"}
    assert list(lake(t, "c").values()).count("c") == 10
    assert list(columns(t))[-1] == "c"


def test_an_added_uuid_column_can_be_looked_up_by_clickhouse(table: MakeDomainTable) -> None:
    """Its table property, which keeps ClickHouse from pruning wrongly, comes with it."""
    from include.offload.verify import lake_source

    t = table().fill(0)
    t.run()
    t.mutate("ADD COLUMN extra UUID")
    insert_extra(t, 2, 1000, "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')")
    t.run()
    found = t.ask(
        f"SELECT count() FROM {lake_source(t.lake())} WHERE extra = toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')"
    )
    assert found == [(5,)]


def test_an_excluded_column_is_not_added(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    t.write_spec(SPEC, "columns: {exclude: [extra]}\n").fill(2)
    assert t.run().rows == 10
    assert "extra" not in columns(t)


# ---- dying, forgotten and doubled jobs while the schema changes ------------------------------------------------------


def grown(table: MakeDomainTable) -> DomainTable:
    """A table whose next plan adds a column, appends a window and replaces another."""
    t = table().fill(0, 1)
    t.run()
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    return t.insert(1, rows=1).insert(3, rows=10)


def whole(t: DomainTable, landed: bool) -> None:
    """Schema, data and marker are all there, or none of them."""
    assert ("extra" in columns(t)) is landed
    assert len(t.snapshots()) == (2 if landed else 1)


@pytest.mark.parametrize(
    ("point", "who"),
    [
        ("mid-stream", "the next run"),
        ("before-commit", "the same job"),
        ("before-commit", "the next run"),
        ("after-commit", "the same job"),
        ("after-commit", "the next run"),
    ],
)
def test_a_job_that_dies_while_it_adds_a_column(table: MakeDomainTable, tmp_path: Path, point: str, who: str) -> None:
    """Rules 14 and 17. There is no moment between the change of the schema and the data to die in."""
    t = grown(table)
    plan = t.check("the run").plan.plan_id
    (tmp_path / point).touch()
    assert one_step(tmp_path, "ship", str(plan)) == -signal.SIGKILL
    landed = point == "after-commit"
    whole(t, landed)
    if who == "the same job":
        assert t.ship(plan).status == ("already-committed" if landed else "committed")
        t.watermark(plan)
    else:
        assert t.run().rows == (0 if landed else 21)
    whole(t, True)
    assert t.lake_ids() == t.source_ids()
    assert columns(t)["extra"] == "int"


def test_a_forgotten_job_of_the_old_schema_wakes_after_the_column_came(table: MakeDomainTable, domain: Domain) -> None:
    """Rule 1: its request is on its way when the others land."""
    t = table().fill(0)
    t.run()
    t.fill(2)
    zombie = t.check("zombie").plan.plan_id

    def others() -> None:
        t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
        t.fill(3)
        assert t.run("ours").rows == 20

    refused(lambda: shipped_over(t, domain, zombie, others), PLAN_SUPERSEDED)
    refused(lambda: t.ship(zombie), PLAN_SUPERSEDED)
    whole(t, True)
    assert t.lake_ids() == t.source_ids()


def test_a_forgotten_job_of_the_old_schema_that_nobody_passed_drops_no_value(table: MakeDomainTable) -> None:
    """OFL-212: rows came with a value in the new column; a plan without the column must not account them."""
    t = table().fill(0)
    t.run()
    t.fill(2)
    plan = t.check().plan.plan_id

    def others() -> None:
        t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
        insert_extra(t, 2, 1000, "42")

    refused(lambda: t.ship(plan, meanwhile(others)), SOURCE_COLUMNS_CHANGED, "extra")
    whole(t, False)
    assert t.run().rows == 15
    assert sorted(v for v in lake(t, "extra").values() if v is not None) == [7] * 10 + [42] * 5


class Wire:
    """A catalog that lets something happen just before the first commit is sent, and keeps what was sent."""

    def __init__(self, catalog: Catalog, before: Callable[[], object]) -> None:
        self._catalog, self._before = catalog, before
        self.sent: list[tuple[TableUpdate, ...]] = []

    def commit_table(self, table: Any, requirements: Any, updates: tuple[TableUpdate, ...]) -> Any:
        self.sent.append(updates)
        if len(self.sent) == 1:
            self._before()
        return self._catalog.commit_table(table, requirements, updates)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)


def shipped_over(t: DomainTable, domain: Domain, plan: uuid.UUID, before: Callable[[], object]) -> tuple[str, Wire]:
    ctx = domain.context()
    wire = Wire(ctx.catalog, before)
    ctx.__dict__["catalog"] = wire
    try:
        return ship(ctx, plan, inline).status, wire
    finally:
        ctx.close()


def test_two_jobs_of_one_plan_add_the_column_once(table: MakeDomainTable, domain: Domain) -> None:
    t = grown(table)
    plan = t.check().plan.plan_id
    status, wire = shipped_over(t, domain, plan, lambda: t.ship(plan))
    assert status == "already-committed"
    assert [{type(u) for u in sent} >= {AddSchemaUpdate, AddSnapshotUpdate} for sent in wire.sent] == [True]
    t.watermark(plan)
    whole(t, True)
    assert len(t.lake().metadata.schemas) == 2
    assert t.lake_ids() == t.source_ids()


def test_field_ids_that_somebody_used_up_stop_the_commit(table: MakeDomainTable, domain: Domain) -> None:
    """The files carry the planned ids: under other ids their columns would read NULL, or another column's values."""
    t = grown(table)

    def use_up() -> None:
        with t.lake().update_schema() as update:
            update.add_column("foreign", StringType())
        with t.lake().update_schema() as update:
            update.delete_column("foreign")

    plan = t.check().plan.plan_id
    refused(lambda: shipped_over(t, domain, plan, use_up), TARGET_CHANGED)
    whole(t, False)
    assert t.run().rows == 21
    assert t.lake().schema().find_field("extra").field_id == t.lake().metadata.last_column_id


def test_a_first_plan_finds_a_table_that_another_first_plan_made_with_other_columns(table: MakeDomainTable) -> None:
    t = table().fill(0)
    late = t.check("late").plan.plan_id
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    early = t.check("early").plan.plan_id

    def dies() -> None:
        raise RuntimeError("the job is killed")

    with pytest.raises(RuntimeError):
        t.ship(early, meanwhile(dies))
    assert t.lake().current_snapshot() is None
    refused(lambda: t.ship(late), TARGET_CHANGED, "extra")
    assert t.run().rows == 10
    assert set(lake(t, "extra").values()) == {7}


def test_a_rebuild_after_a_column_came(table: MakeDomainTable) -> None:
    """Rule 22: the ledger forgets when the column came; nothing is lost or doubled, and later verifies agree."""
    t = grown(table)
    t.run()
    rebuild(t.ctx, t.spec)
    t.run()
    assert t.lake_ids() == t.source_ids()


def test_another_kind_of_catalog(table: MakeDomainTable) -> None:
    t = table(settings=load(catalog="lake_sql"))
    assert isinstance(t.ctx.catalog, SqlCatalog)
    t.fill(0, 1)
    t.run()
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    t.insert(1, rows=1).insert(3, rows=10)
    assert t.run().rows == 21
    whole(t, True)
    t.write_spec(BY_SYM)
    schema_accept(t.ctx, t.spec)
    t.insert(3, rows=1, sym="b")
    assert t.run().rows == 11
    assert t.lake_ids() == t.source_ids()


# ---- types -----------------------------------------------------------------------------------------------------------

NUMBERS = DDL.replace("tags Array", "i Int32, f Float32, d Decimal(9, 2), s Int8, n Int32, tags Array")
EDGES = {"i": "Int64", "f": "Float64", "d": "Decimal(18, 2)", "s": "Int16", "n": "Nullable(Int32)"}


def insert_numbers(t: DomainTable, window: int, first: int, values: str) -> None:
    t.sql(
        "INSERT INTO {table} (ts, id, sym, price, size, tags, i, f, d, s, n) SELECT"
        f" fromUnixTimestamp64Micro(toInt64({t.at(window)}), 'UTC'), {first}, 'a', 1, 1, [], {values}"
    )


def test_types_that_grow_are_widened_by_iceberg_s_rules(table: MakeDomainTable) -> None:
    t = table(ddl=NUMBERS)
    insert_numbers(t, 0, 1, "-2147483648, 0.1, 9999999.99, -128, 5")
    t.run()
    assert [columns(t)[c] for c in EDGES] == ["int", "float", "decimal(9, 2)", "int", "int"]
    for column, kind in EDGES.items():
        t.mutate(f"MODIFY COLUMN {column} {kind}")
    insert_numbers(t, 2, 2, "9223372036854775807, 0.1, '9999999999999999.99', -32768, NULL")
    plan = t.check().plan
    assert plan.evolution is not None
    assert {c.column: c.kind for c in plan.evolution.changes} == {
        "i": ChangeKind.WIDENED, "f": ChangeKind.WIDENED, "d": ChangeKind.WIDENED, "n": ChangeKind.OPTIONAL,
    }  # fmt: skip
    t.ship(plan.plan_id)
    t.watermark(plan.plan_id)
    assert [columns(t)[c] for c in EDGES] == ["long", "double", "decimal(18, 2)", "int", "int"]
    for column in EDGES:
        now = {i: str(v) for i, v in source(t, f"toString({column})").items()}
        if column != "f":
            assert {i: str(v) for i, v in lake(t, column).items()} == now
    # a late row in the old window: the old file is rewritten under the new types
    insert_numbers(t, 0, 3, "1, 2, 3, 4, NULL")
    insert_numbers(t, 4, 4, "1, 2, 3, 4, NULL")
    t.run()
    assert t.lake_ids() == [1, 2, 3, 4]


def test_a_file_from_before_that_holds_two_windows_is_rewritten_under_the_new_schema(table: MakeDomainTable) -> None:
    """Rule 20: what stays of it keeps its values; the new column stays NULL there."""
    t = table(ddl=DDL.replace("tags Array", "n Int32 DEFAULT 5, tags Array")).fill(0, 1)
    t.run()
    assert len(t.files()) == 1
    t.mutate("ADD COLUMN extra Int32 DEFAULT 7")
    t.mutate("MODIFY COLUMN n Int64 DEFAULT 5")
    t.insert(1, rows=1)
    t.run()
    assert set(lake(t, "n").values()) == {5}
    assert list(lake(t, "extra").values()).count(7) == 11
    assert t.lake_ids() == t.source_ids()


def test_a_type_that_iceberg_can_not_follow_is_refused(table: MakeDomainTable) -> None:
    t = table(ddl=DDL.replace("tags Array", "i UInt32, tags Array")).fill(0)
    t.run()
    t.mutate("MODIFY COLUMN i UInt64")
    t.fill(2)
    error = refused(t.check, TARGET_SCHEMA_DISAGREES, "i", "long", "decimal(20, 0)")
    assert "schema diff" in error.next_step
    (change,) = schema_diff(t.ctx, t.spec)
    assert (change.verdict, change.source) == (Verdict.CANNOT, "UInt64")
    refused(lambda: schema_accept(t.ctx, t.spec), TARGET_SCHEMA_DISAGREES)
    # what the message says
    t.write_spec(SPEC, 'columns: {overrides: {i: {type: "long"}}}\n')
    assert t.run().rows == 10


def test_a_narrowed_column_is_cast_once_that_was_accepted(table: MakeDomainTable) -> None:
    t = table(ddl=DDL.replace("tags Array", "i Int64 DEFAULT 5, s String DEFAULT '5', tags Array")).fill(0)
    t.run()
    t.mutate("MODIFY COLUMN i Int32 DEFAULT 5")
    t.mutate("MODIFY COLUMN s Int32 DEFAULT 5")
    t.fill(2)
    refused(t.check, SCHEMA_NEEDS_ACCEPT, "narrowed: i", "narrowed: s")
    assert [c.kind for c in schema_accept(t.ctx, t.spec).changes] == [ChangeKind.NARROWED] * 2
    assert not schema_diff(t.ctx, t.spec)
    assert t.run().rows == 10
    assert (columns(t)["i"], set(lake(t, "i").values())) == ("long", {5})
    assert (columns(t)["s"], set(lake(t, "s").values())) == ("string", {"5"})
    # back again: nothing to do
    t.mutate("MODIFY COLUMN i Int64 DEFAULT 5")
    t.fill(4)
    assert t.run().rows == 10


# ---- dropped and renamed ---------------------------------------------------------------------------------------------


def test_a_dropped_column_stops_the_table_until_accepted_and_keeps_its_history(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    history = lake(t, "size")
    t.mutate("DROP COLUMN size")
    t.sql(f"INSERT INTO {{table}} (ts, id, sym, price) SELECT {at(t, 3)}, 1000 + number, 'a', 1 FROM numbers(5)")
    error = refused(t.check, SCHEMA_NEEDS_ACCEPT, "dropped: size")
    assert f"bin/offload schema accept {t.identity}" in error.next_step
    assert schema_diff(t.ctx, t.spec)[0].verdict is Verdict.ACCEPT
    accepted = schema_accept(t.ctx, t.spec)
    assert [c.column for c in accepted.changes] == ["size"]
    assert not schema_accept(t.ctx, t.spec).changes, "safe to repeat"
    assert t.run().rows == 5
    assert lake(t, "size") == history | dict.fromkeys(range(1000, 1005), None)
    # late rows in an old window that shares its file: what is rewritten keeps the dropped column's values
    t.sql(f"INSERT INTO {{table}} (ts, id, sym, price) SELECT {at(t, 1)}, 2000, 'a', 1")
    assert t.run().rows == 11
    assert {i: v for i, v in lake(t, "size").items() if i <= 10} == {i: v for i, v in history.items() if i <= 10}
    # it comes back, is written again, and dropping it again asks again
    t.mutate("ADD COLUMN size Float64 DEFAULT 2.5")
    t.fill(5)
    assert t.run().rows == 10
    assert {i: v for i, v in lake(t, "size").items() if i <= 10} == {i: v for i, v in history.items() if i <= 10}
    assert lake(t, "size")[30] == 4.5
    t.mutate("DROP COLUMN size")
    refused(t.check, SCHEMA_NEEDS_ACCEPT, "size")
    schema_accept(t.ctx, t.spec)


def at(t: DomainTable, window: int) -> str:
    return f"fromUnixTimestamp64Micro(toInt64({t.at(window)}), 'UTC')"


def test_a_renamed_column_is_renamed_by_its_id_and_history_follows(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    field = t.lake().schema().find_field("size").field_id
    t.mutate("RENAME COLUMN size TO amount")
    t.sql(f"INSERT INTO {{table}} (ts, id, sym, price, amount) SELECT {at(t, 3)}, 1000, 'a', 1, 8.5")
    refused(t.check, SCHEMA_NEEDS_ACCEPT, "--rename size=amount")
    for wrong in (("size", "nowhere"), ("note", "amount")):
        refused(lambda wrong=wrong: schema_accept(t.ctx, t.spec, [wrong]), TARGET_SCHEMA_DISAGREES)
    schema_accept(t.ctx, t.spec, [("size", "amount")])
    assert t.lake().schema().find_field("amount").field_id == field
    assert t.run().rows == 1
    assert lake(t, "amount") == source(t, "amount")
    assert not t.verified().older, "old windows are compared in all their columns"


def test_a_plan_from_before_the_accept_is_planned_again(table: MakeDomainTable) -> None:
    """Rule 1: the schema id is frozen."""
    t = table().fill(0)
    t.run()
    t.fill(2)
    plan = t.check().plan.plan_id
    t.write_spec(BY_SYM)
    schema_accept(t.ctx, t.spec)
    refused(lambda: t.ship(plan), TARGET_CHANGED)
    assert t.run().rows == 10


# ---- partition spec and sort order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("partition", ['"day(ts)", "sym"', '"bucket(4, id)"', ""])
def test_another_partition_spec_keeps_old_files_and_replaces_are_exact(table: MakeDomainTable, partition: str) -> None:
    """What stays of an old file moves to the partitions of the current spec, in the same snapshot (rules 15 and 20)."""
    t = table().fill(0, 1, sym="a").fill(0, 1, sym="b")
    t.run()
    t.write_spec(SPEC.replace('"day(ts)"', partition))
    refused(t.check, SCHEMA_NEEDS_ACCEPT, "partition fields")
    assert [c.kind for c in schema_diff(t.ctx, t.spec)] == [ChangeKind.PARTITION]
    assert schema_accept(t.ctx, t.spec).partition_spec_id == 1
    t.fill(3, sym="a").fill(3, sym="b")
    assert t.run().rows == 20
    assert {x.file.spec_id for x in t.lake().scan().plan_files()} == {0, 1}
    t.insert(1, rows=1, sym="b")
    t.insert(3, rows=1, sym="c")
    assert t.run().rows == 42
    assert {x.file.spec_id for x in t.lake().scan().plan_files()} == {1}
    assert t.lake_ids() == t.source_ids()
    assert t.lake().scan(row_filter="sym == 'a'").count() == 30
    assert t.lake().scan(row_filter="id < 11").count() == 10
    # and back: the old spec's id is taken again
    t.write_spec(SPEC)
    assert schema_accept(t.ctx, t.spec).partition_spec_id == 0
    t.insert(0, rows=1, sym="c")
    assert t.run().rows == 21
    assert t.lake_ids() == t.source_ids()


def test_another_sort_order_stops_nothing_and_is_told_to_readers(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.write_spec(SPEC + '  sort: ["sym", "id desc"]\n')
    t.fill(2)
    assert t.run().rows == 10
    (change,) = schema_diff(t.ctx, t.spec)
    assert (change.kind, change.wanted) == (ChangeKind.SORT, "sym asc nulls first, id desc nulls last")
    schema_accept(t.ctx, t.spec)
    assert [str(f.direction) for f in t.lake().sort_order().fields] == ["ASC", "DESC"]
    assert not schema_diff(t.ctx, t.spec)
    t.fill(4)
    assert t.run().rows == 10


def test_columns_may_have_any_short_name(table: MakeDomainTable) -> None:
    """ClickHouse puts an alias in the place of a column of its name: our own aliases are nobody's names."""
    names = ("w", "n", "h", "e", "s", "p0")
    t = table(ddl=DDL.replace("tags Array", "".join(f"{c} Int32 DEFAULT 5, " for c in names) + "tags Array")).fill(0, 1)
    assert t.run().rows == 20
    again = t.run().check
    assert not again.plan.touches_lake
    assert not again.left
    t.mutate("UPDATE w = 6 WHERE id = 1")
    assert t.run().rows == 10
    assert lake(t, "w")[1] == 6


def test_everything_at_once(table: MakeDomainTable) -> None:
    """Added, widened, renamed, dropped, narrowed, another partition spec and sort order; late rows in every window."""
    ddl = DDL.replace("tags Array", "w Int32 DEFAULT 1, n Int64 DEFAULT 2, gone String DEFAULT 'g', tags Array")
    t = table(ddl=ddl).fill(0, 1)
    t.run()
    for change in (
        "ADD COLUMN extra String DEFAULT 'e'",
        "MODIFY COLUMN w Int64 DEFAULT 1",
        "RENAME COLUMN note TO remark",
        "MODIFY COLUMN n Int32 DEFAULT 2",
        "DROP COLUMN gone",
    ):
        t.mutate(change)
    t.write_spec(BY_SYM.replace("partition:", "sort: [id]\n  partition:"))
    kinds = {c.kind for c in schema_accept(t.ctx, t.spec, [("note", "remark")]).changes}
    assert kinds == set(ChangeKind) - {ChangeKind.OPTIONAL, ChangeKind.INCOMPATIBLE}
    for window in (0, 1, 3):
        t.sql(f"INSERT INTO {{table}} (ts, id, sym, price, size) SELECT {at(t, window)}, {1000 + window}, 'z', 1, 1")
    assert t.run().rows == 23
    assert t.lake_ids() == t.source_ids()
    for column in ("extra", "w", "remark", "n"):
        assert lake(t, column) == source(t, column)


# ---- the command line ------------------------------------------------------------------------------------------------


def offload(*args: str, answer: str = "", code: int = 0) -> str:
    """A command as an operator types it, in this process; its standard output."""
    done = CliRunner().invoke(app, ["schema", *args], input=answer)
    assert done.exit_code == code, f"{args}: {done.exit_code}\n{done.output}\n{done.exception!r}"
    return done.stdout


def test_the_commands_show_ask_and_accept(table: MakeDomainTable) -> None:
    t = table().fill(0)
    t.run()
    t.mutate("RENAME COLUMN size TO amount")
    changes = json.loads(offload("diff", t.identity, "--json"))["changes"]
    assert {(c["column"], c["kind"], c["verdict"]) for c in changes} == {
        ("size", "dropped", "needs accept"),
        ("amount", "added", "by itself"),
    }
    shown = offload("accept", t.identity, "--rename", "size=amount", answer="n\n", code=1)
    assert "renamed" in shown
    assert "amount" not in columns(t), "nobody said yes"
    done = json.loads(offload("accept", t.identity, "--rename", "size=amount", "--yes", "--json"))
    assert [c["kind"] for c in done["changes"]] == ["renamed"]
    assert "agrees" in offload("diff", t.identity)
    offload("accept", t.identity, "--rename", "size", code=2)


def test_the_columns_of_the_tests_are_those_of_the_domain() -> None:
    """DDL is cut into by name above."""
    assert "tags Array" in COLUMNS
