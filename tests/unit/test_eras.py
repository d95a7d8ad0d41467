"""Which windows are compared in which columns (rule 10): runs of windows, and all of the time between them."""

from __future__ import annotations

from include.offload.eras import _cut
from include.offload.model import ProjectedColumn, WindowState
from include.offload.planning import LedgerWindow
from include.offload.windows import Grid, Span

GRID = Grid(10)
OLD = (ProjectedColumn("a", "Int32", "`a`", "int", True),)
NEW = (*OLD, ProjectedColumn("b", "Int32", "`b`", "int", True))
HELD = {"old": OLD, "new": NEW, "lost": ()}


def cut(prints: dict[int, str], span: Span) -> dict[tuple[ProjectedColumn, ...], tuple[list[Span], int]]:
    shipped = {n: LedgerWindow(WindowState(n, 1, 1), p) for n, p in prints.items()}
    return {e.columns: (list(e.spans), e.windows) for e in _cut(shipped, HELD, NEW, GRID, span)}


def test_without_a_change_there_is_one_era_that_is_the_whole_span() -> None:
    assert cut({1: "new", 4: "new"}, Span(0, 60)) == {NEW: ([Span(0, 60)], 2)}


def test_a_span_without_shipped_windows_is_compared_in_today_s_columns() -> None:
    assert cut({}, Span(0, 60)) == {NEW: ([Span(0, 60)], 0)}


def test_eras_begin_at_windows_and_leave_no_time_out() -> None:
    found = cut({1: "old", 2: "new", 3: "old", 5: "lost"}, Span(0, 100))
    assert found == {
        OLD: ([Span(0, 20), Span(30, 50)], 2),
        NEW: ([Span(20, 30)], 1),
        (): ([Span(50, 100)], 1),
    }


def test_a_projection_with_the_same_columns_under_another_fingerprint_is_the_same_era() -> None:
    shipped = {n: LedgerWindow(WindowState(n, 1, 1), p) for n, p in {0: "x", 1: "new"}.items()}
    (era,) = _cut(shipped, {"x": NEW, "new": NEW}, NEW, GRID, Span(0, 20))
    assert (era.spans, era.windows) == ((Span(0, 20),), 2)
