"""Slices: every planned cell in exactly one, none over a window that the plan does not ship, sizes within limits."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from include.offload.model import Action, Cell, PartitionValue, PlannedWindow
from include.offload.slicing import MAX_SPANS, MIN_ROWS, cut, lanes, rows_per_slice
from include.offload.windows import Grid, Span

GRID = Grid(10)
RANGE = range(-8, 9)
PARTITIONS: list[tuple[PartitionValue, ...]] = [(None, "a"), (1, "a"), (1, None), (True, "b"), (-3, "")]


def cell(window: int, rows: int, partition: tuple[PartitionValue, ...] = ()) -> Cell:
    return Cell(window, partition, rows, 0)


def planned(window: int, action: Action, rows: int) -> PlannedWindow:
    return PlannedWindow(window, action, rows, 0)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Cell], list[PlannedWindow], list[Span], int]:
    """Windows to append (in runs, some of them empty), to replace, and known ones that the plan leaves alone."""
    kinds = {n: draw(st.sampled_from(["append", "append", "replace", "leave"])) for n in RANGE}
    append: list[Span] = []
    for number in RANGE:
        if kinds[number] != "append":
            continue
        span = GRID.span(number)
        if append and append[-1].hi == span.lo:
            append[-1] = Span(append[-1].lo, span.hi)
        else:
            append.append(span)
    cells = draw(
        st.lists(
            st.builds(cell, st.sampled_from(list(RANGE)), st.integers(1, 50), st.sampled_from(PARTITIONS)),
            max_size=40,
            unique_by=lambda c: (c.window, c.partition),
        )
    )
    rows: Counter[int] = Counter()
    for c in cells:
        rows[c.window] += c.rows
    windows = [
        planned(n, Action.APPEND if kinds[n] == "append" else Action.REPLACE, rows[n])
        for n in RANGE
        if rows[n] and kinds[n] != "leave"
    ]
    return cells, windows, append, draw(st.integers(1, 200))


@given(situations())
def test_every_planned_cell_lies_in_exactly_one_slice_of_its_partition(
    situation: tuple[list[Cell], list[PlannedWindow], list[Span], int],
) -> None:
    cells, windows, append, target = situation
    slices = cut(cells, windows, append, GRID, target)
    wanted = {w.window for w in windows}
    for c in cells:
        inside = [
            s.number
            for s in slices
            if s.partition == c.partition and any(x.overlaps(GRID.span(c.window)) for x in s.spans)
        ]
        assert len(inside) == (1 if c.window in wanted else 0), (c, slices)
    assert sum(s.rows for s in slices) == sum(c.rows for c in cells if c.window in wanted)


@given(situations())
def test_a_slice_covers_whole_windows_that_the_plan_ships_or_saw_empty_and_no_other(
    situation: tuple[list[Cell], list[PlannedWindow], list[Span], int],
) -> None:
    cells, windows, append, target = situation
    wanted = {w.window for w in windows}
    for slice_ in cut(cells, windows, append, GRID, target):
        assert slice_.spans
        for span in slice_.spans:
            for number in GRID.numbers(span):
                unknown = any(a.lo <= GRID.span(number).lo and GRID.span(number).hi <= a.hi for a in append)
                assert number in wanted or unknown


@given(situations())
def test_a_slice_holds_no_more_rows_than_its_target_unless_one_window_alone_does(
    situation: tuple[list[Cell], list[PlannedWindow], list[Span], int],
) -> None:
    cells, windows, append, target = situation
    for slice_ in cut(cells, windows, append, GRID, target):
        held = [
            c.rows
            for c in cells
            if c.partition == slice_.partition and any(s.overlaps(GRID.span(c.window)) for s in slice_.spans)
        ]
        assert slice_.rows == sum(held)
        assert slice_.rows <= target or len(held) == 1


@given(situations())
def test_slices_are_numbered_from_0_and_no_two_of_a_partition_overlap(
    situation: tuple[list[Cell], list[PlannedWindow], list[Span], int],
) -> None:
    slices = cut(*situation[:3], GRID, situation[3])
    assert [s.number for s in slices] == list(range(len(slices)))
    for a in slices:
        for b in slices:
            if a.number < b.number and a.partition == b.partition:
                assert not any(x.overlaps(y) for x in a.spans for y in b.spans)


@given(situations())
def test_the_order_in_which_cells_come_does_not_matter(
    situation: tuple[list[Cell], list[PlannedWindow], list[Span], int],
) -> None:
    cells, windows, append, target = situation
    assert cut(reversed(cells), windows, append, GRID, target) == cut(cells, windows, append, GRID, target)


def test_a_run_of_appended_windows_stays_one_range_across_windows_seen_empty() -> None:
    (slice_,) = cut(
        [cell(1, 5), cell(5, 5)],
        [planned(1, Action.APPEND, 5), planned(5, Action.APPEND, 5)],
        [Span(0, 100)],
        GRID,
        1_000,
    )
    assert slice_.spans == (Span(10, 60),)


def test_replaced_windows_do_not_reach_over_the_windows_between_them() -> None:
    (slice_,) = cut(
        [cell(1, 5), cell(5, 5)], [planned(1, Action.REPLACE, 5), planned(5, Action.REPLACE, 5)], [], GRID, 1_000
    )
    assert slice_.spans == (Span(10, 20), Span(50, 60))


def test_a_known_window_between_two_appended_ones_is_not_covered() -> None:
    (slice_,) = cut(
        [cell(1, 5), cell(2, 9), cell(3, 5)],
        [planned(1, Action.APPEND, 5), planned(3, Action.APPEND, 5)],
        [Span(10, 20), Span(30, 40)],
        GRID,
        1_000,
    )
    assert slice_.spans == (Span(10, 20), Span(30, 40))
    assert slice_.rows == 10


def test_no_rows_no_slices() -> None:
    assert cut([], [planned(1, Action.REPLACE, 0)], [], GRID, 10) == ()


@given(
    total=st.integers(0, 10**9),
    max_rows=st.integers(1, 10**7),
    max_bytes=st.integers(1, 2**40),
    bytes_per_row=st.just(0.0) | st.floats(0.125, 10**6),
    concurrency=st.integers(1, 64),
)
def test_the_rows_of_a_slice_stay_within_the_limits_of_the_spec(
    total: int, max_rows: int, max_bytes: int, bytes_per_row: float, concurrency: int
) -> None:
    rows = rows_per_slice(
        total, max_rows=max_rows, max_bytes=max_bytes, bytes_per_row=bytes_per_row, concurrency=concurrency
    )
    assert 1 <= rows <= max_rows
    assert rows == 1 or rows * bytes_per_row <= max_bytes


def test_a_big_plan_is_shared_evenly_and_a_small_one_is_not_cut() -> None:
    limits = {"max_rows": 2_000_000, "max_bytes": 2**40, "bytes_per_row": 10.0}
    assert rows_per_slice(3_000_000, concurrency=2, **limits) == 1_500_000  # type: ignore[arg-type]
    assert rows_per_slice(3_000_001, concurrency=2, **limits) == 1_500_001  # type: ignore[arg-type]
    assert rows_per_slice(9_000_000, concurrency=2, **limits) == 2_000_000  # type: ignore[arg-type]
    assert rows_per_slice(1_000, concurrency=2, **limits) == MIN_ROWS  # type: ignore[arg-type]
    assert rows_per_slice(9_000_000, concurrency=2, **(limits | {"max_bytes": 10_000})) == 1_000  # type: ignore[arg-type]


@given(rows=st.lists(st.integers(0, 5_000_000), max_size=60), concurrency=st.integers(1, 64))
def test_lanes_hold_every_slice_and_are_no_more_than_allowed(rows: list[int], concurrency: int) -> None:
    chosen = lanes(rows, concurrency)
    assert len(chosen) == len(rows)
    assert all(0 <= lane < concurrency for lane in chosen)
    filled = [sum(r for r, lane in zip(rows, chosen, strict=True) if lane == n) for n in range(concurrency)]
    # no lane waits for another longer than its largest slice takes
    assert max(filled) - min(filled) <= max(rows, default=0) + len(rows)


def test_no_slice_waits_while_a_lane_is_free() -> None:
    assert sorted(lanes([5, 1, 9], 3)) == [0, 1, 2]
    assert lanes([2_000_000, 1_300_000, 700_000], 2) == [0, 1, 1]


def test_windows_that_stand_apart_are_bounded_in_each_slice() -> None:
    """Each of them is a condition of the slice's query; those that follow one another are one."""
    apart = range(0, 3 * MAX_SPANS, 2)
    spread = cut([cell(n, 1) for n in apart], [planned(n, Action.REPLACE, 1) for n in apart], [], GRID, 10**9)
    assert [len(s.spans) for s in spread] == [MAX_SPANS, MAX_SPANS // 2]
    close = range(3 * MAX_SPANS)
    (one,) = cut([cell(n, 1) for n in close], [planned(n, Action.REPLACE, 1) for n in close], [], GRID, 10**9)
    assert len(one.spans) == 1
