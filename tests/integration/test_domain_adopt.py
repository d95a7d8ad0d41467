"""`adopt`: history that PyIceberg wrote goes on as ours, no row twice and none missing at the border."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import DayTransform, HourTransform
from pyiceberg.types import StringType
from typer.testing import CliRunner

from include.offload import adoption
from include.offload.accepting import schema_accept
from include.offload.adoption import Adoption, adopt
from include.offload.cli import app
from include.offload.errors import (
    ADOPT_REFUSED,
    LEDGER_DISAGREES,
    TARGET_FOREIGN,
    TARGET_MISSING,
    TARGET_SCHEMA_DISAGREES,
    TARGET_WITHOUT_MARKER,
    ErrorKind,
    OffloadError,
)
from include.offload.foreign_history import Group
from include.offload.lake.evolution import project_onto
from include.offload.lake.schema import schema_of
from include.offload.lake.shipping import STREAM_SETTINGS, batches
from include.offload.source.describe import describe
from include.offload.windows import from_us
from tests.support.domain import DATABASE, DDL, SPEC, DomainTable, MakeDomainTable
from tests.support.ledgers import MakeLedger, own_ledger, with_ledger
from tests.support.one_step import one_step

pytestmark = pytest.mark.timeout(120)


def refusal(act: Callable[[], object]) -> OffloadError:
    with pytest.raises(OffloadError) as refused:
        act()
    return refused.value


def kind(act: Callable[[], object]) -> ErrorKind:
    return refusal(act).kind


def columns(t: DomainTable) -> Schema:
    """The columns as another program would make them: the right types, ids of its own."""
    return schema_of(project_onto(t.spec, describe(t.domain.admin, DATABASE, t.name, t.identity), None))


def make(t: DomainTable, schema: Schema | None = None, partition: str = "day") -> DomainTable:
    """The Iceberg table as another program made it."""
    chosen = schema or columns(t)
    field = PartitionField(
        chosen.find_field("ts").field_id, 1000, DayTransform() if partition == "day" else HourTransform(), "ts_part"
    )
    t.ctx.catalog.create_namespace_if_not_exists(t.target[0])
    t.ctx.catalog.create_table(t.target, schema=chosen, partition_spec=PartitionSpec(field))
    return t


def write(t: DomainTable, lo: float, hi: float, **more: str) -> DomainTable:
    """Another program copies the rows of the windows from `lo` to `hi` (not included); more: constant columns."""
    wanted = project_onto(t.spec, describe(t.domain.admin, DATABASE, t.name, t.identity), None).columns
    aliased = ", ".join(f"{c.expr} AS __c{i}" for i, c in enumerate(wanted))
    stream = t.domain.admin.stream(
        f"SELECT {aliased} FROM {t.source} WHERE ts >= fromUnixTimestamp64Micro(toInt64({t.at(lo)}), 'UTC')"
        f" AND ts < fromUnixTimestamp64Micro(toInt64({t.at(hi)}), 'UTC')",
        STREAM_SETTINGS,
    )
    try:
        rows = pa.Table.from_batches(list(batches(stream, t.identity))).rename_columns([c.name for c in wanted])
    finally:
        stream.close()
    for name, value in more.items():
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    lake = t.lake()
    lake.append(rows.cast(lake.schema().as_arrow()))
    return t


def groups(found: Adoption) -> dict[Group, tuple[int, int, int]]:
    return {f.group: (f.windows, f.lake_rows, f.source_rows) for f in found.found}


# ---- what goes well --------------------------------------------------------------------------------------------------


def test_a_history_goes_on_as_ours(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0, 1, 2, 4, 5)), 0, 3)
    assert kind(t.check) is TARGET_WITHOUT_MARKER, "rule 3"
    before = t.lake().metadata
    looked = adopt(t.ctx, t.spec)
    assert groups(looked) == {Group.EQUAL: (3, 30, 30)}
    assert looked.border_us == t.at(3)
    assert t.lake().metadata == before, "a look changes nothing"
    head = t.ctx.ledger.head(t.identity)
    assert head is not None and (head.plan_id, head.watermark_us) == (None, None)

    done = adopt(t.ctx, t.spec, apply=True)
    assert t.operations() == [Operation.APPEND, Operation.APPEND], "the marker is one snapshot of its own"
    assert t.lake().current_snapshot().snapshot_id == done.snapshot_id  # type: ignore[union-attr]
    head = t.ctx.ledger.head(t.identity)
    assert head is not None and (head.watermark_us, head.snapshot_id) == (t.at(3), done.snapshot_id)
    assert t.lake_ids() == list(range(1, 31))

    run = t.run()
    assert sorted(w.window for w in run.check.plan.windows) == [t.number(4), t.number(5)]
    assert t.lake_ids() == t.source_ids()
    again = adopt(t.ctx, t.spec, apply=True)
    assert again.already
    assert len(t.snapshots()) == 3
    assert not t.run().check.plan.touches_lake


def test_the_window_of_the_border_is_completed_by_the_next_run(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0, 1, 2, 3)), 0, 2.5)
    held = len(t.lake_ids())
    assert 20 < held < 30
    looked = adopt(t.ctx, t.spec, t.at(2.5))
    assert groups(looked) == {Group.EQUAL: (2, 20, 20), Group.NEXT: (1, held - 20, 10)}
    adopt(t.ctx, t.spec, t.at(2.5), apply=True)
    t.run()
    assert t.lake_ids() == t.source_ids()
    assert t.operations()[-1] is Operation.OVERWRITE, "one snapshot that replaces the half window"


def test_what_the_history_lacks_comes_with_the_next_run(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0, 2)), 0, 3)
    t.fill(1).insert(2, rows=1)
    assert groups(adopt(t.ctx, t.spec)) == {Group.EQUAL: (1, 10, 10), Group.NEXT: (2, 10, 21)}
    adopt(t.ctx, t.spec, apply=True)
    assert t.run().rows == 21
    assert t.lake_ids() == t.source_ids()


def test_a_gap_older_than_the_horizon_is_said_and_shipped_by_hand(table: MakeDomainTable) -> None:
    t = table(spec=SPEC.replace("horizon: 2d", "horizon: 5m")).fill(0, 1)
    write(make(t), 1, 2)
    looked = adopt(t.ctx, t.spec, t.at(2))
    assert groups(looked) == {Group.EQUAL: (1, 10, 10), Group.BY_HAND: (1, 0, 10)}
    adopt(t.ctx, t.spec, t.at(2), apply=True)
    assert not t.run().check.plan.touches_lake
    assert t.run(from_us=t.at(0), to_us=t.at(1)).rows == 10
    assert t.lake_ids() == t.source_ids()


def test_what_clickhouse_no_longer_holds_stays(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0, 1, 2, 3)), 0, 3)
    t.unverifiable = "the lake holds more than ClickHouse, and must"
    t.sql("ALTER TABLE {table} DELETE WHERE id <= 15 SETTINGS mutations_sync = 2")
    assert groups(adopt(t.ctx, t.spec)) == {
        Group.EQUAL: (1, 10, 10),
        Group.ALONE: (1, 10, 0),
        Group.STAYS: (1, 10, 5),
    }
    adopt(t.ctx, t.spec, apply=True)
    assert t.run().rows == 10
    assert t.lake_ids() == list(range(1, 41))
    t.consistent()


def test_where_rows_expire_a_window_of_other_values_stays(table: MakeDomainTable) -> None:
    """What differs may be what is left of rows that expired: only a window with every row of the lake is replaced."""
    t = table(ddl=f"{DDL} TTL toDateTime(ts) + INTERVAL 30 DAY").fill(0, 1, 2)
    write(make(t), 0, 2.5)
    t.unverifiable = "other values stay in the lake"
    t.mutate("UPDATE note = 'other' WHERE id = 5")
    looked = adopt(t.ctx, t.spec, t.at(2.5), apply=True)
    assert {g: n for g, (n, _, _) in groups(looked).items()} == {Group.EQUAL: 1, Group.NEXT: 1, Group.STAYS: 1}
    run = t.run()
    assert [w.window for w in run.check.plan.windows] == [t.number(2)], "as it was said"
    assert t.lake_ids() == t.source_ids()
    t.consistent()


def test_a_history_of_which_clickhouse_holds_nothing_needs_a_word(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0, 1)), 0, 2)
    t.unverifiable = "the lake holds more than ClickHouse, and must"
    t.sql("TRUNCATE TABLE {table}")
    assert kind(lambda: adopt(t.ctx, t.spec)) is ADOPT_REFUSED
    looked = adopt(t.ctx, t.spec, t.at(2), apply=True)
    assert groups(looked) == {Group.ALONE: (2, 20, 0)}
    assert set(t.expiries().values()) == {0}, "nothing of it is ever replaced"
    t.fill(3)
    assert t.run().rows == 10
    assert t.lake_ids() == list(range(1, 31))


def test_a_table_without_rows(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0)), 0, 1)
    t.lake().delete()
    adopted = adopt(t.ctx, t.spec, apply=True)
    assert (adopted.rows, adopted.border_us) == (0, None)
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()


def test_a_column_that_the_source_lacks_is_accepted_afterwards(table: MakeDomainTable) -> None:
    t = make(table().fill(0, 1))
    with t.lake().update_schema() as update:
        update.add_column("loaded_by", StringType())
    write(t, 0, 2, loaded_by="somebody")
    looked = adopt(t.ctx, t.spec, apply=True)
    assert any("schema accept" in n for n in looked.notes)
    schema_accept(t.ctx, t.spec)
    t.fill(2)
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()


# ---- what is refused, and changes nothing ----------------------------------------------------------------------------


def test_rows_beyond_the_border_would_be_written_twice(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0, 1, 2)), 0, 3)
    before = t.lake().metadata
    error = refusal(lambda: adopt(t.ctx, t.spec, t.at(2), apply=True))
    assert error.kind is ADOPT_REFUSED
    assert "10 of its rows" in error.cause
    assert t.lake().metadata == before
    assert t.ctx.ledger.head(t.identity) is None
    adopt(t.ctx, t.spec, t.at(3), apply=True)
    assert not t.run().check.plan.touches_lake


def test_a_history_that_is_not_settled_is_still_being_written(table: MakeDomainTable) -> None:
    t = write(make(table().fill(0)), 0, 1)
    assert kind(lambda: adopt(t.ctx, t.spec, t.domain.admin.now_us() + 600_000_000, apply=True)) is ADOPT_REFUSED
    adopt(t.ctx, t.spec, apply=True)
    t.run()


def test_columns_and_partitions_that_do_not_fit(table: MakeDomainTable) -> None:
    t = table().fill(0)
    whole = columns(t)
    without = Schema(*(f for f in whole.fields if f.name != "size"))
    for n, (schema, partition) in enumerate([(without, "day"), (whole, "hour")]):
        make(t, schema, partition)
        assert kind(lambda: adopt(t.ctx, t.spec, t.at(1), apply=True)) is TARGET_SCHEMA_DISAGREES, n
        t.ctx.catalog.drop_table(t.target)
    assert kind(lambda: adopt(t.ctx, t.spec, apply=True)) is TARGET_MISSING
    t.run()


def test_a_row_without_a_cursor(table: MakeDomainTable) -> None:
    t = table().fill(0)
    optional = Schema(*(f.model_copy(update={"required": False}) for f in columns(t).fields))
    write(make(t, optional), 0, 1)
    rows = t.lake().scan().to_arrow().slice(0, 1)
    nothing = pa.nulls(1, rows.schema.field("ts").type)
    t.lake().append(rows.set_column(rows.schema.get_field_index("ts"), rows.schema.field("ts"), nothing))
    t.unverifiable = "not ours"
    assert "no ts" in refusal(lambda: adopt(t.ctx, t.spec, t.at(1), apply=True)).cause


def test_a_table_of_another_pipeline_is_taken_over_instead(table: MakeDomainTable, ledger: MakeLedger) -> None:
    t = table().fill(0)
    t.run()
    assert kind(lambda: adopt(ledger(), t.spec, apply=True)) is TARGET_FOREIGN


def test_a_lost_ledger_is_rebuilt_instead(table: MakeDomainTable, ledger: MakeLedger) -> None:
    ctx = ledger()
    t = with_ledger(table().fill(0), ctx)
    t.run()
    with psycopg.connect(ctx.settings.ledger()) as c:
        c.execute("DELETE FROM offload.windows")
        c.execute("UPDATE offload.watermarks SET plan_id = NULL")
    assert kind(lambda: adopt(t.ctx, t.spec, apply=True)) is LEDGER_DISAGREES


# ---- what happens meanwhile ------------------------------------------------------------------------------------------


def test_a_death_between_snapshot_and_ledger_is_healed_by_adopting_again(
    table: MakeDomainTable, tmp_path: Path
) -> None:
    t = write(make(table().fill(0, 1, 2)), 0, 2)
    (tmp_path / "adopt-planted").touch()
    assert one_step(tmp_path, "adopt", t.identity) == -signal.SIGKILL
    assert not list(tmp_path.iterdir())
    assert len(t.snapshots()) == 2
    assert kind(t.check) is LEDGER_DISAGREES, "nothing goes on over the half of it"
    t.fill(3)
    done = adopt(t.ctx, t.spec, apply=True)
    assert (done.border_us, done.rows, done.already) == (t.at(2), 20, False)
    assert len(t.snapshots()) == 2, "no second marker"
    assert t.run().rows == 20
    assert t.lake_ids() == t.source_ids()
    assert adopt(t.ctx, t.spec, apply=True).already


def test_the_old_program_writes_once_more_while_it_is_adopted(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = write(make(table().fill(0, 1, 2)), 0, 1)
    real = adoption.__dict__["plant"]
    monkeypatch.setattr(adoption, "plant", lambda *args: (write(t, 1, 2), real(*args))[1])
    assert kind(lambda: adopt(t.ctx, t.spec, apply=True)) is TARGET_WITHOUT_MARKER, "its commit came first"
    monkeypatch.undo()
    head = t.ctx.ledger.head(t.identity)
    assert head is not None and head.watermark_us is None
    assert adopt(t.ctx, t.spec, apply=True).border_us == t.at(2)
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()


# ---- the command -----------------------------------------------------------------------------------------------------


def offload(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["adopt", *words], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output + repr(done.exception)
    return " ".join(done.output.split())


def test_the_watermark_of_the_flow_before(table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch) -> None:
    t = write(make(table().fill(0, 1, 2)), 0, 2)
    with own_ledger(t.domain.servers) as uri:
        with psycopg.connect(uri) as c:
            c.execute(
                "CREATE TABLE offload_watermarks"
                " (table_name text PRIMARY KEY, last_offload_timestamp timestamptz NOT NULL)"
            )
            last = from_us(t.at(2)) - timedelta(seconds=40)
            c.execute("INSERT INTO offload_watermarks VALUES (%s, %s), ('other', now())", [t.name, last])
        monkeypatch.setenv("OFFLOAD_WATERMARK_URI", uri)
        words = (t.identity, "--watermark-from", "offload_watermarks.last_offload_timestamp")
        said = offload(*words)
        assert "nothing was changed" in said and "equal" in said
        assert "adopted" in offload(*words, "--yes")
        assert "nothing to do" in offload(*words, "--yes")
        monkeypatch.setenv("OFFLOAD_WATERMARK_URI", uri)
        gone = (t.identity, "--watermark-from", "offload_watermarks.last_offload_timestamp")
        refused = CliRunner().invoke(app, ["adopt", *gone, "--watermark-where", f"table_name={uuid.uuid4()}"])
        assert isinstance(refused.exception, OffloadError)
        assert refused.exception.kind is ADOPT_REFUSED
    assert t.run().rows == 10
    assert t.lake_ids() == t.source_ids()
