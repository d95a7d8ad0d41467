"""Danger, the layout of windows, and the way from an error id to its text: pure, so without a server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.offload import sections
from include.offload.advice import next_commands
from include.offload.errors import REGISTRY
from include.offload.overview import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Board,
    Dag,
    Danger,
    TableOverview,
    _judged,
    _table,
    _unmet,
    by_danger,
    dag_id,
    in_scheduler,
    restrict,
    unknown,
)
from include.offload.timeline import MAX_CELLS, Cell, Fate, Known, PlanLine, _cells
from include.offload.windows import Grid, Span, from_us
from include.orchestration.ui import drawing, words

NOW = 1_790_000_000_000_000
WIDTH = 5 * MINUTE_US


def seen(**known: object) -> TableOverview:
    """A healthy table whose watermark is the end of the last settled window, but for what is given."""
    facts: dict[str, object] = {
        "width_us": WIDTH,
        "settle_us": 2 * MINUTE_US,
        "watermark_us": Grid(WIDTH).settled_until(NOW, 2 * MINUTE_US),
    }
    return _judged(TableOverview("k2.t", "ok", **(facts | known)), NOW)  # type: ignore[arg-type]


def test_a_table_with_nothing_settled_behind_its_watermark_has_no_lag() -> None:
    table = seen()
    assert (table.state, table.danger, table.lag_us, table.reasons) == ("ok", Danger.OK, 0, ())


@pytest.mark.parametrize(
    ("minutes", "state", "danger"),
    [(15, "ok", Danger.OK), (26, "behind", Danger.WARNING), (41, "behind", Danger.CRITICAL)],
)
def test_lag_counts_from_when_a_window_could_have_been_shipped(minutes: int, state: str, danger: Danger) -> None:
    table = seen(watermark_us=NOW - 2 * MINUTE_US - WIDTH - minutes * MINUTE_US)
    assert (table.state, table.danger) == (state, danger)
    assert table.lag_us == WIDTH + minutes * MINUTE_US


@pytest.mark.parametrize(("minutes", "danger"), [(75, Danger.OK), (90, Danger.WARNING), (105, Danger.CRITICAL)])
def test_an_hour_wide_window_is_behind_at_the_limits_of_health_and_status(minutes: int, danger: Danger) -> None:
    """75 minutes are the peak of a healthy table: an hour until the window is over, and 15 until the next run."""
    settled = Grid(60 * MINUTE_US).settled_until(NOW, 0)
    now = settled + (minutes % 60) * MINUTE_US
    mark = now - minutes * MINUTE_US
    assert _judged(TableOverview("k2.h", "ok", width_us=60 * MINUTE_US, watermark_us=mark), now).danger is danger


def test_a_day_wide_window_is_not_behind_before_its_day_is_over() -> None:
    midnight = NOW // DAY_US * DAY_US
    table = _judged(TableOverview("k2.d", "ok", width_us=DAY_US, settle_us=0, watermark_us=midnight), NOW)
    assert (table.state, table.lag_us) == ("ok", 0)


@pytest.mark.parametrize(
    ("headroom", "ttl", "danger"),
    [
        (-1, DAY_US, Danger.CRITICAL),
        (5 * 60 * MINUTE_US, 7 * DAY_US, Danger.CRITICAL),
        (20 * 60 * MINUTE_US, 7 * DAY_US, Danger.WARNING),
        (30 * 60 * MINUTE_US, 7 * DAY_US, Danger.OK),
        # as the alerts have it: a TTL of half a day needs a limit of its own
        (7 * 60 * MINUTE_US, DAY_US // 2, Danger.WARNING),
        (None, None, Danger.OK),
    ],
)
def test_headroom(headroom: int | None, ttl: int | None, danger: Danger) -> None:
    assert seen(headroom_us=headroom, ttl_us=ttl).danger == danger


def row(look: dict[str, object], **known: object) -> TableOverview:
    """A row of the ledger as a run that ended well five minutes ago left it, but for what is given."""
    ended = from_us(NOW - 5 * MINUTE_US)
    facts = {
        "identity": "k2.t", "width_us": WIDTH, "origin_us": 0, "target": "k2.t", "generation": 7, "status": "success",
        "watermark": from_us(Grid(WIDTH).settled_until(NOW - 5 * MINUTE_US, 2 * MINUTE_US)), "failure_count": 0,
        "last_error": None, "last_successful_run": ended, "updated_at": ended, "row_count": 1, "snapshot_id": 1,
        "duration_seconds": 1.0, "guard": None, "guard_error": None, "applied_at": None, "wanted": None, "lost": None,
        "found_differing": None, "lost_rows": None, "lost_from_us": None, "lost_to_us": None, "looked_at": ended,
        "met_at": from_us(0), "differing": 0, "day_rows": 1, "ttl_us": None,
    }  # fmt: skip
    return _table(facts | known | {"look": {"settle_us": 2 * MINUTE_US} | look}, NOW)


def hours_ago(hours: float) -> object:
    return from_us(round(NOW - hours * HOUR_US))


def test_headroom_goes_down_while_nothing_runs() -> None:
    """The last look saw no row that would expire unshipped; those that came since do."""
    week = {"ttl_us": 7 * DAY_US, "expires": True, "next_expiry_us": None, "seen_us": NOW}
    fresh = row(week)
    assert (fresh.danger, fresh.state) == (Danger.OK, "ok")
    assert fresh.headroom_us == pytest.approx(7 * DAY_US, rel=0.01)
    still = row(week, watermark=hours_ago(7 * 24 - 5))
    assert "unshipped rows expire soon" in still.reasons
    assert "unshipped rows have begun to expire" in row(week, watermark=hours_ago(7 * 24)).reasons
    # what the look saw expires before that
    assert row(week | {"next_expiry_us": NOW + HOUR_US}).headroom_us == HOUR_US
    # by older code, without a TTL in the look: as long as the last shipped window lives
    assert row({"seen_us": NOW}, ttl_us=DAY_US, watermark=hours_ago(20)).headroom_us == 4 * HOUR_US
    never = row({"seen_us": NOW, "ttl_us": None, "expires": False})
    assert (never.headroom_us, never.expires) == (None, False)
    assert row({"seen_us": NOW}).expires is None


def test_a_silent_table_is_no_healthy_one() -> None:
    """With the rule of `bin/offload health`, whatever else is well."""
    long_ago = hours_ago(2)
    heard = {"schedule": "*/15 * * * *"}
    silent = row(heard, updated_at=long_ago)
    assert (silent.danger, silent.state) == (Danger.WARNING, "warning")
    assert silent.reasons == ("no run for 2 h: paused, or nothing schedules it",)
    # a run that ships nothing leaves only its look
    assert row(heard | {"seen_us": NOW - MINUTE_US}, updated_at=long_ago).danger is Danger.OK
    # it need not have run since
    assert row({"schedule": "0 */6 * * *"}, updated_at=long_ago).danger is Danger.OK
    assert row({}, updated_at=long_ago).danger is Danger.WARNING


def test_the_limits_of_its_own_spec_count() -> None:
    behind = {"watermark": from_us(NOW - 2 * MINUTE_US - 100 * MINUTE_US), "updated_at": hours_ago(0)}
    assert row({}, **behind).danger is Danger.CRITICAL
    assert row({"lag_limit_s": 3 * 3600}, **behind).danger is Danger.OK
    assert row({"lag_limit_s": 95 * 60}, **behind).danger is Danger.WARNING
    assert row({"lag_limit_s": 3600}, **behind).danger is Danger.CRITICAL
    # one run of a schedule like this may fail
    assert row({"schedule": "0 * * * *"}, **behind).danger is Danger.OK
    expires = {"next_expiry_us": NOW + 5 * HOUR_US, "expires": True, "ttl_us": 7 * DAY_US}
    assert row(expires).danger is Danger.CRITICAL
    assert row(expires | {"headroom_limit_s": 4 * 3600}).danger is Danger.WARNING
    assert row(expires | {"headroom_limit_s": 3600}).danger is Danger.OK


def test_a_login_in_an_old_error_is_taken_out() -> None:
    said = row({}, last_error="OFL-501 [k2.t] postgresql://u:hunter2@h/x is away", failure_count=1).last_error
    assert said is not None
    assert "hunter2" not in said
    assert "is away" in said


def test_a_table_that_nothing_runs_any_more_is_no_healthy_one() -> None:
    gone = in_scheduler(seen(), Dag(stopped="its spec is broken, line 3: window: soon"), NOW)
    assert (gone.danger, gone.state) == (Danger.WARNING, "warning")
    assert gone.reasons == ("nothing runs it: its spec is broken, line 3: window: soon",)
    assert next_commands(gone)[0].line == "bin/offload spec check"
    worse = in_scheduler(seen(failures=3), Dag(stopped="x"), NOW)
    assert (worse.danger, worse.reasons) == (Danger.CRITICAL, ("3 failures in a row", "nothing runs it: x"))
    assert in_scheduler(seen(), Dag(), NOW) == seen()


def test_a_new_table_that_should_have_run_is_not_idle() -> None:
    new = unknown("offload__k2__t")
    since = {"schedule": "*/15 * * * *", "since_us": NOW - 3 * HOUR_US}
    late = in_scheduler(new, Dag(**since), NOW)  # type: ignore[arg-type]
    assert (late.danger, late.state, late.reasons[0]) == (Danger.WARNING, "warning", "no run has come this far in 3 h")
    for dag in (
        Dag(paused=True, **since),  # type: ignore[arg-type]
        Dag(schedule="0 0 * * 0", since_us=NOW - 3 * HOUR_US),
        Dag(schedule="*/15 * * * *", since_us=NOW - 20 * MINUTE_US),
        Dag(),
    ):
        assert in_scheduler(new, dag, NOW).danger is Danger.IDLE, dag
    # the ledger has met it, and no run ended
    met = row({}, status="initialized", updated_at=hours_ago(3), watermark=None, looked_at=None)
    assert (met.state, met.danger, in_scheduler(met, Dag(), NOW).danger) == ("new", Danger.IDLE, Danger.WARNING)
    assert in_scheduler(met, Dag(paused=True), NOW).danger is Danger.IDLE


def test_only_what_the_user_may_read_and_no_table_that_was_taken_out_before_it_ran() -> None:
    board = Board(NOW, (seen(), replace(seen(), table="k2.secret")))
    gone = Dag(stopped="its spec is broken, or was taken away", retired=True)
    found = restrict(board, {"offload__k2__t": gone, "offload__k2__never": gone, "offload__k2__new": Dag()})
    assert [t.table for t in found.tables] == ["k2.t", "k2.new"]
    broken = restrict(board, {"offload__k2__never": Dag(stopped="its spec is broken, line 1: x")})
    assert [(t.table, t.danger) for t in broken.tables] == [("k2.never", Danger.WARNING)]


def test_what_is_not_in_the_lake_is_as_grave_as_its_alert() -> None:
    """Two of the labels of a critical alert, above any table that only runs late."""
    for danger in (
        row({}, differing=2),
        row({"late_rows": 7}),
        row({}, found_differing=3),
        row({}, lost=4, lost_rows=12, lost_from_us=0, lost_to_us=1),
    ):
        assert (danger.danger, danger.state) == (Danger.CRITICAL, "warning"), danger
    assert row({}, found_differing=3).reasons == ("verify or reconcile saw 3 windows differ",)
    assert row({}, lost=1, lost_rows=0, lost_from_us=0, lost_to_us=1).reasons == (
        "rows expired before they were shipped, in up to 1 window",
    )
    unknown = row({"late_unknown": 2})
    assert (unknown.danger, len(unknown.reasons)) == (Danger.WARNING, 1)
    assert "not known whether late ones are missing" in unknown.reasons[0]


def test_what_verify_found_and_what_is_lost_lead_to_their_commands() -> None:
    lines = [c.line for c in next_commands(row({}, found_differing=3, lost=1, lost_from_us=0, lost_to_us=WIDTH))]
    assert lines == [
        "bin/offload verify k2.t",
        "bin/offload reconcile k2.t --dry-run",
        "bin/offload accept-loss k2.t",
        "bin/offload plan k2.t",
        "bin/offload verify k2.t",
    ]


def test_ttl_merges_that_clickhouse_goes_on_with_are_not_stopped() -> None:
    """Never obeyed, or not since it was restarted; and one that only does not start again stops them still."""
    guard = {"guard": "unshipped rows expire", "wanted": "stop", "applied_at": hours_ago(1)}
    held = row({}, **guard)
    assert (held.danger, held.reasons) == (Danger.WARNING, ("TTL merges of the source are stopped",))
    refused = row({}, **guard | {"guard_error": "OFL-201 http://u:hunter2@h is away"})
    assert refused.danger is Danger.CRITICAL
    assert refused.reasons[0].startswith("TTL merges could not be stopped: OFL-201")
    assert "hunter2" not in refused.reasons[0]
    assert len(refused.reasons) == 1
    assert next_commands(refused)[0].line == "bin/offload status k2.t"
    assert row({}, **guard | {"applied_at": None}).danger is Danger.CRITICAL
    assert row({}, **guard | {"wanted": "start", "guard_error": "OFL-201 away"}).danger is Danger.WARNING


@pytest.mark.parametrize(
    ("failures", "danger", "reason"),
    [
        (0, Danger.WARNING, "a try failed, a retry follows"),
        (1, Danger.WARNING, "the last run failed"),
        (3, Danger.CRITICAL, "3 failures in a row"),
    ],
)
def test_a_new_table_whose_first_check_fails_is_in_danger(failures: int, danger: Danger, reason: str) -> None:
    """A password that is wrong, a table that is not there: before the ledger has met the table."""
    said = "OFL-203 [k2.new] no such table: http://u:hunter2@h"
    failed = {"identity": "k2.new", "failure_count": failures, "last_error": said, "updated_at": hours_ago(0)}
    new = in_scheduler(_unmet(failed), Dag(), NOW)
    assert (new.state, new.danger, new.reasons[0]) == ("failed", danger, reason)
    assert (new.error_id, new.dag_id) == ("OFL-203", "offload__k2__new")
    assert "no such table" in (new.last_error or "")
    assert "hunter2" not in (new.last_error or "")
    assert sorted([seen(), new], key=by_danger)[0] == new
    assert next_commands(new)[0].why.startswith("OFL-203")


def test_the_bar_of_the_headroom_has_the_colours_of_its_limits() -> None:
    """Whatever share of the TTL is left: eight hours with five of them left are red, 30 days with seven are not."""
    assert seen(headroom_us=5 * HOUR_US, ttl_us=8 * HOUR_US).headroom_danger is Danger.CRITICAL
    assert seen(headroom_us=7 * DAY_US, ttl_us=30 * DAY_US).headroom_danger is Danger.OK
    own = seen(headroom_us=5 * HOUR_US, ttl_us=8 * HOUR_US, headroom_limit_s=3600)
    assert (own.headroom_danger, own.danger) == (Danger.OK, Danger.OK)
    assert seen(headroom_us=3 * HOUR_US, headroom_limit_s=3600).headroom_danger is Danger.WARNING


def test_a_try_that_a_retry_follows_warns() -> None:
    tried = _judged(replace(seen(), state="failed", failures=0), NOW)
    assert (tried.danger, tried.reasons) == (Danger.WARNING, ("a try failed, a retry follows",))


def test_order_and_commands() -> None:
    failed = seen(failures=3, error_id="OFL-203", last_error="OFL-203 gone", headroom_us=DAY_US * 2)
    differing, fine, new = seen(differing=2), seen(), unknown("offload__k2__a__b")
    assert sorted([new, fine, differing, failed], key=by_danger) == [failed, differing, fine, new]
    # what no command does is said, and not offered for copying
    assert (next_commands(failed)[0].line, next_commands(failed)[0].hint) == (None, REGISTRY["OFL-203"].hint)
    away = seen(failures=3, error_id="OFL-201", last_error="OFL-201 away")
    assert next_commands(away)[0].line == "bin/offload stack start"
    assert next_commands(away)[0].hint.startswith("if this machine runs it")
    owned = seen(failures=3, error_id="OFL-303", last_error="OFL-303 not ours")
    assert next_commands(owned)[0].line == "bin/offload take-over k2.t"
    assert next_commands(differing)[0].line == "bin/offload reconcile k2.t --dry-run"
    assert dag_id(new.table) == "offload__k2__a__b"


@pytest.mark.parametrize("id", REGISTRY)
def test_every_error_id_has_its_section(id: str) -> None:
    where = sections.section(id)
    assert where is not None
    text = sections.markdown(where)
    assert text, f"{where} has no text"
    assert text.strip()


def test_an_id_in_a_message() -> None:
    assert sections.error_id("OFL-203 [k2.t] gone. Next: x") == "OFL-203"
    assert sections.error_id("OFL-999 [k2.t] who knows") is None
    assert sections.error_id(None) is None
    assert sections.section("OFL-999") is None


def test_a_window_that_expired_before_it_was_shipped_is_lost() -> None:
    """Not what had expired when the ledger met the table, nor what nobody knows to expire."""
    grid = Grid(WIDTH)
    now = grid.span(grid.number(NOW)).lo + MINUTE_US
    table = TableOverview("k2.t", "ok", width_us=WIDTH, origin_us=0, met_us=now - 90 * MINUTE_US, ttl_us=HOUR_US)
    span = Span(now - MINUTE_US - 40 * WIDTH, now - MINUTE_US + WIDTH)
    cells = _cells(grid, span, [], {}, {}, table, now)
    fates = [c.fate for c in cells]
    # 200 minutes: expired before it was met, 150 to 60 minutes ago lost, then the hour that is alive, then the open one
    assert fates == [Fate.PENDING] * 11 + [Fate.LOST] * 18 + [Fate.PENDING] * 11 + [Fate.OPEN]
    assert cells[11].span.lo + HOUR_US > now - 90 * MINUTE_US >= cells[10].span.lo + HOUR_US
    assert cells[28].span.lo + HOUR_US <= now < cells[29].span.lo + HOUR_US
    forever = _cells(grid, span, [], {}, {}, replace(table, ttl_us=None), now)
    assert [c.fate for c in forever] == [Fate.PENDING] * 40 + [Fate.OPEN]


def test_a_window_that_was_seen_empty_after_its_rows_expired_stays_lost() -> None:
    """Until somebody accepts it; a window beside it that never held a row is empty."""
    grid = Grid(WIDTH)
    lo = grid.span(grid.number(NOW) - 500).lo
    span = Span(lo, lo + 4 * WIDTH)
    table = TableOverview("k2.t", "ok", width_us=WIDTH, origin_us=0, met_us=0, ttl_us=HOUR_US)
    recorded = {"plan_id": None, "recorded_at": from_us(NOW), "expiry_us": None}
    rows = [
        {"lo": lo, "hi": lo + 3 * WIDTH, "rows": 0} | recorded,
        {"lo": lo + 3 * WIDTH, "hi": lo + 4 * WIDTH, "rows": 5} | recorded,
    ]

    def fates(known: Known) -> list[Fate]:
        return [c.fate for c in _cells(grid, span, rows, {}, {}, table, NOW, known)]

    assert fates(Known()) == [Fate.EMPTY] * 3 + [Fate.SHIPPED]
    lost = Known(lost=(Span(lo + WIDTH, lo + 2 * WIDTH), Span(lo + 3 * WIDTH, lo + 4 * WIDTH)))
    assert fates(lost) == [Fate.EMPTY, Fate.LOST, Fate.EMPTY, Fate.LOST]
    assert fates(Known(differing=(span,))) == [Fate.DIFFERS] * 4


@pytest.mark.parametrize("width", [1, 10, 60, 300, 420, 900, 1800, 3600, 86_400, 7 * 86_400])
def test_windows_of_any_width_make_whole_rows(width: int) -> None:
    """Every window has one place, in order; seconds."""
    us = width * 1_000_000
    form = drawing.shape(us)
    span = form.span(NOW)
    assert span.contains(NOW)
    cells = [Cell(Grid(us).span(n), Fate.OPEN) for n in Grid(us).numbers(span)]
    assert len(cells) <= 2 * MAX_CELLS
    shown = [c for block in reversed(drawing.blocks(cells, form)) for row in block.rows for c in row.cells]
    assert shown == cells
    assert [row.first for block in reversed(drawing.blocks(cells, form)) for row in block.rows] == list(
        range(0, len(cells), form.row_us // us)
    )


def test_shades_are_quartiles() -> None:
    cells = [Cell(Span(0, 1), Fate.SHIPPED, rows) for rows in range(1, 101)]
    limits = drawing.shades(cells)
    assert [sum(drawing.shade(c, limits) == n for c in cells) for n in (1, 2, 3, 4)] == [25, 25, 25, 25]
    assert drawing.shades([]) == ()


def plan(minutes_ago: int, rows: int) -> PlanLine:
    import uuid

    at = NOW - minutes_ago * MINUTE_US
    return PlanLine(
        uuid.uuid4(), 1, "committed", "r", rows, 3, 1, at, at, at - 20 * MINUTE_US, at - 5 * MINUTE_US, None
    )


def test_charts() -> None:
    plans = [plan(15, 0), plan(30, 500), plan(45, 1000)]
    lag = drawing.lag_chart(plans, 2 * MINUTE_US, NOW, 18 * MINUTE_US, 35 * MINUTE_US)
    assert lag is not None
    assert lag.readings[0] == (0.0, lag.readings[0][1])
    assert "18 min before the run" in lag.readings[0][1]
    assert lag.readings[-1][0] == 1000
    assert "18 min now" in lag.readings[-1][1]
    rows = drawing.rows_chart(plans, NOW)
    assert rows is not None
    assert rows.top == "1 k"
    assert "1\u202f000 rows in 3 windows" in rows.readings[0][1]
    assert drawing.rows_chart([], NOW) is None
    assert drawing.lag_chart([], 0, NOW, None, 1) is None


def test_words() -> None:
    assert words.duration(-90 * 1_000_000) == "−1 min 30 s"
    assert words.duration(None) == "–"
    assert words.duration(26 * 60 * MINUTE_US) == "1 d 2 h"
    assert words.number(1234567) == "1\u202f234\u202f567"
    assert words.size(3 * 2**20) == "3.0 MiB"
    assert [words.short(v) for v in (999, 1500, 2e6)] == ["999", "1.5 k", "2 M"]
