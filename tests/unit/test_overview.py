"""Danger, the layout of windows, and the way from an error id to its text: pure, so without a server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.offload import sections
from include.offload.errors import REGISTRY
from include.offload.overview import (
    DAY_US,
    MINUTE_US,
    Danger,
    TableOverview,
    _judged,
    by_danger,
    dag_id,
    next_commands,
    unknown,
)
from include.offload.timeline import MAX_CELLS, Cell, Fate, PlanLine
from include.offload.windows import Grid, Span
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
        # a TTL of half a day is not a danger in itself
        (7 * 60 * MINUTE_US, DAY_US // 2, Danger.OK),
        (None, None, Danger.OK),
    ],
)
def test_headroom(headroom: int | None, ttl: int | None, danger: Danger) -> None:
    assert seen(headroom_us=headroom, ttl_us=ttl).danger == danger


def test_a_try_that_a_retry_follows_warns() -> None:
    tried = _judged(replace(seen(), state="failed", failures=0), NOW)
    assert (tried.danger, tried.reasons) == (Danger.WARNING, ("a try failed, a retry follows",))


def test_order_and_commands() -> None:
    failed = seen(failures=3, error_id="OFL-203", last_error="OFL-203 gone")
    differing, fine, new = seen(differing=2), seen(), unknown("offload__k2__a__b")
    assert sorted([new, fine, differing, failed], key=by_danger) == [failed, differing, fine, new]
    assert next_commands(failed)[0].line == REGISTRY["OFL-203"].next_step
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
