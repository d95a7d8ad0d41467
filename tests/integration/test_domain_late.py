"""Late rows and changing rows: healed in one snapshot, or found, counted and said."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from include.offload import lookback
from include.offload.cli.overview import TableStatus, overview
from include.offload.lake.shipping import SliceTask
from include.offload.model import Action, ShippedFile
from include.offload.planning import Leave
from include.offload.settings import ROOT, load
from include.offload.windows import from_us
from tests.support.domain import COLUMNS, DDL, SPEC, WINDOW_US, Domain, DomainTable, MakeDomainTable, inline
from tests.support.reader import while_reading

pytestmark = pytest.mark.timeout(120)
SHORT = SPEC.replace("2d", "1h")
FINAL = "source: {final: true}\n"
FOLLOW = "deletes: follow\n"
VERSIONED = (
    "CREATE TABLE {table} (" + COLUMNS + ", version UInt32 DEFAULT 1, gone UInt8 DEFAULT 0)"
    " ENGINE = ReplacingMergeTree(version, gone) ORDER BY (sym, ts) PARTITION BY toDate(ts)"
)


def status(t: DomainTable) -> TableStatus:
    (found,) = overview(t.ctx, [t.spec]).tables
    return found


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where the command line sends its metrics."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.settimeout(2)
        monkeypatch.setenv("OFFLOAD_STATSD_PORT", str(heard.getsockname()[1]))
        yield heard


def offload(*args: str, code: int = 0) -> Any:
    done = subprocess.run(
        [str(ROOT / "bin" / "offload"), *args, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


# ---- readers while windows are replaced ------------------------------------------------------------------------------


def test_rule_15_a_reader_never_sees_a_gap_or_a_double_while_windows_are_replaced(
    table: MakeDomainTable, tmp_path: Path
) -> None:
    t = table().fill(0, 1, 2, rows=50)
    t.run()

    def replaces() -> None:
        for turn in range(6):
            t.insert(turn % 3, rows=2, sym="late")
            t.mutate(f"UPDATE note = 'turn {turn}' WHERE id % 7 = {turn}")
            assert t.run().check.plan.windows

    seen = while_reading(".".join(t.target), 150, tmp_path / "stop", replaces)
    assert seen.faults == []
    assert seen.snapshots == 7
    assert seen.reads >= 3


def test_the_reader_sees_a_gap_when_there_is_one(table: MakeDomainTable, tmp_path: Path) -> None:
    """The test above can fail: a delete and an append leave a snapshot between them that lacks the rows."""
    t = table().fill(0, rows=20)
    t.run()
    t.unverifiable = "the test writes into the lake itself"

    def two_commits() -> None:
        lake = t.lake()
        rows = lake.scan(row_filter="id <= 5").to_arrow()
        lake.delete("id <= 5")
        lake.append(rows)

    seen = while_reading(".".join(t.target), 20, tmp_path / "stop", two_commits)
    assert any("5 rows missing" in fault for fault in seen.faults)


# ---- later than the horizon ------------------------------------------------------------------------------------------


def test_rows_later_than_the_horizon_are_counted_and_said_and_a_range_ships_them(table: MakeDomainTable) -> None:
    t = table(spec=SHORT, settings=load(survey_every_s=0)).fill(0, 1, 20)
    t.run()
    t.insert(0, rows=2, sym="late").insert(5, rows=3)
    run = t.run()
    assert run.rows == 0
    (line,) = [n for n in run.check.notes if "later than the horizon" in n]
    assert "5 rows in 2 windows" in line
    assert f"bin/offload reconcile {t.identity} --from {from_us(t.at(0)):%Y-%m-%dT%H:%M:%SZ}" in line
    assert (run.check.seen.look.late_rows, run.check.seen.look.late_windows) == (5, 2)
    assert status(t).late_rows == 5
    assert line in status(t).notes
    healed = t.run(from_us=t.at(0), to_us=t.at(6))
    assert {(w.action, w.rows) for w in healed.check.plan.windows} == {(Action.REPLACE, 12), (Action.REPLACE, 3)}
    assert t.run().check.seen.look.late_rows == 0
    assert status(t).late_rows == 0


def test_rows_within_the_horizon_are_not_counted_as_too_late(table: MakeDomainTable) -> None:
    t = table(settings=load(survey_every_s=0)).fill(0, 1)
    t.run()
    t.insert(0, rows=2)
    run = t.run()
    assert run.rows == 12
    assert run.check.seen.look.late_rows == 0


def test_the_survey_waits_its_time_and_a_mended_range_is_counted_again_at_once(table: MakeDomainTable) -> None:
    t = table(spec=SHORT).fill(0, 20)
    t.run()
    t.insert(0, rows=2)
    assert t.run().check.seen.look.late_rows == 0, "counted an hour ago at most"
    t.run(from_us=t.at(20), to_us=t.at(21))
    assert t.run().check.seen.look.late_rows == 2
    assert t.run(from_us=t.at(0), to_us=t.at(1)).rows == 12


def test_the_command_reconciles_a_range_and_shows_first_what_it_would_do(
    table: MakeDomainTable, statsd: socket.socket
) -> None:
    t = table(spec=SHORT, settings=load(survey_every_s=0)).fill(0, 1, 2)
    t.run()
    t.insert(0, rows=3, sym="late")
    t.mutate("DELETE WHERE id = 25")
    dry = offload("reconcile", t.identity, "--dry-run", code=1)
    assert (dry["replace"], dry["rows"], dry["run"]) == (1, 13, None)
    assert len(t.snapshots()) == 1
    done = offload("reconcile", t.identity, "--from", f"{from_us(t.at(0)):%Y-%m-%dT%H:%M:%SZ}", code=1)
    assert (done["run"]["status"], done["run"]["rows"]) == ("committed", 13)
    (refused,) = done["refused"]
    assert (refused["error"], refused["reason"], refused["from_us"]) == ("OFL-407", "shrunk", t.at(2))
    found = f"offload_verify_mismatched_windows,table={t.identity}:1|g"
    while statsd.recv(65536).decode() != found:
        """A TimeoutError when it does not come."""
    assert t.lake_ids() == sorted([*t.source_ids(), 25])
    t.unverifiable = "ClickHouse lost a row that the lake keeps"


def test_a_window_that_a_range_left_pending_is_counted_until_it_is_shipped(table: MakeDomainTable) -> None:
    """It is neither shipped nor verified empty, below the watermark and older than the horizon."""
    t = table(spec=SHORT, settings=load(survey_every_s=0)).fill(0, 20)
    t.run()
    t.insert(5, rows=3).insert(7, rows=2)

    def changing(slices: Sequence[SliceTask]) -> Iterator[ShippedFile]:
        first = 23 in t.source_ids()
        if first:
            t.mutate("DELETE WHERE id = 23")
        yield from inline(slices)
        if first:
            t.insert(5, rows=1)

    ranged = t.run(from_us=t.at(5), to_us=t.at(8), run_tasks=changing)
    assert (ranged.rows, ranged.watermark.pending) == (2, 1)
    for _ in range(2):
        look = t.run().check.seen.look
        assert (look.late_rows, look.late_windows, look.late_expiring) == (3, 1, 0)
    assert t.run(from_us=t.at(5), to_us=t.at(6)).rows == 3
    assert t.run().check.seen.look.late_rows == 0


@pytest.mark.parametrize("deletes", ["keep", "follow"])
def test_late_rows_do_not_hide_behind_rows_that_were_deleted(table: MakeDomainTable, deletes: str) -> None:
    """Older than the horizon only counts are compared, and 8 rows are fewer than 10."""
    t = table(f"deletes: {deletes}\n", spec=SHORT, settings=load(survey_every_s=0)).fill(0, 20)
    t.run()
    t.mutate("DELETE WHERE id <= 5")
    assert t.run().check.seen.look.late_rows == 0
    t.insert(0, rows=3)
    run = t.run()
    look = run.check.seen.look
    assert (look.late_rows, look.late_expiring, look.late_unknown) == (3, 3 if deletes == "keep" else 0, 0)
    assert any("3 rows in 1 windows" in n for n in run.check.notes)
    t.run(from_us=t.at(0), to_us=t.at(1))
    if deletes == "follow":
        assert t.lake_ids() == t.source_ids()
        assert t.run().check.seen.look.late_rows == 0
    else:
        assert t.run().check.seen.look.late_rows == 3, "the window shrank: they are said, not shipped"
        t.unverifiable = "ClickHouse lost rows that the lake keeps"


def test_late_rows_do_not_hide_behind_rows_that_expired(table: MakeDomainTable) -> None:
    ttl = " TTL toDateTime(ts) + INTERVAL 1 HOUR DELETE WHERE sym = 'old' SETTINGS merge_with_ttl_timeout = 0"
    t = table(ddl=DDL + ttl, settings=load(survey_every_s=0))
    t.sql("SYSTEM STOP MERGES {table}")
    t.insert(0, rows=5, sym="old").insert(0, rows=5)
    t.run()
    t.sql("SYSTEM START MERGES {table}")
    t.sql("OPTIMIZE TABLE {table} FINAL")
    assert t.source_ids() == list(range(6, 11))
    assert t.run().check.seen.look.late_rows == 0
    t.insert(0, rows=4)
    run = t.run()
    assert [(x.reason, x.rows, x.ledger_rows) for x in run.check.left] == [(Leave.EXPIRING, 9, 10)]
    assert (run.check.seen.look.late_rows, run.check.seen.look.late_expiring) == (4, 4)
    assert status(t).late_rows == 4
    assert any("can't be shipped any more" in n for n in status(t).notes)
    t.unverifiable = "its window is expiring"


@pytest.mark.parametrize(("name", "limit"), [("MAX_PROOFS", 1), ("MAX_PROOF_ROWS", 19)])
def test_what_is_too_much_to_look_into_is_said_to_be_unknown(
    table: MakeDomainTable, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(lookback, name, limit)
    t = table(spec=SHORT, settings=load(survey_every_s=0)).fill(0, 1, 20)
    t.run()
    t.mutate("DELETE WHERE id <= 15 AND id % 2 = 0")
    t.insert(0, rows=1).insert(1, rows=1)
    run = t.run()
    assert (run.check.seen.look.late_rows, run.check.seen.look.late_unknown) == (1, 1), "the newer one is looked into"
    assert any("1 windows hold fewer rows" in n for n in run.check.notes)
    t.unverifiable = "ClickHouse lost rows that the lake keeps"


# ---- ahead of the clock, before the start ----------------------------------------------------------------------------


def test_rows_of_the_future_and_before_the_start_are_said(table: MakeDomainTable, domain: Domain) -> None:
    """Rule 7: they never move the watermark; they are not ignored silently either."""
    start = f"{from_us(domain.zero_us + 2 * WINDOW_US):%Y-%m-%dT%H:%M:%SZ}"
    t = table(f"start: {start}\n").fill(0, 3)
    ahead = (domain.admin.now_us() - domain.zero_us) / WINDOW_US
    t.insert(ahead + 50, rows=5)
    run = t.run()
    assert run.rows == 10
    assert [n for n in run.check.notes if "10 rows lie before" in n]
    assert [n for n in run.check.notes if "5 rows lie in the future" in n]
    found = status(t)
    assert (found.rows_before_start, found.rows_in_future) == (10, 5)
    assert len(found.notes) == 2


# ---- engines that merge, deletes, mutations; kept and followed -------------------------------------------------------


@pytest.mark.parametrize("deletes", ["keep", "follow"])
@pytest.mark.parametrize("final", ["", FINAL], ids=["plain", "final"])
@pytest.mark.parametrize("how", ["lightweight", "mutation", "patch"])
def test_rule_19_deletes_are_kept_or_followed(table: MakeDomainTable, deletes: str, final: str, how: str) -> None:
    t = table(f"deletes: {deletes}\n{final}", ddl=VERSIONED).fill(0, 1)
    t.run()
    if how == "mutation":
        t.mutate("DELETE WHERE id <= 4")
    elif how == "lightweight":
        t.sql("DELETE FROM {table} WHERE id <= 4")
    else:
        t.sql("ALTER TABLE {table} DELETE WHERE id <= 4 SETTINGS mutations_sync = 2")
        t.sql("OPTIMIZE TABLE {table} FINAL")
    run = t.run()
    if deletes == "follow":
        assert [(w.rows, w.ledger_rows) for w in run.check.plan.windows] == [(6, 10)]
        assert t.lake_ids() == t.source_ids() == list(range(5, 21))
        assert not t.run().check.plan.touches_lake
    else:
        assert [(x.reason, x.rows, x.ledger_rows) for x in run.check.left] == [(Leave.SHRUNK, 6, 10)]
        assert t.lake_ids() == list(range(1, 21))
        t.unverifiable = "ClickHouse lost rows that the lake keeps"


@pytest.mark.parametrize("deletes", ["keep", "follow"])
@pytest.mark.parametrize("final", ["", FINAL], ids=["plain", "final"])
def test_updates_are_replaced_whatever_deletes_say(table: MakeDomainTable, deletes: str, final: str) -> None:
    t = table(f"deletes: {deletes}\n{final}", ddl=VERSIONED).fill(0, 1)
    t.run()
    t.mutate("UPDATE note = 'corrected' WHERE id = 5")
    run = t.run()
    assert [(w.window, w.action) for w in run.check.plan.windows] == [(t.number(0), Action.REPLACE)]
    assert t.lake().scan(row_filter="id = 5").to_arrow().column("note").to_pylist() == ["corrected"]
    assert not t.run().check.plan.touches_lake


@pytest.mark.parametrize("deletes", ["keep", "follow"])
def test_a_row_deleted_by_its_version_is_kept_or_followed(table: MakeDomainTable, deletes: str) -> None:
    """ReplacingMergeTree(version, is_deleted): FINAL hides the row; no delete was ever ordered."""
    t = table(f"deletes: {deletes}\n{FINAL}", ddl=VERSIONED).fill(0, 1)
    t.run()
    t.sql("INSERT INTO {table} SELECT * REPLACE (2 AS version, 1 AS gone) FROM {table} WHERE id = 3")
    run = t.run()
    if deletes == "follow":
        assert [(w.rows, w.ledger_rows) for w in run.check.plan.windows] == [(9, 10)]
        assert 3 not in t.lake_ids()
    else:
        assert [x.reason for x in run.check.left] == [Leave.SHRUNK]
        assert 3 in t.lake_ids()
        t.unverifiable = "ClickHouse lost a row that the lake keeps"
    t.sql("OPTIMIZE TABLE {table} FINAL")
    assert not t.run().check.plan.touches_lake


def test_a_delete_that_empties_whole_parts_is_followed_because_the_lake_agrees(table: MakeDomainTable) -> None:
    """Their blocks are gone like those of a dropped partition; but the lake's rows that the delete names are just
    those that are missing."""
    t = table(FOLLOW).fill(0, 1).insert(0, rows=4, sym="b")
    t.run()
    t.mutate("DELETE WHERE sym = 'b'")
    t.insert(3, rows=2)
    run = t.run()
    assert sorted((w.rows, w.ledger_rows) for w in run.check.plan.windows) == [(2, 0), (10, 14)]
    assert t.lake_ids() == t.source_ids()
