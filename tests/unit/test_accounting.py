"""The ledger's windows as a machine: whatever lands in whatever order, it says what a dict per window says."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from include.offload.ledger.accounting import Change, Entry, apply
from include.offload.model import EXPIRED_LONG_AGO, WindowState
from include.offload.windows import Grid, Span, merge

GRID = Grid(10)
NUMBERS = st.integers(-6, 6)
"""Windows on both sides of 1970."""


def state(window: int, rows: int, hash_: int = 7) -> WindowState:
    return WindowState(window, rows, hash_, None)


def span(first: int, last: int) -> Span:
    """The windows `first` to `last`, both included."""
    return Span(GRID.span(first).lo, GRID.span(last).hi)


@dataclass
class Table:
    """`offload.windows` for one table, with its exclusion constraint."""

    entries: list[Entry]

    def touching(self, spans: list[Span]) -> list[Entry]:
        """What the ledger reads before it writes: entries that overlap or touch."""
        wide = [Span(s.lo - 1, s.hi + 1) for s in spans]
        return [e for e in self.entries if any(e.span.overlaps(w) for w in wide)]

    def write(self, change: Change) -> None:
        for gone in change.delete:
            before = len(self.entries)
            self.entries = [e for e in self.entries if e.span != gone]
            assert len(self.entries) == before - 1, f"{gone} is no entry"
        for entry in change.insert:
            assert not any(e.span.overlaps(entry.span) for e in self.entries), f"{entry} overlaps: {self.entries}"
            self.entries.append(entry)


class Accounting(RuleBasedStateMachine):
    """The model: per window number None (unknown), 0 (verified empty) or what was shipped."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table([])
        self.model: dict[int, WindowState | None] = {}

    def land(self, shipped: list[WindowState], append: list[Span], pending: set[int]) -> None:
        spans = [*append, *(GRID.span(s.window) for s in shipped)]
        self.table.write(apply(self.table.touching(spans), shipped, append, pending, GRID))

    @rule(
        first=NUMBERS,
        length=st.integers(0, 5),
        rows=st.dictionaries(NUMBERS, st.integers(0, 3), max_size=6),
        hash_=st.integers(0, 3),
        late=st.sets(NUMBERS, max_size=2),
    )
    def a_plan_appends_time_that_the_ledger_does_not_know(
        self, first: int, length: int, rows: dict[int, int], hash_: int, late: set[int]
    ) -> None:
        """As planning does: only unknown windows; those that changed under the read stay pending."""
        unknown = [n for n in range(first, first + length) if n not in self.model]
        pending = late & set(unknown)
        shipped = [state(n, rows[n], hash_) for n in unknown if n in rows and n not in pending]
        self.land(shipped, list(merge(GRID.span(n) for n in unknown)), pending)
        for n in unknown:
            if n not in pending:
                self.model[n] = state(n, rows[n], hash_) if rows.get(n) else None

    @rule(rows=st.dictionaries(NUMBERS, st.integers(0, 3), min_size=1, max_size=4), hash_=st.integers(0, 3))
    def a_plan_replaces_known_windows(self, rows: dict[int, int], hash_: int) -> None:
        known = [state(n, r, hash_) for n, r in rows.items() if n in self.model]
        self.land(known, [], set())
        for s in known:
            self.model[s.window] = s if s.rows else None

    @rule(first=NUMBERS, length=st.integers(1, 8))
    def an_old_plan_says_that_time_was_empty(self, first: int, length: int) -> None:
        """A plan without rows, made before others shipped: it never wipes out what they shipped."""
        self.land([], [span(first, first + length - 1)], set())
        for n in range(first, first + length):
            self.model.setdefault(n, None)

    @rule(window=NUMBERS)
    def a_replace_is_left_pending(self, window: int) -> None:
        if self.model.get(window):
            self.land([], [], {window})

    @invariant()
    def no_two_entries_overlap(self) -> None:
        ordered = sorted(e.span for e in self.table.entries)
        assert all(a.hi <= b.lo for a, b in zip(ordered, ordered[1:], strict=False))

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        found: dict[int, WindowState | None] = {}
        for entry in self.table.entries:
            for n in GRID.numbers(entry.span):
                found[n] = entry.shipped
        assert found == self.model

    @invariant()
    def a_shipped_entry_is_one_window_and_holds_rows(self) -> None:
        for entry in self.table.entries:
            if entry.shipped is not None:
                assert entry.span == GRID.span(entry.shipped.window)
                assert entry.shipped.rows > 0

    @invariant()
    def runs_of_empty_windows_are_one_entry(self) -> None:
        """Else a table that is quiet for a year has 100,000 entries."""
        empty = [e.span for e in self.table.entries if e.shipped is None]
        assert len(merge(empty)) == len(empty)


TestAccounting = Accounting.TestCase
TestAccounting.settings = settings(max_examples=150, stateful_step_count=12)


def test_a_change_touches_only_what_changes() -> None:
    existing = [Entry(GRID.span(0), state(0, 5)), Entry(GRID.span(1), state(1, 6)), Entry(span(2, 9), None)]
    change = apply(existing, [state(1, 7)], [], [], GRID)
    assert change == Change((GRID.span(1),), (Entry(GRID.span(1), state(1, 7)),))


def test_recording_the_same_again_changes_nothing() -> None:
    existing = [Entry(GRID.span(0), state(0, 5)), Entry(span(1, 4), None)]
    assert apply(existing, [state(0, 5)], [span(0, 4)], [], GRID) == Change((), ())


def test_rows_that_turned_up_in_empty_time_cut_its_entry_in_two() -> None:
    change = apply([Entry(span(0, 4), None)], [state(2, 1)], [], [], GRID)
    assert change.delete == (span(0, 4),)
    assert change.insert == (Entry(span(0, 1), None), Entry(GRID.span(2), state(2, 1)), Entry(span(3, 4), None))


def test_a_window_that_is_followed_to_zero_rows_joins_the_empty_time_around_it() -> None:
    existing = [Entry(span(0, 1), None), Entry(GRID.span(2), state(2, 1)), Entry(span(3, 4), None)]
    change = apply(existing, [state(2, 0)], [], [], GRID)
    assert set(change.delete) == {e.span for e in existing}
    assert change.insert == (Entry(span(0, 4), None),)


def test_a_pending_window_is_recorded_as_neither_shipped_nor_empty() -> None:
    change = apply([], [state(0, 1), state(2, 1)], [span(0, 2)], [1], GRID)
    assert change.insert == (Entry(GRID.span(0), state(0, 1)), Entry(GRID.span(2), state(2, 1)))


def test_a_pending_replace_keeps_what_was_shipped_before() -> None:
    existing = [Entry(GRID.span(1), state(1, 5))]
    assert apply(existing, [], [], [1], GRID) == Change((), ())


def test_rule_18_the_mark_of_a_window_stays_when_it_is_recorded_anew() -> None:
    """Another run may have seen rows of it go while this one was on its way."""
    marked = replace(state(1, 5), expiry_us=EXPIRED_LONG_AGO)
    change = apply([Entry(GRID.span(1), marked)], [state(1, 6)], [], [], GRID)
    assert [e.shipped and e.shipped.expiry_us for e in change.insert] == [EXPIRED_LONG_AGO]
    soon = replace(state(1, 6), expiry_us=7)
    change = apply([Entry(GRID.span(1), replace(marked, expiry_us=9))], [soon], [], [], GRID)
    assert [e.shipped and e.shipped.expiry_us for e in change.insert] == [7]
