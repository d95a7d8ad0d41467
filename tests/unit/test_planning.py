"""Which windows are appended, replaced and left alone: rules 6 to 10, 18 and 19, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.offload.model import Action, Cell, Extent, PlannedWindow, WindowState, earliest
from include.offload.planning import (
    MANY_SLICES,
    Bound,
    Decision,
    Leave,
    LedgerWindow,
    Left,
    Rules,
    bound_of,
    decide,
    describe_bounds,
    describe_left,
)
from include.offload.windows import Grid, Span

GRID = Grid(10)
NOW = 1_000
SAFE = 2_000
MINE, OLD = "fingerprint of today", "fingerprint of yesterday"


def rules(**changes: object) -> Rules:
    base: dict[str, object] = {"grid": GRID, "fingerprint": MINE, "follow_deletes": False, "safe_until_us": SAFE}
    return Rules(**(base | changes))  # type: ignore[arg-type]


def extent(*cells: Cell) -> Extent:
    return Extent(NOW, "replica:8123", (Span(-(10**6), 10**6),), cells, None, sum(c.rows for c in cells), 0, 0)


def cell(window: int, rows: int, hash_: int = 7, expiry: int | None = None, partition: str = "p") -> Cell:
    return Cell(window, (partition,), rows, hash_, expiry)


def shipped(window: int, rows: int, hash_: int = 7, expiry: int | None = None, fingerprint: str = MINE) -> LedgerWindow:
    return LedgerWindow(WindowState(window, rows, hash_, expiry), fingerprint)


def ledger(*windows: LedgerWindow) -> dict[int, LedgerWindow]:
    return {w.state.window: w for w in windows}


def one(decision: Decision) -> PlannedWindow | Left | None:
    """The only thing that was decided."""
    found: list[PlannedWindow | Left] = [*decision.windows, *decision.left]
    assert len(found) <= 1, found
    return found[0] if found else None


def judged(now: Cell | None, known: LedgerWindow, **changes: object) -> PlannedWindow | Left | None:
    cells = () if now is None else (now,)
    return one(decide(extent(*cells), [], ledger(known), [], rules(**changes)))


# ---- rules 7 and 8: what is appended ---------------------------------------------------------------------------------


def test_rule_7_windows_decide_and_only_whole_windows_of_unknown_time_are_appended() -> None:
    found = decide(extent(cell(1, 5), cell(2, 6), cell(3, 7)), [Span(10, 30)], {}, [], rules())
    assert found.windows == (
        PlannedWindow(1, Action.APPEND, 5, 7, None, None),
        PlannedWindow(2, Action.APPEND, 6, 7, None, None),
    )
    assert found.left == ()


def test_rule_8_a_window_without_rows_is_not_shipped() -> None:
    assert decide(extent(), [Span(0, 100)], {}, [], rules()) == Decision()


def test_the_cells_of_all_partitions_add_up_to_one_window() -> None:
    cells = (cell(1, 5, 2**64 - 1, 90, "a"), cell(1, 6, 3, 80, "b"))
    (window,) = decide(extent(*cells), [Span(10, 20)], {}, [], rules()).windows
    assert window == PlannedWindow(1, Action.APPEND, 11, 2, None, 80)


def test_an_appended_window_ships_whatever_its_expiry() -> None:
    assert decide(extent(cell(1, 5, expiry=NOW)), [Span(10, 20)], {}, [], rules()).windows
    assert decide(extent(cell(1, 5, expiry=NOW)), [Span(10, 20)], {}, [], rules(safe_until_us=None)).windows


def test_time_that_is_neither_unknown_nor_accounted_is_not_touched() -> None:
    assert decide(extent(cell(5, 1)), [Span(10, 20)], {}, [Span(60, 70)], rules()) == Decision()


def test_rule_6_windows_before_1970_are_planned_like_any_other() -> None:
    (window,) = decide(extent(cell(-3, 4)), [Span(-30, -20)], {}, [], rules()).windows
    assert window.window == -3


# ---- rule 9: what differs is replaced --------------------------------------------------------------------------------


def test_rule_9_the_same_rows_and_hash_under_the_same_fingerprint_are_left_as_they_are() -> None:
    assert judged(cell(1, 5), shipped(1, 5)) is None


@pytest.mark.parametrize("now", [cell(1, 6), cell(1, 5, hash_=8), cell(1, 6, hash_=8)], ids=["rows", "hash", "both"])
def test_rule_9_a_window_that_differs_is_replaced(now: Cell) -> None:
    assert judged(now, shipped(1, 5)) == PlannedWindow(1, Action.REPLACE, now.rows, now.hash, 5, None)


def test_rule_9_late_rows_in_a_window_verified_empty_are_shipped() -> None:
    found = one(decide(extent(cell(1, 2)), [], {}, [Span(0, 100)], rules()))
    assert found == PlannedWindow(1, Action.REPLACE, 2, 7, 0, None)


@pytest.mark.parametrize("safe", [SAFE, None], ids=["expiring", "TTL unreadable"])
def test_rule_18_late_rows_in_a_window_verified_empty_are_shipped_even_when_they_expire_soon(safe: int | None) -> None:
    """Nothing was shipped there, so there is no history to erase; to leave them would lose them."""
    found = one(decide(extent(cell(1, 2, expiry=SAFE)), [], {}, [Span(0, 100)], rules(safe_until_us=safe)))
    assert found == PlannedWindow(1, Action.REPLACE, 2, 7, 0, SAFE)


def test_force_replaces_what_did_not_change() -> None:
    assert judged(cell(1, 5), shipped(1, 5), force=True) == PlannedWindow(1, Action.REPLACE, 5, 7, 5, None)


# ---- rule 10: fingerprints -------------------------------------------------------------------------------------------


def test_rule_10_another_fingerprint_is_unknown_not_changed() -> None:
    assert judged(cell(1, 5, 8), shipped(1, 5, 7, fingerprint=OLD)) == Left(1, Leave.UNKNOWN, 5, 5)


def test_rule_10_even_an_equal_hash_says_nothing_under_another_fingerprint() -> None:
    assert judged(cell(1, 5), shipped(1, 5, fingerprint=OLD)) == Left(1, Leave.UNKNOWN, 5, 5)


def test_rule_10_another_count_is_a_change_under_any_fingerprint() -> None:
    found = judged(cell(1, 6), shipped(1, 5, fingerprint=OLD))
    assert isinstance(found, PlannedWindow) and found.action is Action.REPLACE


def test_force_replaces_under_another_fingerprint() -> None:
    found = judged(cell(1, 5), shipped(1, 5, fingerprint=OLD), force=True)
    assert isinstance(found, PlannedWindow) and found.action is Action.REPLACE


# ---- rule 18: expiring windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("now", "before"), [(SAFE, None), (None, SAFE), (SAFE - 500, SAFE + 500)], ids=["rows now", "rows before", "both"]
)
def test_rule_18_a_window_that_may_expire_before_the_commit_is_never_replaced(
    now: int | None, before: int | None, force: bool
) -> None:
    found = judged(cell(1, 6, 8, now), shipped(1, 5, 7, before), force=force, follow_deletes=True)
    assert found == Left(1, Leave.EXPIRING, 6, 5)


def test_rule_18_a_window_is_replaced_while_every_expiry_is_later() -> None:
    found = judged(cell(1, 6, 8, SAFE + 1), shipped(1, 5, 7, SAFE + 1))
    assert found == PlannedWindow(1, Action.REPLACE, 6, 8, 5, SAFE + 1)


def test_rule_18_the_expiry_that_is_frozen_is_the_earlier_one_of_now_and_before() -> None:
    found = judged(cell(1, 6, 8, SAFE + 9), shipped(1, 5, 7, SAFE + 3))
    assert isinstance(found, PlannedWindow) and found.expiry_us == SAFE + 3


@pytest.mark.parametrize("force", [False, True])
def test_rule_18_nothing_is_replaced_while_the_ttl_can_not_be_read(force: bool) -> None:
    found = judged(cell(1, 6, 8), shipped(1, 5), force=force, safe_until_us=None, follow_deletes=True)
    assert found == Left(1, Leave.EXPIRING, 6, 5, expired=True)


def test_rule_18_a_window_that_expired_whole_is_left_even_when_deletes_are_followed() -> None:
    assert judged(None, shipped(1, 5, expiry=NOW - 1), follow_deletes=True) == Left(
        1, Leave.EXPIRING, 0, 5, expired=True
    )


# ---- what is left and must be said -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "differs"),
    [
        (Left(1, Leave.SHRUNK, 4, 5), True),
        (Left(1, Leave.UNKNOWN, 5, 5), False),
        (Left(1, Leave.EXPIRING, 5, 5), True),
        (Left(1, Leave.EXPIRING, 4, 5), True),
        (Left(1, Leave.EXPIRING, 4, 5, expired=True), False),
        (Left(1, Leave.EXPIRING, 5, 5, expired=True), False),
        (Left(1, Leave.EXPIRING, 6, 5, expired=True), True),
        (Left(1, Leave.KEPT, 4, 5), False),
        (Left(1, Leave.KEPT, 6, 5), True),
    ],
    ids=str,
)
def test_that_the_lake_keeps_what_expired_is_no_difference(left: Left, differs: bool) -> None:
    """A table whose horizon is longer than its TTL has such windows in every run, and nothing is wrong with it."""
    assert left.differs is differs


@pytest.mark.parametrize(("expiry", "expired"), [(NOW, True), (NOW + 1, False)])
def test_a_window_has_expired_from_its_expiry_on(expiry: int, expired: bool) -> None:
    assert judged(cell(1, 4, 8, expiry), shipped(1, 5, 7, SAFE)) == Left(1, Leave.EXPIRING, 4, 5, expired)


# ---- rule 19: shrunk windows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("now", [cell(1, 4, 8), None], ids=["fewer rows", "no row"])
def test_rule_19_a_shrunk_window_is_reported_and_not_replaced(now: Cell | None, force: bool) -> None:
    assert judged(now, shipped(1, 5), force=force) == Left(1, Leave.SHRUNK, now.rows if now else 0, 5)


@pytest.mark.parametrize("now", [cell(1, 4, 8), None], ids=["fewer rows", "no row"])
def test_rule_19_a_shrunk_window_is_replaced_when_the_spec_follows_deletes(now: Cell | None) -> None:
    found = judged(now, shipped(1, 5), follow_deletes=True)
    assert found == PlannedWindow(1, Action.REPLACE, now.rows if now else 0, now.hash if now else 0, 5, None)


def test_rule_19_shrinkage_is_judged_by_rows_not_by_hash() -> None:
    found = judged(cell(1, 5, 8), shipped(1, 5))
    assert isinstance(found, PlannedWindow) and found.action is Action.REPLACE


# ---- properties ------------------------------------------------------------------------------------------------------

WINDOWS = st.integers(-6, 6)
EXPIRIES = st.none() | st.integers(SAFE - 3, SAFE + 3)
CELLS = st.lists(
    st.builds(
        Cell,
        window=WINDOWS,
        partition=st.sampled_from([("a",), ("b",)]),
        rows=st.integers(1, 3),
        hash=st.integers(0, 2) | st.integers(2**64 - 2, 2**64 - 1),
        expiry_us=EXPIRIES,
    ),
    max_size=10,
    unique_by=lambda c: (c.window, c.partition),
)
SHIPPED = st.builds(
    lambda rows, hash_, expiry, fingerprint: (rows, hash_, expiry, fingerprint),
    st.integers(1, 4),
    st.integers(0, 2),
    EXPIRIES,
    st.sampled_from([MINE, OLD]),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Extent, list[Span], dict[int, LedgerWindow], list[Span], Rules]:
    """Every window of the range is unknown, shipped, verified empty, or outside all of them."""
    append: list[Span] = []
    empty: list[Span] = []
    known: dict[int, LedgerWindow] = {}
    for number in range(-6, 7):
        match draw(st.sampled_from(["append", "shipped", "empty", "nothing"])):
            case "append":
                append.append(GRID.span(number))
            case "empty":
                empty.append(GRID.span(number))
            case "shipped":
                rows, hash_, expiry, fingerprint = draw(SHIPPED)
                known[number] = shipped(number, rows, hash_, expiry, fingerprint)
    how = rules(
        follow_deletes=draw(st.booleans()), safe_until_us=draw(st.sampled_from([SAFE, None])), force=draw(st.booleans())
    )
    return extent(*draw(CELLS)), append, known, empty, how


def spans_hold(spans: Sequence[Span], window: int) -> bool:
    return any(s.overlaps(GRID.span(window)) for s in spans)


@given(situations())
def test_append_covers_exactly_the_unknown_time_and_replace_never_enters_it(
    situation: tuple[Extent, list[Span], Mapping[int, LedgerWindow], list[Span], Rules],
) -> None:
    seen, append, known, empty, how = situation
    found = decide(seen, append, known, empty, how)
    appended = {w.window for w in found.windows if w.action is Action.APPEND}
    replaced = {w.window for w in found.windows if w.action is Action.REPLACE}
    assert appended == {n for n in seen.windows() if spans_hold(append, n)}
    assert replaced <= known.keys() | {n for n in seen.windows() if spans_hold(empty, n)}
    assert len(found.windows) == len(appended | replaced)
    assert not (appended | replaced) & {x.window for x in found.left}
    assert [w.window for w in found.windows] == sorted(w.window for w in found.windows)


@given(situations())
def test_what_is_planned_is_what_clickhouse_holds(
    situation: tuple[Extent, list[Span], Mapping[int, LedgerWindow], list[Span], Rules],
) -> None:
    seen, append, known, empty, how = situation
    for window in decide(seen, append, known, empty, how).windows:
        state = seen.windows().get(window.window, WindowState(window.window, 0, 0))
        assert (window.rows, window.hash) == (state.rows, state.hash)
        if window.action is Action.REPLACE:
            before = known.get(window.window)
            assert window.ledger_rows == (before.state.rows if before else 0)
            assert window.expiry_us == earliest(state.expiry_us, before.state.expiry_us if before else None)


@given(situations())
def test_no_history_that_expires_is_ever_replaced_and_no_shrunk_window_unless_deletes_are_followed(
    situation: tuple[Extent, list[Span], Mapping[int, LedgerWindow], list[Span], Rules],
) -> None:
    seen, append, known, empty, how = situation
    for window in decide(seen, append, known, empty, how).windows:
        if window.window not in known:
            continue
        assert how.safe_until_us is not None
        assert window.expiry_us is None or window.expiry_us > how.safe_until_us
        assert window.rows >= known[window.window].state.rows or how.follow_deletes


@given(situations())
def test_every_window_that_differs_is_shipped_or_reported(
    situation: tuple[Extent, list[Span], Mapping[int, LedgerWindow], list[Span], Rules],
) -> None:
    """Nothing is passed over in silence."""
    seen, append, known, empty, how = situation
    found = decide(seen, append, known, empty, how)
    spoken = {w.window for w in found.windows} | {x.window for x in found.left}
    now = seen.windows()
    for number, before in known.items():
        state = now.get(number, WindowState(number, 0, 0))
        differs = (state.rows, state.hash) != (before.state.rows, before.state.hash) or before.fingerprint != MINE
        assert (number in spoken) == (differs or how.force)
    for number in now:
        if spans_hold(append, number) or spans_hold(empty, number):
            assert number in spoken


@given(situations())
def test_planning_what_was_just_shipped_finds_nothing_to_do(
    situation: tuple[Extent, list[Span], Mapping[int, LedgerWindow], list[Span], Rules],
) -> None:
    seen, append, known, empty, how = situation
    first = decide(seen, append, known, empty, how)
    after = dict(known)
    for window in first.windows:
        if window.rows:
            after[window.window] = shipped(window.window, window.rows, window.hash, window.expiry_us)
        else:
            after.pop(window.window)
    again = decide(seen, [], after, [*append, *empty], rules(follow_deletes=how.follow_deletes))
    done = {w.window for w in first.windows}
    assert not [w for w in again.windows if w.window in done]


# ---- what the operator reads -----------------------------------------------------------------------------------------


def test_what_was_left_alone_is_said_per_reason_with_the_oldest_window() -> None:
    left = [Left(3, Leave.SHRUNK, 4, 5), Left(-1, Leave.SHRUNK, 0, 2), Left(7, Leave.EXPIRING, 1, 1)]
    assert describe_left(left, Grid(60_000_000)) == [
        "2 windows left alone (shrunk): source 4 rows, lake 7, oldest 1969-12-31T23:59:00Z",
        "1 windows left alone (expiring): source 1 rows, lake 1, oldest 1970-01-01T00:07:00Z",
    ]
    assert describe_left([], GRID) == []


def test_a_plan_within_its_bounds_needs_no_word() -> None:
    assert describe_bounds(None, 0, "plan.rows is 200", MANY_SLICES, 1_000) == []


def test_a_backlog_that_was_cut_and_many_small_files_are_said() -> None:
    cut, many = describe_bounds(60_000_000, 180_000_000, bound_of(2_500, 2**40, 100.0).why, MANY_SLICES + 1, 1_000)
    assert cut == (
        "the backlog is larger than one run may ship (plan.rows is 2,500): this one ends at 1970-01-01T00:01:00Z,"
        " settled is 1970-01-01T00:03:00Z; the next run goes on"
    )
    assert many == "101 slices, each a query and a file: slice.rows is 1,000"


def test_the_tighter_of_rows_and_bytes_bounds_a_plan() -> None:
    assert bound_of(1_000, 2**20, 100.0) == Bound(1_000, "plan.rows is 1,000")
    assert bound_of(1_000_000, 2**20, 1_024.0) == Bound(1_024, "plan.bytes is 1,048,576, which is about 1,024 rows")
    assert bound_of(1_000, 2**20, 0.0).rows == 1_000, "an empty table has no mean"
    assert bound_of(1_000, 2**20, 2.0**30).rows == 1, "a row larger than the bound still goes"
