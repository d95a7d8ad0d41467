"""What health says of tables: silence is no health, and one lively table hides no dead one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from include.offload.health.lines import Line, State
from include.offload.health.tables import agreement_line, cycles_line, errors, headroom_line, lag_line
from include.offload.ledger.findings import Sum
from include.offload.ledger.looks import Guarded, Look, Remembered
from include.offload.planning import Leave, Left
from include.offload.settings import ROOT, load
from include.offload.spec.load import load_specs
from include.offload.windows import to_us

NOW = datetime(2026, 3, 5, 10, 7, tzinfo=UTC)
SPECS = load_specs(ROOT / "dags" / "tables").specs
ONE, *OTHERS = SPECS


def row(table: str, minutes_ago: float = 5, status: str = "success", failures: int = 0) -> dict[str, Any]:
    ended = NOW - timedelta(minutes=minutes_ago)
    known = {"table_name": table, "status": status, "updated_at": ended}
    return known | {"failure_count": failures, "last_error": "OFL-201 x"}


def look(minutes_ago: float = 5, expires_in_h: float | None = None) -> Look:
    expiry = None if expires_in_h is None else to_us(NOW + timedelta(hours=expires_in_h))
    return Look(to_us(NOW - timedelta(minutes=minutes_ago)), (), "", first_expiry_us=expiry)


def past(expires_in_h: float | None = None, ttl_h: float | None = None, mark_h_ago: float = 1) -> Remembered:
    """A table with a TTL, unless nothing says when something expires."""
    ttl_us = None if ttl_h is None else round(ttl_h * 3_600_000_000)
    expires = expires_in_h is not None or ttl_h is not None
    known = replace(look(expires_in_h=expires_in_h), expires=expires, ttl_us=ttl_us)
    return Remembered(to_us(NOW - timedelta(hours=mark_h_ago)), None, known, False)


def rows(minutes_ago: float) -> dict[str, dict[str, Any]]:
    return {s.identity: row(s.identity, minutes_ago) for s in SPECS}


def test_tables_that_ran_are_well() -> None:
    line = cycles_line(rows(5), {}, SPECS, NOW)
    assert (line.state, line.text[:14]) == (State.OK, f"{len(SPECS)} of {len(SPECS)} tables"[:14])


def test_a_lively_table_hides_no_dead_one() -> None:
    line = cycles_line(rows(120) | {ONE.identity: row(ONE.identity)}, {}, SPECS, NOW)
    assert line.state is State.WARN
    assert f"silent: {OTHERS[0].identity}" in line.text
    assert f"and {len(OTHERS) - 3} more" in line.text
    assert ONE.identity not in line.text


def test_a_run_that_ships_nothing_is_heard_of_by_its_look() -> None:
    looks = {s.identity: look() for s in SPECS}
    assert cycles_line(rows(120), looks, SPECS, NOW).state is State.OK


def test_a_table_is_silent_by_its_own_schedule() -> None:
    daily = [s.model_copy(update={"schedule": "30 3 * * *"}) for s in SPECS]
    assert cycles_line(rows(50 * 60), {}, daily, NOW).state is State.OK
    assert cycles_line(rows(5 * 24 * 60), {}, daily, NOW).state is State.WARN


def test_tables_that_never_ran_are_named() -> None:
    line = cycles_line({ONE.identity: row(ONE.identity)}, {}, SPECS, NOW)
    assert (line.state, f"never ran: {OTHERS[0].identity}" in line.text) == (State.WARN, True)
    assert line.text.startswith(f"1 of {len(SPECS)} tables well")


@pytest.mark.parametrize(
    ("failures", "state", "said"),
    [(0, State.WARN, "a retry follows"), (2, State.WARN, "2 in a row"), (3, State.FAIL, "3 in a row")],
)
def test_runs_that_failed_count_and_tries_do_not(failures: int, state: State, said: str) -> None:
    failed = {ONE.identity: row(ONE.identity, status="failed", failures=failures)}
    line = cycles_line(rows(5) | failed, {}, SPECS, NOW)
    assert (line.state, said in line.text) == (state, True), line


def test_lag_names_tables_of_which_it_is_not_known() -> None:
    line = lag_line(1, 2, [ONE.identity], [])
    assert (line.state, f"never shipped, so not known: {ONE.identity}" in line.text) == (State.WARN, True)
    late = lag_line(1, 2, [ONE.identity], [(0.9, 2000.0, OTHERS[0]), (1.2, 3000.0, OTHERS[1])])
    assert late.state is State.FAIL
    assert ONE.identity in late.text
    assert f"{OTHERS[1].identity} is 50 min" in late.text
    assert lag_line(2, 2, [], []).state is State.OK


def test_headroom_names_tables_that_nobody_looked_at() -> None:
    for expires in (None, 48):
        line = headroom_line({ONE.identity: past(expires)}, SPECS, NOW)
        assert (line.state, f"not known: {OTHERS[0].identity}" in line.text) == (State.WARN, True), line
    assert headroom_line({}, SPECS, NOW).state is State.WARN
    assert headroom_line({s.identity: past() for s in SPECS}, SPECS, NOW).state is State.OK
    assert headroom_line({ONE.identity: past(1)}, SPECS, NOW).state is State.FAIL


def test_headroom_goes_down_while_nobody_looks() -> None:
    """The last look saw no unshipped row; those that came since live no longer than the others."""
    others = {s.identity: past() for s in OTHERS}
    for mark_h_ago, state in ((24, State.OK), (150, State.WARN), (165, State.FAIL), (170, State.FAIL)):
        line = headroom_line(others | {ONE.identity: past(ttl_h=168, mark_h_ago=mark_h_ago)}, SPECS, NOW)
        assert line.state is state, line
        assert f"row of {ONE.identity} expires" in line.text
    assert "2 h ago" in line.text


def test_how_long_rows_live_is_not_known_by_older_looks() -> None:
    known = {s.identity: past() for s in OTHERS} | {ONE.identity: Remembered(0, None, look(), True)}
    line = headroom_line(known, SPECS, NOW)
    assert (line.state, f"no look saw how long rows live, so not known: {ONE.identity}" in line.text) == (
        State.WARN,
        True,
    ), line


def test_each_table_has_its_own_limit_of_headroom() -> None:
    """5 hours are enough for one whose limit is one hour, and too few for one whose limit is 30."""
    own = [s.model_copy(update={"alerts": s.alerts.model_copy(update={"ttl_headroom_s": 3600})}) for s in SPECS]
    known = {s.identity: past(5) for s in SPECS}
    assert headroom_line(known, own, NOW).state is State.OK
    strict = [s.model_copy(update={"alerts": s.alerts.model_copy(update={"ttl_headroom_s": 108_000})}) for s in OTHERS]
    assert headroom_line(known | {s.identity: past(29) for s in OTHERS}, [*own[:1], *strict], NOW).state is State.FAIL


def agreed(**known: Any) -> Line:
    """The line of two tables of which one is well."""
    return agreement_line({"k2.a": past(), "k2.b": replace(past(), **known)}, {"k2.a", "k2.b"})


def a_guard(**known: Any) -> Guarded:
    return replace(Guarded(NOW, "rows expire", NOW, None), **known)


def test_no_difference_is_known() -> None:
    assert (agreed().state, agreed().text) == (State.OK, "no difference is known of 2 tables")


@pytest.mark.parametrize(
    ("known", "state", "said", "next_one"),
    [
        ({"found": Sum(differing=3)}, State.FAIL, "3 windows differ, as verify", "verify k2.b"),
        ({"found": Sum(lost=2)}, State.FAIL, "lost rows of up to 2 windows", "accept-loss k2.b"),
        ({"guard": a_guard(last_error="no")}, State.FAIL, "does not stop its TTL merges", "status k2.b"),
        ({"guard": a_guard(applied_at=None)}, State.FAIL, "does not stop its TTL merges", "status k2.b"),
        ({"guard": a_guard()}, State.WARN, "its TTL merges are stopped", "status k2.b"),
        ({"guard": a_guard(wanted="start", last_error="no")}, State.WARN, "merges are stopped", "status k2.b"),
        ({"look": replace(look(), late_rows=4)}, State.FAIL, "4 rows came after", "status k2.b"),
        ({"look": replace(look(), late_unknown=4)}, State.WARN, "late ones may be missing", "verify k2.b"),
        (
            {"look": replace(look(), left=(Left(1, Leave.SHRUNK, 3, 5),))},
            State.FAIL,
            "1 windows differ",
            "reconcile k2.b --dry-run",
        ),
        # what the lake keeps of rows that expired is no difference
        ({"look": replace(look(), left=(Left(1, Leave.EXPIRING, 3, 5, True),))}, State.OK, "no difference", None),
    ],
)
def test_what_is_not_in_the_lake_is_a_line_of_health(
    known: dict[str, Any], state: State, said: str, next_one: str | None
) -> None:
    """Without Prometheus nobody else says it."""
    line = agreed(**known)
    assert line.state is state, line
    assert said in line.text
    assert line.next == (None if next_one is None else f"bin/offload {next_one}")


def test_what_a_table_without_a_spec_lost_warns() -> None:
    line = agreement_line({"k2.gone": replace(past(), found=Sum(lost=1))}, ())
    assert (line.state, line.next) == (State.WARN, "bin/offload accept-loss k2.gone")
    assert "k2.gone: lost rows of up to 1 windows before they were shipped (it has no spec)" in line.text


def test_an_old_error_with_a_login_is_not_shown() -> None:
    failed = row(ONE.identity, status="failed", failures=1) | {
        "last_error": "OFL-501 postgresql://u:hunter2@h/x is away"
    }
    line = cycles_line(rows(5) | {ONE.identity: failed}, {}, SPECS, NOW)
    assert "is away" in line.text
    assert "hunter2" not in line.text


@contextmanager
def prometheus(counted: bool) -> Iterator[str]:
    """Answers every query with nothing, as Prometheus does; counted: but that there are cycles."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = [{"metric": {}, "value": [0, "7"]}] if counted and "query=count%28" in self.path else []
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("counted", "state", "said"), [(False, State.WARN, "not known"), (True, State.OK, "no failed")]
)
def test_no_answer_about_errors_is_no_absence_of_errors(counted: bool, state: State, said: str) -> None:
    with prometheus(counted) as url:
        (line,) = errors(load(prometheus_url=url))
    assert (line.state, said in line.text) == (state, True), line
