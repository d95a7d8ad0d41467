"""Real Spark writes to our tables between two attempts: the next run is exact, or refuses and its command heals.

`heal` runs the very command that the refusal names. When a test ends, both verifiers read its table.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator

import pytest
from pyiceberg.table.snapshots import Operation

from include.offload.errors import (
    SCHEMA_NEEDS_ACCEPT,
    TARGET_CHANGED,
    TARGET_HAS_DELETES,
    TARGET_ROLLED_BACK,
    TARGET_ROWS_REMOVED,
    TARGET_WITHOUT_MARKER,
    ErrorKind,
    OffloadError,
)
from include.offload.verify import verify
from include.offload.windows import from_us
from tests.support.airflow_bag import ROOT
from tests.support.domain import Domain, DomainTable, MakeDomainTable
from tests.support.spark_sql import SparkSql, spark_sql

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def spark(domain: Domain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSql]:
    """One Spark session for all tests of this module."""
    ctx = domain.context()
    with spark_sql(ctx.catalog, tmp_path_factory.mktemp("spark")) as session:
        yield session
    ctx.close()


@pytest.fixture
def t(table: MakeDomainTable) -> DomainTable:
    """Three windows with ten rows each, in two snapshots."""
    made = table().fill(0, 1)
    made.run()
    made.fill(2)
    made.run()
    return made


def name(t: DomainTable) -> str:
    """As Spark's statements call it."""
    return f"lake.{'.'.join(f'`{part}`' for part in t.target)}"


def call(t: DomainTable, procedure: str, more: str = "") -> str:
    return f"CALL lake.system.{procedure}(table => '{'.'.join(t.target)}'{more})"


def refused(act: Callable[[], object]) -> OffloadError:
    with pytest.raises(OffloadError) as refusal:
        act()
    return refusal.value


def heal(error: OffloadError) -> None:
    """Run the command that a refusal names; of the two that OFL-305 names the one that takes what is there."""
    assert error.command is not None
    program, *words = shlex.split(error.command)
    assert program == "bin/offload"
    if words[0] == "restore-main":
        assert "ledger rebuild" in error.next_step
        words = ["ledger", "rebuild", *words[1:]]
    done = subprocess.run([str(ROOT / program), *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def exact(t: DomainTable) -> None:
    assert t.lake_ids() == t.source_ids()
    t.verified()
    t.consistent()


def old_row(t: DomainTable) -> str:
    """A row long before the table's accounting begins."""
    return (
        f"INSERT INTO {name(t)} SELECT TIMESTAMP '{from_us(t.at(0)):%Y-%m-%d %H:%M:%S}' - INTERVAL 30 DAYS AS ts,"
        " CAST(-30 AS BIGINT) AS id, 'foreign' AS sym, CAST(1 AS DECIMAL(18, 8)) AS price, CAST(0 AS DOUBLE) AS size,"
        " CAST(NULL AS STRING) AS note, array() AS tags"
    )


COMPACT = ", options => map('rewrite-all', 'true', 'delete-file-threshold', '1')"

# ---- appends ---------------------------------------------------------------------------------------------------------


def test_rows_that_spark_appends_elsewhere_are_left_alone(t: DomainTable, spark: SparkSql) -> None:
    """Rule 1: between plan and commit; the window that is replaced stays exact."""
    t.insert(1, rows=2).insert(4, rows=5)
    plan = t.check().plan.plan_id
    spark(old_row(t))
    assert t.ship(plan).status == "committed"
    t.watermark(plan)
    assert t.lake_ids() == [-30, *t.source_ids()]
    assert t.run().rows == 0
    t.verified_beside(foreign=1)
    t.unverifiable = "it holds a foreign row, which the ledger does not count"


def test_rows_that_spark_appends_into_our_windows_are_named_and_a_forced_run_heals(
    t: DomainTable, spark: SparkSql
) -> None:
    """A commit does not tell which windows an append touches: `verify` does, and a replace is exact all the same."""
    spark(f"INSERT INTO {name(t)} SELECT * FROM {name(t)} WHERE id <= 15")
    report = verify(t.ctx, t.spec)
    assert not report.ok
    assert [d.source.window for d in report.differences] == [t.number(0), t.number(1)]
    assert t.run(from_us=t.at(0), to_us=t.at(2), force=True).rows == 20
    exact(t)


# ---- what moves files only -------------------------------------------------------------------------------------------


def test_compaction_that_merges_windows_does_not_disturb_a_replace(t: DomainTable, spark: SparkSql) -> None:
    """Rules 15 and 20: one file holds three windows now; plans of before and after replace parts of it, or all."""
    t.insert(1, rows=2)
    plan = t.check().plan.plan_id
    spark(call(t, "rewrite_data_files", COMPACT))
    assert len(t.files()) == 1
    assert t.ship(plan).rows == 12
    t.watermark(plan)
    exact(t)
    spark(call(t, "rewrite_data_files", COMPACT))
    assert t.run(from_us=t.at(1), to_us=t.at(2), force=True).rows == 12
    exact(t)
    spark(call(t, "rewrite_data_files", COMPACT))
    assert t.run(from_us=t.at(0), to_us=t.at(3), force=True).rows == 32
    exact(t)
    assert t.operations().count(Operation.REPLACE) == 3


def test_all_our_snapshots_may_expire_between_commit_and_ledger(t: DomainTable, spark: SparkSql) -> None:
    """Rule 4: the marker's properties outlive its snapshot; the ledger was never told of it."""
    t.fill(3)
    plan = t.check().plan.plan_id
    t.ship(plan)
    spark(old_row(t))
    spark(call(t, "expire_snapshots", ", older_than => current_timestamp(), retain_last => 1"))
    (left,) = t.snapshots()
    assert "offload.plan" not in (left.summary.additional_properties if left.summary else {})
    assert t.ship(plan).status == "already-committed"
    assert t.watermark(plan).emitted
    t.insert(1, rows=1).fill(5)
    assert t.run().rows == 21
    assert t.lake_ids() == [-30, *t.source_ids()]
    t.verified_beside(foreign=1)
    t.unverifiable = "it holds a foreign row, which the ledger does not count"


# ---- the marker ------------------------------------------------------------------------------------------------------


def test_a_marker_that_lost_one_property_is_refused_and_rebuilt(t: DomainTable, spark: SparkSql) -> None:
    """Rule 3."""
    spark(f"ALTER TABLE {name(t)} UNSET TBLPROPERTIES ('offload.watermark')")
    t.fill(4)
    error = refused(t.check)
    assert error.kind is TARGET_WITHOUT_MARKER
    heal(error)
    assert t.run().rows == 10
    exact(t)


def test_a_marker_that_is_gone_everywhere_is_refused_and_rebuilt_from_the_ledger(
    t: DomainTable, spark: SparkSql
) -> None:
    """Rule 3: properties unset and summaries expired; the ledger still knows this very table."""
    spark(old_row(t))
    spark(call(t, "expire_snapshots", ", older_than => current_timestamp(), retain_last => 1"))
    keys = ", ".join(f"'{key}'" for key in t.lake().properties if key.startswith("offload."))
    spark(f"ALTER TABLE {name(t)} UNSET TBLPROPERTIES ({keys})")
    t.fill(4).insert(0, rows=1)
    zombie = t.ctx.ledger.head(t.identity)
    error = refused(t.check)
    assert error.kind is TARGET_WITHOUT_MARKER
    heal(error)
    run = t.run()
    assert run.rows == 21
    assert zombie is not None and run.check.plan.generation == zombie.generation + 1_001
    assert t.lake_ids() == [-30, *t.source_ids()]
    t.consistent()
    t.unverifiable = "a rebuild counts what the lake holds, the foreign row too"


# ---- schema ----------------------------------------------------------------------------------------------------------


def test_a_column_that_spark_adds_stops_the_commit_until_it_is_dropped(t: DomainTable, spark: SparkSql) -> None:
    t.fill(4)
    plan = t.check().plan.plan_id
    spark(f"ALTER TABLE {name(t)} ADD COLUMN surprise STRING")
    assert refused(lambda: t.ship(plan)).kind is TARGET_CHANGED
    assert refused(t.check).kind is SCHEMA_NEEDS_ACCEPT
    spark(f"ALTER TABLE {name(t)} DROP COLUMN surprise")
    assert t.run().rows == 10
    exact(t)


# ---- what takes rows away --------------------------------------------------------------------------------------------


def delete_mode(t: DomainTable, mode: str) -> str:
    names = (f"write.{what}.mode" for what in ("delete", "update", "merge"))
    return f"ALTER TABLE {name(t)} SET TBLPROPERTIES ({', '.join(f'{n!r} = {mode!r}' for n in names)})"


def delete_some(t: DomainTable, spark: SparkSql) -> None:
    """Copy-on-write: three rows of one window, in a file that stays otherwise."""
    spark(delete_mode(t, "copy-on-write"))
    spark(f"DELETE FROM {name(t)} WHERE id IN (3, 4, 5)")


def delete_files(t: DomainTable, spark: SparkSql) -> None:
    """A delete of whole files, which needs no rewriting."""
    spark(f"DELETE FROM {name(t)} WHERE id <= 20")


def update_some(t: DomainTable, spark: SparkSql) -> None:
    """As many rows as before, with other content."""
    spark(delete_mode(t, "copy-on-write"))
    spark(f"UPDATE {name(t)} SET size = 99 WHERE id = 4")


def roll_back(t: DomainTable, spark: SparkSql) -> None:
    spark(call(t, "rollback_to_snapshot", f", snapshot_id => {t.snapshots()[0].snapshot_id}"))


def replace_table(t: DomainTable, spark: SparkSql) -> None:
    spark(
        f"CREATE OR REPLACE TABLE {name(t)} USING iceberg PARTITIONED BY (days(ts))"
        f" AS SELECT * FROM {name(t)} WHERE id > 5"
    )


HARM = [
    (delete_some, TARGET_ROWS_REMOVED, False),
    (delete_files, TARGET_ROWS_REMOVED, True),
    (update_some, TARGET_ROWS_REMOVED, False),
    (roll_back, TARGET_ROLLED_BACK, False),
    (replace_table, TARGET_ROLLED_BACK, False),
    (replace_table, TARGET_ROLLED_BACK, True),
]


@pytest.mark.parametrize(
    ("harm", "kind", "appended"), HARM, ids=[f"{h.__name__}{' behind an append' * a}" for h, _, a in HARM]
)
def test_rows_that_others_take_away_stop_plan_and_commit_until_a_rebuild_brings_them_back(
    t: DomainTable, spark: SparkSql, harm: Callable[[DomainTable, SparkSql], None], kind: ErrorKind, appended: bool
) -> None:
    """Rule 4. The refusal comes at both ends: no new plan, and a plan of before does not land."""
    t.fill(4)
    plan = t.check().plan.plan_id
    harm(t, spark)
    if appended:
        spark(old_row(t))
    snapshots = t.snapshots()
    assert refused(lambda: t.ship(plan)).kind is kind
    error = refused(t.check)
    assert error.kind is kind
    assert t.snapshots() == snapshots
    heal(error)
    run = t.run()
    assert run.rows >= 20, "the window that was harmed, and the new one"
    assert t.lake_ids() == ([-30, *t.source_ids()] if appended else t.source_ids())
    assert t.run().rows == 0
    if appended:
        t.consistent()
        t.unverifiable = "a rebuild counts what the lake holds, the foreign row too"


def test_row_level_deletes_are_refused_until_the_table_is_compacted(t: DomainTable, spark: SparkSql) -> None:
    """Merge-on-read: OFL-311, a rebuild, then OFL-308 says to compact; whoever does, the next run is exact."""
    spark(delete_mode(t, "merge-on-read"))
    t.fill(4)
    plan = t.check().plan.plan_id
    spark(f"DELETE FROM {name(t)} WHERE id IN (3, 4, 25)")
    assert any(task.delete_files for task in t.lake().scan().plan_files())
    assert refused(lambda: t.ship(plan)).kind is TARGET_ROWS_REMOVED
    error = refused(t.check)
    assert error.kind is TARGET_ROWS_REMOVED
    heal(error)
    snapshots = t.snapshots()
    again = t.check("after the rebuild").plan
    assert again.rows == 30, "two windows that lack rows, and the new one"
    error = refused(lambda: t.ship(again.plan_id))
    assert error.kind is TARGET_HAS_DELETES
    assert "compact the Iceberg table" in error.next_step
    assert t.snapshots() == snapshots
    spark(call(t, "rewrite_data_files", COMPACT))
    assert not any(task.delete_files for task in t.lake().scan().plan_files())
    assert t.run("after the rebuild").rows == 30
    exact(t)


def test_a_target_that_spark_recreates_under_a_plan_is_another_table(t: DomainTable, spark: SparkSql) -> None:
    """`DROP` and `CREATE`: rows and history are gone with the UUID."""
    t.fill(4)
    plan = t.check().plan.plan_id
    lake = t.lake()
    spark(f"DROP TABLE {name(t)}")
    t.ctx.catalog.create_table(t.target, schema=lake.schema(), partition_spec=lake.spec())
    assert refused(lambda: t.ship(plan)).kind is TARGET_ROLLED_BACK
    error = refused(t.check)
    assert error.kind is TARGET_ROLLED_BACK
    heal(error)
    assert t.run().rows == 40
    exact(t)
