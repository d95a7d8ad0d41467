"""What was seen and what was shipped, summed per window: in whatever order cells and files come (rules 7 and 12)."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.audit import shipped_windows
from include.offload.job import _outcome
from include.offload.model import (
    Action,
    Cell,
    Extent,
    Plan,
    PlannedWindow,
    Projection,
    ShippedFile,
    Target,
    WindowState,
    earliest,
)
from include.offload.windows import Grid, Span

WINDOWS = st.integers(-4, 4)
HASHES = st.integers(0, 5) | st.integers(2**64 - 5, 2**64 - 1)
EXPIRIES = st.none() | st.integers(0, 9)
STATES = st.builds(WindowState, WINDOWS, st.integers(0, 9), HASHES, EXPIRIES)
CELLS = st.lists(st.builds(Cell, WINDOWS, st.tuples(st.integers(0, 2)), st.integers(1, 9), HASHES, EXPIRIES))
GRID = Grid(10)


def extent(cells: list[Cell]) -> Extent:
    return Extent(0, "r:1", (), tuple(cells), None, 0, 0, 0)


def file(number: int, states: tuple[WindowState, ...]) -> ShippedFile:
    return ShippedFile(number, f"f{number}", 1, sum(s.rows for s in states), states, 0.0, (), {})


def plan(windows: list[PlannedWindow], before: int | None, after: int | None) -> Plan:
    return Plan(
        plan_id=uuid.UUID(int=1), pipeline=uuid.UUID(int=2), table="d.t", run_id="r", generation=1, predecessor=None,
        source_identity="s", replica="r:1", target=Target("d", "t", None, None, None), projection=Projection((), "f"),
        partition=(), sort=(), cursor="ts", cursor_type="DateTime", width_us=GRID.width_us, append=(Span(-40, 50),),
        scan=Span(-40, 50), windows=tuple(windows), slices=(), origin_us=-40, watermark_before=before,
        watermark_after=after, max_sequence=None, spec_json="{}", created_us=0,
    )  # fmt: skip


@given(
    st.lists(st.builds(Cell, WINDOWS, st.tuples(st.integers(0, 2)), st.integers(1, 9), HASHES, EXPIRIES)), st.randoms()
)
def test_the_cells_of_a_window_add_up_in_any_order(cells: list[Cell], order: random.Random) -> None:
    found = extent(cells).windows()
    assert found.keys() == {c.window for c in cells}
    for number, state in found.items():
        mine = [c for c in cells if c.window == number]
        assert state.rows == sum(c.rows for c in mine)
        assert state.hash == sum(c.hash for c in mine) % 2**64
        assert state.expiry_us == earliest(*(c.expiry_us for c in mine))
    shuffled = list(cells)
    order.shuffle(shuffled)
    assert extent(shuffled).windows() == found


@given(a=STATES, b=STATES)
def test_only_states_of_one_window_add_up(a: WindowState, b: WindowState) -> None:
    if a.window != b.window:
        with pytest.raises(ValueError, match="do not add up"):
            _ = a + b
        return
    assert a + b == b + a
    assert (a + b) + a == a + (b + a)


@given(st.lists(st.lists(STATES, max_size=4, unique_by=lambda s: s.window), max_size=5), st.randoms())
def test_rule_12_the_windows_of_all_files_add_up_in_any_order(
    states: list[list[WindowState]], order: random.Random
) -> None:
    files = [file(i, tuple(s)) for i, s in enumerate(states)]
    found = shipped_windows(files)
    assert sum(w.rows for w in found.values()) == sum(f.rows for f in files)
    order.shuffle(files)
    assert shipped_windows(files) == found


@given(
    rows=st.dictionaries(WINDOWS, st.integers(0, 5), min_size=1),
    pending=st.sets(WINDOWS, max_size=3),
    before=st.none() | st.integers(-4, 4).map(lambda n: n * 10),
    ahead=st.integers(0, 5),
)
def test_rule_7_the_watermark_of_an_attempt_stops_at_the_first_window_that_is_left_pending(
    rows: dict[int, int], pending: set[int], before: int | None, ahead: int
) -> None:
    windows = [PlannedWindow(n, Action.APPEND, r, 0) for n, r in sorted(rows.items())]
    after = (before if before is not None else -40) + ahead * 10
    left = tuple(sorted(pending & rows.keys()))
    shipped = tuple(WindowState(n, r, 1) for n, r in sorted(rows.items()) if n not in left and r)
    found = _outcome(plan(windows, before, after), [file(0, shipped)], left, 1.0)
    assert found.rows == sum(w.rows for w in shipped)
    # every planned window is either shipped, with or without rows, or said to be pending: none is passed over
    assert {w.window for w in found.windows} == rows.keys() - set(left)
    assert found.pending == left
    lows = [GRID.span(n).lo for n in left if before is None or GRID.span(n).lo >= before]
    assert found.watermark == min([after, *lows])
    assert before is None or (found.watermark is not None and found.watermark >= before)


def test_a_window_that_came_without_being_planned_expires_no_later_than_the_first_of_the_plan() -> None:
    """Rule 18: nobody asked when its rows expire, so the most careful answer counts."""
    windows = [PlannedWindow(0, Action.APPEND, 1, 0, None, 70), PlannedWindow(2, Action.APPEND, 1, 0, None, 50)]
    shipped = tuple(WindowState(n, 1, 1) for n in (0, 1, 2))
    found = _outcome(plan(windows, None, 30), [file(0, shipped)], (), 1.0)
    assert [w.expiry_us for w in found.windows] == [70, 50, 50]
    never = replace(plan([replace(w, expiry_us=None) for w in windows], None, 30))
    assert [w.expiry_us for w in _outcome(never, [file(0, shipped)], (), 1.0).windows] == [None] * 3
