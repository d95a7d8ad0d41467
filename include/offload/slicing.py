"""Slices: cut a plan into queries, each of one Iceberg partition, each one Parquet file. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from include.offload.jobwords import Place
from include.offload.model import Action, Cell, PartitionValue, PlannedWindow, Slice
from include.offload.windows import Grid, Span, merge

MIN_ROWS = 250_000
"""Below this a slice is not cut further for parallelism: a query and a file cost more than they save."""

MAX_SPANS = 500
"""Of one slice: every span that stands apart is a condition of its query, which ClickHouse parses and plans with."""


def rows_per_slice(total_rows: int, *, max_rows: int, max_bytes: int, bytes_per_row: float, concurrency: int) -> int:
    """How many rows one slice should hold: an even share a task, within the limits of the spec."""
    share = -(-total_rows // max(1, concurrency))
    by_bytes = int(max_bytes / bytes_per_row) if bytes_per_row > 0 else max_rows
    return max(1, min(max_rows, by_bytes, max(share, MIN_ROWS)))


def place(rows: int, driver_rows: int) -> Place:
    """Who ships a plan of so many rows: starting Spark's executors takes longer than to ship few. driver_rows: the
    most that the driver ships itself, `plan.driver_rows` of the spec."""
    return Place.DRIVER if rows <= driver_rows else Place.EXECUTORS


def lanes(rows: Sequence[int], concurrency: int) -> list[int]:
    """For slices of so many rows the lane of each, 0 to concurrency − 1: the largest first, each into the emptiest."""
    filled = [0] * max(1, concurrency)
    chosen = [0] * len(rows)
    for index in sorted(range(len(rows)), key=lambda i: -rows[i]):
        lane = filled.index(min(filled))
        chosen[index] = lane
        # a slice without rows costs its query all the same
        filled[lane] += max(1, rows[index])
    return chosen


def cut(
    cells: Iterable[Cell], planned: Sequence[PlannedWindow], append: Sequence[Span], grid: Grid, target_rows: int
) -> tuple[Slice, ...]:
    """The slices of a plan, numbered from 0.

    A slice covers whole windows. Between two windows that it appends it covers the windows seen empty too, so
    that a run of them stays one range; it never covers a window that the plan does not ship.
    """
    actions = {w.window: w.action for w in planned}
    by_partition: dict[tuple[PartitionValue, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.window in actions:
            by_partition[cell.partition].append(cell)
    slices: list[Slice] = []
    for partition in sorted(by_partition, key=repr):
        group: list[Cell] = []
        rows = apart = 0
        for cell in sorted(by_partition[partition], key=lambda c: c.window):
            alone = actions[cell.window] is Action.REPLACE and not (group and cell.window == group[-1].window + 1)
            if group and (rows + cell.rows > target_rows or apart + alone > MAX_SPANS):
                slices.append(_slice(len(slices), partition, group, actions, append, grid))
                group, rows, apart = [], 0, 0
            group.append(cell)
            rows += cell.rows
            apart += alone
        if group:
            slices.append(_slice(len(slices), partition, group, actions, append, grid))
    return tuple(slices)


def _slice(
    number: int,
    partition: tuple[PartitionValue, ...],
    group: Sequence[Cell],
    actions: dict[int, Action],
    append: Sequence[Span],
    grid: Grid,
) -> Slice:
    spans = [grid.span(c.window) for c in group]
    appended = [grid.span(c.window) for c in group if actions[c.window] is Action.APPEND]
    for whole in append:
        inside = [s for s in appended if whole.lo <= s.lo and s.hi <= whole.hi]
        if inside:
            spans.append(Span(inside[0].lo, inside[-1].hi))
    return Slice(number, partition, merge(spans), sum(c.rows for c in group))
