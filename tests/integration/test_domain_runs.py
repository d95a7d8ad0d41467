"""Whole runs on real servers: first, again, new rows, late rows, ranges, force, deletes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from pyiceberg.table.snapshots import Operation

from include.offload.audit import count_cells
from include.offload.errors import RANGE_REFUSED, OffloadError
from include.offload.jobwords import Place
from include.offload.model import Action
from include.offload.planning import Leave
from include.offload.settings import ROOT
from include.offload.slicing import MAX_SPANS
from include.offload.steps import ship
from include.offload.windows import Span, from_us
from tests.support.domain import SPEC, WINDOW_US, Domain, MakeDomainTable, inline, meanwhile, said, spark_submit

pytestmark = pytest.mark.timeout(120)
APART = 1_900
"""Windows; 1,700 fill the 262,144 bytes that a query may have by default."""


def test_the_first_run_ships_everything_that_is_settled(table: MakeDomainTable) -> None:
    t = table().fill(0, 1, 5, 9).insert(3, sym="b")
    run = t.run()
    assert run.rows == 50
    assert {w.action for w in run.check.plan.windows} == {Action.APPEND}
    assert [w.window for w in run.check.plan.windows] == [t.number(w) for w in (0, 1, 3, 5, 9)]
    assert t.lake_ids() == t.source_ids()
    assert t.operations() == [Operation.APPEND]
    assert run.watermark.emitted
    assert run.watermark.watermark_us == run.check.plan.scan.hi


def test_a_second_run_with_nothing_new_makes_no_snapshot(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    before = t.snapshots()
    run = t.run()
    assert not run.check.plan.touches_lake
    assert run.check.left == ()
    assert t.snapshots() == before
    assert run.watermark.watermark_us == run.check.plan.scan.hi


def test_new_rows_are_appended(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.fill(20, 21)
    # the ledger saw that time empty: they are late rows there, and cost no file of others
    run = t.run()
    assert run.rows == 20
    assert t.lake_ids() == t.source_ids()
    assert len(t.files()) == 2


def test_late_rows_are_replaced_in_one_snapshot_with_no_gap(table: MakeDomainTable) -> None:
    t = table().fill(0, 1, 2)
    t.run()
    first = t.lake_ids()
    t.insert(1, rows=3, sym="late")
    run = t.run()
    (window,) = run.check.plan.windows
    assert (window.window, window.action, window.rows, window.ledger_rows) == (t.number(1), Action.REPLACE, 13, 10)
    assert t.operations() == [Operation.APPEND, Operation.OVERWRITE]
    # every snapshot that a reader or a time traveller can see holds all that was there before
    assert [t.lake_ids(s.snapshot_id) for s in t.snapshots()] == [first, t.source_ids()]


def test_the_rest_of_a_partly_affected_file_stays_exactly_as_it_was(table: MakeDomainTable) -> None:
    t = table().fill(*range(6), rows=20)
    t.run()
    assert len(t.files()) == 1
    before = t.lake().scan().to_arrow().sort_by("id")
    t.insert(2, rows=1)
    t.run()
    assert len(t.files()) == 2
    after = t.lake().scan().to_arrow().sort_by("id")
    untouched = after.filter([i <= 120 for i in after.column("id").to_pylist()])
    assert untouched == before
    (remainder,) = [f.file for f in t.lake().scan().plan_files() if f.file.record_count == 100]
    assert "keep-" in remainder.file_path


def test_a_file_that_lies_wholly_in_replaced_windows_is_dropped_unread(table: MakeDomainTable) -> None:
    t = table().fill(0, rows=20)
    t.run()
    t.insert(0, rows=1)
    t.run()
    (file,) = t.lake().scan().plan_files()
    assert file.file.record_count == 21


def test_a_row_in_an_empty_window_is_shipped(table: MakeDomainTable) -> None:
    t = table().fill(0, 8)
    t.run()
    assert Span(t.at(1), t.at(8)) in t.empty_time()
    t.insert(4, rows=1)
    run = t.run()
    assert run.rows == 1
    assert t.lake_ids() == t.source_ids()


def test_a_row_older_than_the_first_one_seen_is_late_not_lost(table: MakeDomainTable) -> None:
    """No `start` in the spec: every row within the horizon counts, whichever came first."""
    t = table().fill(5)
    t.run()
    t.insert(2, rows=4)
    run = t.run()
    assert run.rows == 4
    assert t.lake_ids() == t.source_ids()


def test_rows_before_start_are_never_shipped(table: MakeDomainTable, domain: Domain) -> None:
    start = f"{from_us(domain.zero_us + 2 * WINDOW_US):%Y-%m-%dT%H:%M:%SZ}"
    t = table(f"start: {start}\n").fill(0, 1, 2, 3)
    run = t.run()
    assert run.rows == 20
    assert any("20 rows lie before" in n for n in run.check.notes)
    t.insert(1)
    assert t.run().rows == 0
    assert t.accounted().keys() == {t.number(2), t.number(3)}


def test_rows_of_the_unsettled_window_and_of_the_future_wait(table: MakeDomainTable, domain: Domain) -> None:
    t = table().fill(0)
    now = domain.admin.now_us()
    ahead = (now - domain.zero_us) / WINDOW_US
    t.insert(ahead, rows=5).insert(ahead + 50, rows=5)
    run = t.run()
    assert run.rows == 10
    assert any("5 rows lie in the future" in n for n in run.check.notes)
    assert run.watermark.watermark_us is not None and run.watermark.watermark_us <= now


def test_many_changes_at_once_are_one_snapshot(table: MakeDomainTable) -> None:
    t = table().fill(0, 2, 4, 6)
    t.run()
    t.insert(0, rows=1).insert(3, rows=2).insert(6, rows=3, sym="z").insert(9, rows=4)
    run = t.run()
    assert len(run.check.plan.windows) == 4
    assert len(t.snapshots()) == 2
    assert t.lake_ids() == t.source_ids()


# ---- updates, force, deletes -----------------------------------------------------------------------------------------


def test_a_mutated_row_is_replaced(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.mutate("UPDATE note = 'corrected' WHERE id = 5")
    run = t.run()
    assert [(w.window, w.action) for w in run.check.plan.windows] == [(t.number(0), Action.REPLACE)]
    notes = t.lake().scan(row_filter="id = 5").to_arrow().column("note").to_pylist()
    assert notes == ["corrected"]


def test_force_replaces_windows_that_did_not_change(table: MakeDomainTable) -> None:
    t = table().fill(0, 1, 2)
    t.run()
    run = t.run(from_us=t.at(1), to_us=t.at(3), force=True)
    assert {w.window for w in run.check.plan.windows} == {t.number(1), t.number(2)}
    assert run.rows == 20
    assert t.lake_ids() == t.source_ids()
    assert t.operations() == [Operation.APPEND, Operation.OVERWRITE]


def test_deletes_are_kept_by_default(table: MakeDomainTable) -> None:
    t = table().fill(0, 1)
    t.run()
    t.mutate("DELETE WHERE id <= 4")
    for force in (False, True):
        run = t.run(from_us=t.at(0), force=force)
        assert [(x.reason, x.rows, x.ledger_rows) for x in run.check.left] == [(Leave.SHRUNK, 6, 10)]
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = "ClickHouse lost rows that the lake keeps"


def test_deletes_are_followed_when_the_spec_says_so(table: MakeDomainTable) -> None:
    t = table("deletes: follow\n").fill(0, 1, 2)
    t.run()
    t.mutate("DELETE WHERE id <= 4 OR id > 20")
    run = t.run()
    assert [(w.rows, w.ledger_rows) for w in run.check.plan.windows] == [(6, 10), (0, 10)]
    assert t.lake_ids() == list(range(5, 21))
    assert t.operations() == [Operation.APPEND, Operation.OVERWRITE]
    assert t.number(2) not in t.accounted()


def test_a_table_emptied_by_its_owner_becomes_empty_in_the_lake_too(table: MakeDomainTable) -> None:
    t = table("deletes: follow\n").fill(0, 1)
    t.run()
    t.mutate("DELETE WHERE true")
    run = t.run()
    assert run.outcome is not None
    assert (run.outcome.rows, run.outcome.files) == (0, 0)
    assert t.lake_ids() == []
    assert len(t.snapshots()) == 2
    t.fill(0)
    assert t.run().rows == 10


def test_rows_deleted_while_they_are_read_again_do_not_erase_history(table: MakeDomainTable) -> None:
    """A replace was planned because of late rows; before it reads, most rows are deleted. `deletes: keep`."""
    t = table().fill(0, 1)
    t.run()
    t.insert(0, rows=2)
    run = t.run(run_tasks=meanwhile(lambda: t.mutate("DELETE WHERE id <= 8")))
    assert run.outcome is not None
    assert run.outcome.pending == (t.number(0),)
    assert t.lake_ids() == list(range(1, 21))
    t.unverifiable = "ClickHouse lost rows that the lake keeps"


# ---- ranges ----------------------------------------------------------------------------------------------------------


def test_a_range_ships_only_its_windows_and_the_next_run_the_rest(table: MakeDomainTable) -> None:
    t = table().fill(0, 1, 2, 3)
    # rounded outwards to whole windows
    run = t.run(from_us=t.at(1.5), to_us=t.at(2.5))
    assert {w.window for w in run.check.plan.windows} == {t.number(1), t.number(2)}
    assert run.watermark.watermark_us is None or run.watermark.watermark_us <= t.at(1)
    rest = t.run()
    assert {w.window for w in rest.check.plan.windows} == {t.number(0), t.number(3)}
    assert t.lake_ids() == t.source_ids()


def test_a_range_of_known_windows_that_changed_is_replaced(table: MakeDomainTable) -> None:
    t = table().fill(0, 1, 2)
    t.run()
    t.insert(0, rows=1).insert(2, rows=1)
    run = t.run(from_us=t.at(0), to_us=t.at(1))
    assert [w.window for w in run.check.plan.windows] == [t.number(0)]
    assert t.run().rows == 11


def test_changes_older_than_the_horizon_are_mended_by_a_range(table: MakeDomainTable) -> None:
    t = table(spec=SPEC.replace("2d", "1h")).fill(0, 1, 70)
    t.run()
    t.insert(0, rows=1)
    assert t.run().rows == 0
    assert t.run(from_us=t.at(0), to_us=t.at(1)).rows == 11


@pytest.mark.parametrize("reason", ["empty", "backwards", "unsettled"])
def test_a_range_without_a_settled_window_is_refused(table: MakeDomainTable, domain: Domain, reason: str) -> None:
    t = table().fill(0)
    t.run()
    now = domain.admin.now_us()
    ranges = {
        "empty": (t.at(1), t.at(1)),
        "backwards": (t.at(3), t.at(1)),
        "unsettled": (now, now + 10 * WINDOW_US),
    }
    with pytest.raises(OffloadError) as refused:
        t.check(None, *ranges[reason])
    assert refused.value.kind is RANGE_REFUSED


def test_a_backlog_larger_than_a_plan_lands_over_several_runs_without_a_gap(table: MakeDomainTable) -> None:
    """Rule 7: rows bound a plan, over all windows together; the watermark moves each time. One window always fits."""
    t = table("plan: {rows: 25}\n").fill(0, 1, 2).insert(4, rows=40).fill(5)
    marks: list[int] = []
    for rows in (20, 10, 40, 10):
        run = t.run()
        assert run.rows == rows
        assert t.lake_ids() == t.source_ids()[: len(t.lake_ids())], "the oldest first"
        marks.append(run.watermark.watermark_us or 0)
        t.consistent()
    assert marks[:3] == [t.at(2), t.at(4), t.at(5)]
    assert marks == sorted(set(marks))
    assert t.run().rows == 0
    # late rows in windows that stand apart are bounded no less than those that follow
    t.insert(0, rows=1).insert(5, rows=1)
    assert t.run().rows == 22


def test_thousands_of_windows_that_stand_apart_are_replaced_in_one_run(table: MakeDomainTable) -> None:
    """In every second window of one second a row came late: to name them all, ClickHouse's default is too short."""
    t = table(spec=SPEC.replace("window: 5m", "window: 1s"))
    for first in (0, 10_000):
        t.sql(
            "INSERT INTO {table} (ts, id, sym) SELECT"
            f" fromUnixTimestamp64Micro(toInt64({t.at(0)} + number * 2000000), 'UTC'), number + {first}, 'a'"
            f" FROM numbers({APART})"
        )
        run = t.run()
    assert [w.action for w in run.check.plan.windows] == [Action.REPLACE] * APART
    assert max(len(s.spans) for s in run.check.plan.slices) <= MAX_SPANS
    with t.ctx.connect(t.spec, "all at once") as client:
        counted = count_cells(client, t.spec, run.check.plan, [s for x in run.check.plan.slices for s in x.spans])
    assert {state.rows for state in counted.values()} == {2}
    assert len(counted) == APART, "the audit counts them all in one query"
    assert t.lake_ids() == t.source_ids()


def test_a_replace_without_rows_does_not_wait_for_spark(table: MakeDomainTable) -> None:
    t = table("deletes: follow\n").fill(0)
    t.run()
    t.mutate("DELETE WHERE true")
    plan = t.check().plan
    waited: list[bool] = []
    assert ship(t.ctx, plan.plan_id, inline, lambda: waited.append(True)).status == "committed"
    t.watermark(plan.plan_id)
    assert (t.lake_ids(), waited) == ([], [])


# ---- the same with the real Spark job --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", Place)
def test_the_real_spark_job_ships_the_same(table: MakeDomainTable, domain: Domain, place: Place) -> None:
    t = table().fill(0, 1, 2)
    check = t.check()
    first = spark_submit(domain, check.plan.plan_id, place=place)
    (result,) = said(first, "RESULT")
    assert (result["status"], result["rows"], result["windows"], result["pending"]) == ("committed", 30, 3, 0)
    assert said(first, "PROGRESS")[-1]["rows"] == 30
    assert (result["application_id"] is None) == (place is Place.DRIVER)
    (again,) = said(spark_submit(domain, check.plan.plan_id, place=place), "RESULT")
    assert again["status"] == "already-committed"
    assert len(t.snapshots()) == 1
    t.watermark(check.plan.plan_id)
    assert t.lake_ids() == t.source_ids()


def test_the_real_spark_job_says_what_it_refuses(domain: Domain) -> None:
    unknown = uuid.uuid4()
    done = spark_submit(domain, unknown)
    (error,) = said(done, "ERROR")
    assert done.returncode == 1
    assert error["id"] == "OFL-401"
    assert str(unknown) in error["message"]


def test_the_real_spark_job_says_a_refusal_while_spark_is_still_starting(domain: Domain, tmp_path: Path) -> None:
    """With a master that takes connections and never answers, Spark starts for a minute; the ledger answers at once."""
    from local.spark import spark_env, spark_submit_command

    command = [w for w in spark_submit_command() if w not in {"--master", "local[2]"}]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        master = f"spark://127.0.0.1:{silent.getsockname()[1]}"
        job = [str(ROOT / "spark_jobs" / "offload.py"), "--plan", str(uuid.uuid4())]
        said_so, log = tmp_path / "out", tmp_path / "log"
        with said_so.open("w") as out, log.open("w") as err:
            running = subprocess.Popen(
                [*command, "--master", master, *job],
                env={**os.environ, **spark_env()},
                cwd=domain.servers.home,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        try:
            until = time.monotonic() + 60
            while "OFFLOAD_ERROR" not in said_so.read_text():
                assert time.monotonic() < until, log.read_text()[-2000:]
                time.sleep(0.1)
            assert running.poll() is None, "Spark had started, or failed to: nothing was shown"
            assert "OFL-401" in said_so.read_text()
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait(20)
