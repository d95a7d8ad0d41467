"""Rule 12: whatever happens between the queries of a window, what passes the audit is what the next look can go on
from. The table is a model: rows with an id, a partition and a content, read one partition after the other."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.audit import Cells, _doubtful, _whole, changed_windows, shipped_cells, unlike_planned
from include.offload.errors import AUDIT_FAILED, OffloadError
from include.offload.model import Action, Plan, PlannedWindow, Projection, ShippedFile, Target, WindowState
from include.offload.windows import Span

PARTITIONS = ("a", "b", "c")


@dataclass(frozen=True)
class Row:
    id: int
    partition: str
    content: int = 0


Rows = tuple[Row, ...]


@dataclass(frozen=True)
class Event:
    """`move` and `change` alter the row of this id; `late` adds one."""

    kind: str
    id: int
    partition: str


def after(rows: Rows, event: Event) -> Rows:
    if event.kind == "late":
        return (*rows, Row(len(rows), event.partition))
    changed = {"move": {"partition": event.partition}, "change": {"content": 1}}[event.kind]
    return tuple(replace(r, **changed) if r.id == event.id else r for r in rows)  # type: ignore[arg-type]


def state(rows: Rows) -> WindowState:
    return WindowState(0, len(rows), sum(hash(r) for r in rows) % 2**64)


def cells(rows: Rows) -> Cells:
    by = {p: tuple(r for r in rows if r.partition == p) for p in PARTITIONS}
    return {(0, (p,)): state(part) for p, part in by.items() if part}


def plan(*windows: PlannedWindow) -> Plan:
    return Plan(
        plan_id=uuid.uuid4(), pipeline=uuid.uuid4(), table="db.t", run_id="r", generation=1, predecessor=None,
        source_identity="uuid:1", replica="r:1", target=Target("n", "t", None, None, None),
        projection=Projection((), ""), partition=(), sort=(), cursor="ts", cursor_type="DateTime", width_us=10,
        append=(Span(0, 10),), scan=Span(0, 10), windows=windows, slices=(), origin_us=0, watermark_before=None,
        watermark_after=10, max_sequence=None, spec_json="{}", created_us=0,
    )  # fmt: skip


def events(*kinds: str) -> st.SearchStrategy[list[list[Event]]]:
    """What happens before, between and after the three queries."""
    one = st.builds(Event, st.sampled_from(kinds), st.integers(0, 5), st.sampled_from(PARTITIONS))
    return st.lists(st.lists(one, max_size=2), min_size=4, max_size=4)


def queried(planned: Rows) -> list[str]:
    """The partitions that a plan reads: those with rows, and between other windows one seen empty is read in each."""
    return sorted({r.partition for r in planned}) or list(PARTITIONS)


def read(rows: Rows, happened: list[list[Event]]) -> tuple[Rows, Rows]:
    """The rows that came, and those that are there when all is read."""
    came: Rows = ()
    partitions = queried(rows)
    for i, batch in enumerate(happened):
        for event in batch:
            rows = after(rows, event)
        if i < len(partitions):
            came += tuple(r for r in rows if r.partition == partitions[i])
    return came, rows


def passes(planned: Rows, came: Rows, now: Rows) -> bool:
    window = PlannedWindow(0, Action.APPEND, len(planned), state(planned).hash)
    shipped = cells(came)
    doubtful = _doubtful(plan(*([window] if planned else [])), shipped, set())
    if not doubtful:
        return True
    return _whole(0, window if planned else None, shipped, cells(now), {(p,) for p in queried(planned)}, keeps=True)


START = st.lists(st.sampled_from(PARTITIONS), max_size=6).map(lambda ps: tuple(Row(i, p) for i, p in enumerate(ps)))


@given(START, events("move", "change", "late"))
def test_rule_12_what_passes_holds_every_row_once_and_is_of_one_moment(
    start: Rows, happened: list[list[Event]]
) -> None:
    """One query reads one moment; what came by several is as planned, or as ClickHouse holds it when asked again."""
    came, now = read(start, happened)
    if not passes(start, came, now):
        return
    ids = {r.id for r in came}
    assert len(ids) == len(came) <= len(now)
    if len(queried(start)) > 1:
        # a row in a partition that nobody reads is found by the next look, as late ones are
        assert state(came) in (state(start), state(tuple(r for r in now if r.partition in queried(start))))


@given(START, st.lists(st.builds(Event, st.just("late"), st.integers(0, 5), st.sampled_from(PARTITIONS)), max_size=4))
def test_rule_12_rows_that_come_before_the_read_keep_no_window_back(start: Rows, late: list[Event]) -> None:
    assert passes(start, *read(start, [late, [], [], []]))


@given(START.filter(bool), events("late"))
def test_rule_12_rows_that_come_into_one_piece_keep_no_window_back(start: Rows, happened: list[list[Event]]) -> None:
    here = tuple(replace(r, partition="b") for r in start)
    assert passes(here, *read(here, [[replace(e, partition="b") for e in batch] for batch in happened]))


def file(rows: int, window: int) -> ShippedFile:
    return ShippedFile(0, "s3://b/f", 1, rows, (WindowState(window, 2, 7),), 0.0, (), {})


@pytest.mark.parametrize(("rows", "window", "pending"), [(3, 0, set()), (2, 5, set()), (2, 0, {0})])
def test_files_that_hold_something_else_are_refused(rows: int, window: int, pending: set[int]) -> None:
    """Another number of rows than its windows; a window that is not planned; one that was to be left out."""
    with pytest.raises(OffloadError) as refused:
        changed_windows(None, None, plan(), [file(rows, window)], pending)  # type: ignore[arg-type]
    assert refused.value.kind is AUDIT_FAILED


def test_a_file_that_is_reported_twice_is_refused() -> None:
    """It would be committed twice."""
    with pytest.raises(OffloadError) as refused:
        shipped_cells([file(2, 0), file(2, 0)])
    assert refused.value.kind is AUDIT_FAILED


WHOLE = PlannedWindow(0, Action.APPEND, 2, 7)


@pytest.mark.parametrize(
    ("came", "unlike"),
    [
        (WindowState(0, 2, 7), set()),
        (WindowState(0, 1, 7), {0}),
        (WindowState(0, 3, 9), {0}),
        (WindowState(0, 2, 8), {0}),
        (None, {0}),
    ],
    ids=["as planned", "lacks a row", "has one more", "holds another value", "lacks the window"],
)
def test_of_another_replica_only_what_came_as_planned_is_taken(came: WindowState | None, unlike: set[int]) -> None:
    """Rule 11: whether it lacks rows or changes, or has newer ones, nothing on it tells."""
    files = [] if came is None else [ShippedFile(0, "s3://b/f", 1, came.rows, (came,), 0.0, (), {})]
    assert unlike_planned(plan(WHOLE), files, set()) == unlike
    assert unlike_planned(plan(WHOLE), files, {0}) == set(), "it is pending already"


def test_rows_of_another_replica_where_none_were_planned_wait() -> None:
    came = ShippedFile(0, "s3://b/f", 1, 2, (WindowState(1, 2, 7),), 0.0, (), {})
    assert unlike_planned(plan(), [came], set()) == {1}
