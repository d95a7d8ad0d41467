"""Data at risk: what expired in ClickHouse, or went with its partition, never erases history (rule 18)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from include.offload.check import check_extent
from include.offload.errors import PLAN_SUPERSEDED, RANGE_REFUSED, OffloadError
from include.offload.lookback import Asked, LookBack, look_back
from include.offload.model import Action
from include.offload.planning import Leave
from include.offload.recovery import rebuild
from include.offload.settings import ROOT
from include.offload.source.client import Client
from include.offload.steps import RunRequest
from include.offload.windows import from_us
from tests.support.airflow_driver import poll
from tests.support.domain import COLUMNS, DDL, HOUR_US, Domain, DomainTable, MakeDomainTable, afterwards, meanwhile
from tests.support.faulty import Faulty

pytestmark = pytest.mark.timeout(120)
BY_SYM = "CREATE TABLE {table} (" + COLUMNS + ") ENGINE = MergeTree ORDER BY (sym, ts) PARTITION BY sym"
BY_HOUR = "CREATE TABLE {table} (" + COLUMNS + ") ENGINE = MergeTree ORDER BY (sym, ts) PARTITION BY toStartOfHour(ts)"
MONTH = " TTL toDateTime(ts) + INTERVAL 30 DAY"
GONE = "ClickHouse lost rows that the lake keeps"
Lose = Callable[[DomainTable], None]


def shortened(t: DomainTable) -> None:
    t.mutate("MODIFY TTL toDateTime(ts) + INTERVAL 1 HOUR")


def shortened_and_put_back(t: DomainTable) -> None:
    shortened(t)
    t.mutate("MODIFY TTL toDateTime(ts) + INTERVAL 30 DAY")


def shortened_where(t: DomainTable) -> None:
    t.mutate("MODIFY TTL toDateTime(ts) + INTERVAL 1 HOUR DELETE WHERE id % 2 = 0")


def shortened_for_new_parts(t: DomainTable) -> None:
    t.sql("ALTER TABLE {table} MODIFY TTL toDateTime(ts) + INTERVAL 1 HOUR SETTINGS materialize_ttl_after_modify = 0")
    t.mutate("MATERIALIZE TTL")
    t.sql("ALTER TABLE {table} REMOVE TTL")


def dropped(t: DomainTable) -> None:
    ((first,), *_) = t.ask("SELECT _partition_id FROM {table} GROUP BY 1 ORDER BY min(sym), min(ts)")
    t.sql(f"ALTER TABLE {{table}} DROP PARTITION ID '{first}'")


def truncated(t: DomainTable) -> None:
    t.sql("TRUNCATE TABLE {table}")


def detached(t: DomainTable) -> None:
    t.sql("ALTER TABLE {table} DETACH PARTITION 'a'")


def dropped_beside_a_delete(t: DomainTable) -> None:
    """The delete names other rows than those that the partition took along."""
    t.mutate("DELETE WHERE id = 11")
    dropped(t)


def every_way(t: DomainTable) -> None:
    """A scheduled run, the same run cleared, a range, and by force."""
    t.run("scheduled")
    t.run("scheduled", force=True)
    t.run(from_us=t.at(0), to_us=t.at(6))
    t.run(from_us=t.at(0), to_us=t.at(1), force=True)


# ---- rows ------------------------------------------------------------------------------------------------------------


LOSSES: list[tuple[str, Lose, str]] = [
    (DDL + MONTH, shortened, "follow"),
    (DDL + MONTH, shortened, "keep"),
    (DDL + MONTH, shortened_and_put_back, "follow"),
    (DDL + MONTH, shortened_where, "follow"),
    (DDL + MONTH, shortened_for_new_parts, "follow"),
    (DDL, shortened, "follow"),
    (BY_SYM, dropped, "follow"),
    (BY_SYM, dropped, "keep"),
    (BY_SYM, detached, "follow"),
    (BY_SYM, dropped_beside_a_delete, "follow"),
    (BY_HOUR, dropped, "follow"),
    (DDL, truncated, "follow"),
]


@pytest.mark.parametrize(("ddl", "lose", "deletes"), LOSSES, ids=[f"{lose.__name__}-{d}" for _, lose, d in LOSSES])
def test_rule_18_rows_that_went_without_a_delete_stay_in_the_lake(
    table: MakeDomainTable, ddl: str, lose: Lose, deletes: str
) -> None:
    t = table(f"deletes: {deletes}\n", ddl=ddl).insert(0, sym="a").insert(0, sym="b").insert(1, sym="a")
    t.run()
    held = t.lake_ids()
    lose(t)
    assert len(t.source_ids()) < len(held), "the test must lose something"
    every_way(t)
    assert t.lake_ids() == held
    assert len(t.snapshots()) == 1 or lose is dropped_beside_a_delete
    t.consistent()
    t.unverifiable = GONE


@pytest.mark.parametrize("deletes", ["keep", "follow"])
@pytest.mark.parametrize("seen", [True, False], ids=["seen first", "at once"])
def test_rule_18_late_rows_do_not_hide_what_a_dropped_partition_took(
    table: MakeDomainTable, deletes: str, seen: bool
) -> None:
    """More rows than before, and yet rows are missing: the window stays as it is, and that is said."""
    t = table(f"deletes: {deletes}\n", ddl=BY_SYM).insert(0, sym="a", rows=4).insert(0, sym="b", rows=4)
    t.run()
    dropped(t)
    if seen:
        t.run()
    t.insert(0, sym="b", rows=9)
    run = t.run()
    assert [x.reason for x in run.check.left] == [Leave.KEPT]
    assert any("gone-in-source" in n for n in run.check.notes)
    every_way(t)
    assert t.lake_ids() == list(range(1, 9))
    t.unverifiable = GONE


def test_a_dropped_partition_keeps_no_late_rows_of_other_windows_back(table: MakeDomainTable) -> None:
    t = table(ddl=BY_SYM).insert(0, sym="a").insert(1, sym="b").insert(2, sym="b")
    t.run()
    dropped(t)
    t.insert(1, sym="b", rows=3)
    assert t.run().rows == 13
    assert t.lake_ids() == list(range(1, 34))
    t.unverifiable = GONE


def test_rule_18_the_command_line_refuses_each_window(table: MakeDomainTable) -> None:
    t = table("deletes: follow\n", ddl=BY_SYM).insert(0, sym="a").insert(1, sym="b")
    t.run()
    dropped(t)
    ends = [f"{from_us(t.at(w)):%Y-%m-%dT%H:%M:%SZ}" for w in (0, 1)]
    words = ["reconcile", t.identity, "--from", ends[0], "--to", ends[1], "--force", "--json"]
    done = subprocess.run(
        [str(ROOT / "bin" / "offload"), *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert [(r["error"], r["reason"], r["from_us"]) for r in said["refused"]] == [
        ("OFL-407", "gone-in-source", t.at(0))
    ]
    assert said["run"]["status"] == "nothing"
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = GONE


def test_rule_18_a_partition_that_goes_while_windows_are_read_again_stops_the_plan(table: MakeDomainTable) -> None:
    t = table("deletes: follow\n", ddl=BY_SYM).insert(0, sym="a").insert(0, sym="b")
    t.run()
    t.insert(0, sym="b", rows=1)
    with pytest.raises(OffloadError) as refused:
        t.run(run_tasks=meanwhile(lambda: dropped(t)))
    assert refused.value.kind is RANGE_REFUSED
    every_way(t)
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = GONE


def test_rule_18_a_ttl_that_changes_while_windows_are_read_again_stops_the_plan(table: MakeDomainTable) -> None:
    t = table("deletes: follow\n", ddl=DDL + MONTH).fill(0)
    t.run()
    t.insert(0, rows=1)
    with pytest.raises(OffloadError) as refused:
        t.run(run_tasks=meanwhile(lambda: shortened(t)))
    assert refused.value.kind is RANGE_REFUSED
    every_way(t)
    assert t.lake_ids() == list(range(1, 11))
    t.unverifiable = GONE


def columns_zeroed(t: DomainTable) -> None:
    t.mutate("MODIFY COLUMN size Float64 TTL toDateTime(ts) + INTERVAL 1 HOUR")


STALE: list[tuple[str, Lose, str, int]] = [
    (BY_SYM, dropped, "follow", 1),
    (BY_SYM, dropped, "keep", 9),
    (DDL + MONTH, shortened, "follow", 1),
    (DDL, columns_zeroed, "keep", 1),
]


@pytest.mark.parametrize(("ddl", "lose", "deletes", "late"), STALE, ids=[f"{x.__name__}-{d}" for _, x, d, _ in STALE])
def test_rule_18_a_plan_that_waited_erases_nothing_that_another_run_saw_go(
    table: MakeDomainTable, ddl: str, lose: Lose, deletes: str, late: int
) -> None:
    """Its job fails; the next run sees the loss and has nothing to ship, so the plan is still at the chain's end."""
    t = (
        table(f"deletes: {deletes}\n", ddl=ddl)
        .insert(0, sym="a", size=2.5, rows=4)
        .insert(0, sym="b", size=2.5, rows=4)
    )
    t.run()
    held = t.lake().scan().to_arrow().sort_by("id")
    t.insert(0, sym="b", rows=late)
    waits = t.check("waits").plan
    assert [w.action for w in waits.windows] == [Action.REPLACE]
    lose(t)
    assert not t.run("another").check.plan.touches_lake
    with pytest.raises(OffloadError) as refused:
        t.ship(waits.plan_id)
    assert refused.value.kind is RANGE_REFUSED
    every_way(t)
    assert t.lake().scan().to_arrow().sort_by("id") == held
    t.unverifiable = GONE


def test_rule_18_a_plan_that_lands_after_a_loss_was_seen_is_protected(table: MakeDomainTable) -> None:
    """Its windows were not in the ledger when another run saw the partition go, so nothing could be marked then."""
    t = table("deletes: follow\n", ddl=BY_SYM).insert(4, sym="b", rows=1)
    t.run()
    t.insert(5, sym="a").insert(5, sym="b")
    slow = t.check("slow").plan

    def another_run_sees_it_go() -> None:
        dropped(t)
        t.check("another")

    assert t.ship(slow.plan_id, afterwards(another_run_sees_it_go)).rows == 20
    every_way(t)
    t.run(from_us=t.at(5), to_us=t.at(6), force=True)
    assert t.lake_ids() == list(range(1, 22))
    t.insert(5, sym="b", rows=11)
    t.run()
    assert set(range(1, 22)) <= set(t.lake_ids()), "late rows must not make the window look whole"
    t.unverifiable = GONE


@pytest.mark.parametrize("lose", [dropped, shortened])
def test_rule_18_a_mark_that_comes_while_a_plan_commits_stays(table: MakeDomainTable, lose: Lose) -> None:
    """The plan asked before; its own expiry of the window must not take the mark's place."""
    t = table("deletes: follow\n", ddl=BY_SYM + MONTH).insert(0, sym="a").insert(0, sym="b")
    t.run()
    t.insert(0, sym="b", rows=1)
    plan = t.check("slow").plan
    assert [w.action for w in plan.windows] == [Action.REPLACE]

    def another_run_sees_it_go() -> None:
        lose(t)
        other = Domain.context(t.domain)
        try:
            check_extent(other, t.spec, RunRequest("another"))
        finally:
            other.close()

    wire = Faulty(t.ctx.catalog, before=another_run_sees_it_go)
    t.ctx.__dict__["catalog"] = wire
    try:
        assert t.ship(plan.plan_id).rows == 21
    finally:
        t.ctx.__dict__["catalog"] = wire.catalog
    every_way(t)
    assert t.lake_ids() == list(range(1, 22))
    t.unverifiable = GONE


def test_rule_18_a_look_that_another_run_passed_is_taken_again(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job ships a block that came since, and remembers it; a look that was begun before must not forget it."""
    t = table("deletes: follow\n", ddl=BY_SYM).insert(0, sym="b")
    t.run()
    t.insert(1, sym="b")
    slow = t.check("slow").plan
    looked: list[int] = []

    def then_the_job_ends(asked: Asked, *arguments: Any, **options: Any) -> LookBack:
        back = look_back(asked, *arguments, **options)
        if not looked:
            t.insert(1, sym="a", rows=3)
            assert t.ship(slow.plan_id).rows == 13
        looked.append(1)
        return back

    other = Domain.context(t.domain)
    monkeypatch.setattr("include.offload.check.look_back", then_the_job_ends)
    try:
        check_extent(other, t.spec, RunRequest("another"))
    finally:
        other.close()
    assert len(looked) == 2
    t.sql("ALTER TABLE {table} DROP PARTITION 'a'")
    every_way(t)
    assert t.lake_ids() == list(range(1, 24))
    t.unverifiable = GONE


def test_rule_18_a_row_that_came_between_plan_and_read_is_asked_when_it_expires(
    table: MakeDomainTable, domain: Domain
) -> None:
    """A TTL on a column of its own: the planned rows live for a month, the late one for a moment."""
    columns = COLUMNS + ", ends DateTime DEFAULT now() + INTERVAL 30 DAY"
    ddl = f"CREATE TABLE {{table}} ({columns}) ENGINE = MergeTree ORDER BY ts TTL ends"
    ddl += " SETTINGS merge_with_ttl_timeout = 0"
    t = table("deletes: follow\n", ddl=ddl).fill(0)

    def one_more() -> None:
        t.sql(
            "INSERT INTO {table} (ts, id, sym, price, size, note, tags, ends)"
            " SELECT ts, 11, sym, price, size, note, tags, now() + INTERVAL 3 SECOND FROM {table} WHERE id = 1"
        )

    t.run(run_tasks=meanwhile(one_more))
    assert t.lake_ids() == list(range(1, 12))

    def expired() -> bool:
        t.sql("OPTIMIZE TABLE {table} FINAL")
        return t.source_ids() == list(range(1, 11))

    poll(expired, 30, "the late row expires")
    every_way(t)
    assert t.lake_ids() == list(range(1, 12))
    t.unverifiable = GONE


def test_rule_18_a_plan_replaces_nothing_that_the_ledger_holds_otherwise_by_now(
    table: MakeDomainTable, domain: Domain
) -> None:
    t = table().fill(0)
    t.run()
    plan = t.insert(0, rows=1).check().plan
    change = (
        "UPDATE offload.windows SET rows = rows + %s WHERE fingerprint IS NOT NULL"
        " AND table_id = (SELECT table_id FROM offload.tables WHERE identity = %s)"
    )
    domain.ledger(change, 1, t.identity)
    with pytest.raises(OffloadError) as refused:
        t.ship(plan.plan_id)
    assert (refused.value.kind, "than when planned" in refused.value.cause) == (PLAN_SUPERSEDED, True)
    domain.ledger(change, -1, t.identity)
    assert t.ship(plan.plan_id).rows == 11
    t.watermark(plan.plan_id)


def test_rule_18_rows_that_came_while_they_were_read_and_then_went_stay(table: MakeDomainTable) -> None:
    """Their partition did not exist when the plan was made; what was shipped is remembered with its blocks."""
    t = table("deletes: follow\n", ddl=BY_SYM).insert(0, sym="b")
    t.run(run_tasks=meanwhile(lambda: t.insert(0, sym="a", rows=3)))
    assert t.lake_ids() == list(range(1, 14))
    t.sql("ALTER TABLE {table} DROP PARTITION 'a'")
    every_way(t)
    assert t.lake_ids() == list(range(1, 14))
    t.unverifiable = GONE


def test_rule_18_a_rebuilt_ledger_still_keeps_what_a_dropped_partition_took(table: MakeDomainTable) -> None:
    t = table("deletes: follow\n", ddl=BY_SYM).insert(0, sym="a").insert(0, sym="b")
    t.run()
    dropped(t)
    rebuild(t.ctx, t.spec)
    every_way(t)
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = GONE


def test_another_ttl_that_reaches_no_shipped_row_changes_nothing(table: MakeDomainTable) -> None:
    t = table(ddl=DDL + MONTH).fill(0, 1)
    t.run()
    t.mutate("MODIFY TTL toDateTime(ts) + INTERVAL 20 DAY")
    t.insert(0, rows=2)
    assert t.run().rows == 12
    assert t.lake_ids() == t.source_ids()


def test_a_part_that_expired_as_a_whole_hides_no_delete(table: MakeDomainTable, domain: Domain) -> None:
    """TTL takes parts away all the time; deletes of younger rows are still followed."""
    t = table(
        "deletes: follow\n", ddl=DDL + " TTL toDateTime(ts) + INTERVAL 8 HOUR SETTINGS merge_with_ttl_timeout = 0"
    )
    t.sql("SYSTEM STOP TTL MERGES {table}")
    old = (domain.admin.now_us() - 9 * HOUR_US - domain.zero_us) / 300_000_000
    t.insert(old).insert(60)
    t.run()
    t.sql("SYSTEM START TTL MERGES {table}")
    t.sql("OPTIMIZE TABLE {table} FINAL")
    assert t.source_ids() == list(range(11, 21))
    t.mutate("DELETE WHERE id <= 14")
    run = t.run()
    assert [(w.rows, w.ledger_rows) for w in run.check.plan.windows] == [(6, 10)]
    assert t.lake_ids() == [*range(1, 11), *range(15, 21)]
    t.unverifiable = GONE


def test_rule_18_a_condition_that_comes_true_later_never_erases_history(table: MakeDomainTable) -> None:
    """Shipped while the TTL did not apply; then an update makes it apply, and a merge takes the row."""
    ttl = " TTL toDateTime(ts) + INTERVAL 1 HOUR DELETE WHERE note = 'done' SETTINGS merge_with_ttl_timeout = 0"
    t = table("deletes: follow\n", ddl=DDL + ttl).fill(0)
    t.run()
    t.mutate("UPDATE note = 'done' WHERE id <= 2")
    t.sql("OPTIMIZE TABLE {table} FINAL")
    assert t.source_ids() == list(range(3, 11))
    assert [x.reason for x in t.run().check.left] == [Leave.EXPIRING]
    every_way(t)
    assert t.lake_ids() == list(range(1, 11))
    t.unverifiable = GONE


# ---- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["nothing", "removed", "put back"])
def test_rule_18_zeroed_columns_never_erase_history(table: MakeDomainTable, after: str) -> None:
    """A column's TTL leaves the number of rows as it was."""
    month = DDL.replace("size Float64", "size Float64 TTL toDateTime(ts) + INTERVAL 30 DAY")
    t = table(ddl=month).insert(0, size=2.5)
    t.run()
    held = t.lake().scan().to_arrow().sort_by("id")
    t.mutate("MODIFY COLUMN size Float64 TTL toDateTime(ts) + INTERVAL 1 HOUR")
    assert t.ask("SELECT sum(size) FROM {table}") == [(0.0,)]
    if after == "removed":
        t.sql("ALTER TABLE {table} MODIFY COLUMN size REMOVE TTL")
    elif after == "put back":
        t.mutate("MODIFY COLUMN size Float64 TTL toDateTime(ts) + INTERVAL 30 DAY")
    every_way(t)
    assert t.lake().scan().to_arrow().sort_by("id") == held
    t.unverifiable = GONE


OVERRIDE = "columns: {exclude: [extra], overrides: {size: {expr: size + extra, type: double}}}\n"
ALIAS = "columns: {include: [ts, id, sym, al]}\n"


@pytest.mark.parametrize(("columns", "shown"), [(OVERRIDE, "size"), (ALIAS, "al")], ids=["expr", "alias"])
def test_rule_18_a_column_that_others_are_computed_from_never_erases_history(
    table: MakeDomainTable, columns: str, shown: str
) -> None:
    """The lake has no column `extra`, and yet its values; its TTL zeroes them in ClickHouse."""
    more = "size Float64, extra Float64 TTL toDateTime(ts) + INTERVAL 1 HOUR, al Float64 ALIAS size + extra"
    t = table(columns, ddl=DDL.replace("size Float64", more))
    t.sql("SYSTEM STOP MERGES {table}")
    moment = f"fromUnixTimestamp64Micro(toInt64({t.at(0)}) + number, 'UTC')"
    t.sql(f"INSERT INTO {{table}} (ts, id, sym, extra) SELECT {moment}, number + 1, 'a', 7 FROM numbers(10)")
    t.run()
    held = t.lake().scan().to_arrow().sort_by("id")
    assert min(held.column(shown).to_pylist()) == 7
    t.sql("SYSTEM START MERGES {table}")
    t.sql("OPTIMIZE TABLE {table} FINAL")
    assert t.ask("SELECT max(extra) FROM {table}") == [(0.0,)]
    every_way(t)
    assert t.lake().scan().to_arrow().sort_by("id") == held
    t.unverifiable = GONE


# ---- when the first unshipped row expires ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ttl",
    [
        "toDateTime(ts) + INTERVAL 90000 SECOND",
        "toDateTime(ts) + INTERVAL 700 MINUTE",
        "toDateTime(ts) + INTERVAL 9 HOUR",
        "toDateTime(ts) + INTERVAL 2 DAY",
        "toDateTime(ts) + INTERVAL 2 WEEK",
        "toDateTime(ts) + INTERVAL 1 MONTH",
        "toDateTime(ts) + INTERVAL 1 QUARTER",
        "toDateTime(ts) + INTERVAL 1 YEAR",
        "toDate(ts) + 3",
        "toStartOfHour(ts) + toIntervalDay(1) + toIntervalHour(id % 3)",
        "toDateTime(ts) + INTERVAL 3 DAY RECOMPRESS CODEC(ZSTD(9)), toDateTime(ts) + INTERVAL 4 DAY",
    ],
)
def test_the_first_expiry_is_what_clickhouse_says_itself(table: MakeDomainTable, ttl: str) -> None:
    """`system.parts` keeps the smallest TTL of each part: a witness of its own."""
    t = table(ddl=DDL + f" TTL {ttl}").insert(0, rows=5).insert(3, rows=5)
    t.sql("SYSTEM STOP TTL MERGES {table}")
    ((first,),) = t.ask(
        "SELECT toUnixTimestamp(min(delete_ttl_info_min)) FROM system.parts WHERE active"
        f" AND database = 'dom' AND table = '{t.name}'"
    )
    found = t.check().seen.look.first_expiry_us
    t.unverifiable = "it is only planned"
    assert found is not None
    assert found // 1_000_000 == first


def test_rule_18_a_ttl_is_evaluated_in_the_server_s_time_zone(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As merges do it, whatever zone the user's profile gives to a session; those of a query win over it."""
    t = table(ddl=DDL + " TTL toStartOfDay(toDateTime(toDate(ts))) + INTERVAL 3 DAY").insert(0, rows=5)
    ((zone,),) = t.ask("SELECT serverTimezone()")
    own = Client._per_query
    elsewhere = {"session_timezone": "Asia/Tokyo" if zone != "Asia/Tokyo" else "America/Lima"}
    with monkeypatch.context() as patch:
        patch.setattr(Client, "_per_query", lambda self: elsewhere | own(self))
        found = t.check().seen.look.first_expiry_us
    ((first,),) = t.ask(
        "SELECT toUnixTimestamp(min(delete_ttl_info_min)) FROM system.parts WHERE active"
        f" AND database = 'dom' AND table = '{t.name}'"
    )
    assert found == first * 1_000_000
    t.unverifiable = "it is only planned"


def test_the_first_expiry_counts_columns_conditions_and_the_spec(table: MakeDomainTable) -> None:
    columns = DDL.replace("size Float64", "size Float64 TTL toDateTime(ts) + INTERVAL 20 HOUR")
    t = table(ddl=columns + " TTL toDateTime(ts) + INTERVAL 15 HOUR DELETE WHERE id > 3").insert(0, rows=4)
    assert t.check().seen.look.first_expiry_us == t.at(0) + 3 * (300_000_000 // 5) + 15 * HOUR_US
    spec = table("ttl: 7d\n").insert(0, rows=4)
    assert spec.check().seen.look.first_expiry_us == spec.at(0) + 7 * 24 * HOUR_US
    for made in (t, spec):
        made.run()


def test_shipped_rows_are_no_longer_at_risk(table: MakeDomainTable, domain: Domain) -> None:
    t = table(ddl=DDL + MONTH).fill(0)
    ahead = (domain.admin.now_us() - domain.zero_us) / 300_000_000
    t.insert(ahead + 20, rows=1)
    first = t.run().check.seen.look
    assert first.first_expiry_us == t.at(0) + 30 * 24 * HOUR_US
    later = t.run().check.seen.look
    assert later.first_expiry_us is not None
    assert later.first_expiry_us > first.first_expiry_us, "only the row of the future is left"
