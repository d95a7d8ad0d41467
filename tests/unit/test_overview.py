"""Danger, the layout of windows, and the way from an error id to its text: pure, so without a server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.offload import sections
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
    by_danger,
    dag_id,
    in_scheduler,
    next_commands,
    restrict,
    unknown,
)
from include.offload.timeline import MAX_CELLS, Cell, Fate, PlanLine, _cells
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
        "duration_seconds": 1.0, "guard": None, "looked_at": ended, "met_at": from_us(0), "differing": 0, "day_rows": 1,
        "ttl_us": None,
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
    assert row({"lag_limit_s": 2 * 3600}, **behind).state == "behind"
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


def test_a_try_that_a_retry_follows_warns() -> None:
    tried = _judged(replace(seen(), state="failed", failures=0), NOW)
    assert (tried.danger, tried.reasons) == (Danger.WARNING, ("a try failed, a retry follows",))


def test_order_and_commands() -> None:
    failed = seen(failures=3, error_id="OFL-203", last_error="OFL-203 gone")
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
