"""The ledger's transitions on the real PostgreSQL, in any order that Hypothesis thinks of (rules 5 to 8, 17, 21, 22).

The lake is a model: a chain of plans, of which one more lands only when it names the head. What the ledger holds is
compared with the model after every step.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from include.offload.errors import LEDGER_DISAGREES, PLAN_SUPERSEDED, WATERMARK_MOVED, OffloadError
from include.offload.ledger import Ledger
from include.offload.ledger.restore import restore
from include.offload.ledger.store import Landed
from include.offload.model import Action, Outcome, Plan, PlannedWindow, Projection, Target, WindowState
from include.offload.recovery import GENERATION_STEP, account
from include.offload.windows import Grid, Span, gapless_end, subtract
from tests.support.ledgers import own_ledger
from tests.support.stack import Servers

pytestmark = pytest.mark.timeout(180)

GRID = Grid(1_000_000)
LAST = 14
"""The windows of the machine are 0 to 13, in 1970."""
FINGERPRINT = "f"
ALL = Span(0, LAST * GRID.width_us)
EXAMPLES, STEPS = 30, 25
PHASES = (Phase.generate,)
"""To make a failure smaller takes minutes on a real server; its steps are printed as they were found."""


@pytest.fixture(scope="module")
def uri(data_stack: Servers) -> Iterator[str]:
    """A ledger of its own."""
    with own_ledger(data_stack) as found:
        yield found


def a_plan(identity: str, **facts: object) -> Plan:
    """A plan of the machine's table: what the ledger reads of it is in `facts`."""
    base = Plan(
        plan_id=uuid.uuid4(), pipeline=uuid.UUID(int=0), table=identity, run_id="run", generation=1, predecessor=None,
        source_identity="s", replica="r:1", target=Target("n", "t", None, None, None),
        projection=Projection((), FINGERPRINT), partition=(), sort=(), cursor="ts", cursor_type="DateTime64(6)",
        width_us=GRID.width_us, append=(), scan=ALL, windows=(), slices=(), origin_us=0, watermark_before=None,
        watermark_after=None, max_sequence=None, spec_json="{}", created_us=0,
    )  # fmt: skip
    return replace(base, **facts)  # type: ignore[arg-type]


def shipped(plan: Plan, windows: list[WindowState], pending: tuple[int, ...] = ()) -> Outcome:
    low = min((GRID.span(n).lo for n in pending), default=None)
    watermark = plan.watermark_after
    if low is not None and watermark is not None and (plan.watermark_before or 0) <= low:
        watermark = min(watermark, low)
    rows = sum(w.rows for w in windows)
    return Outcome(plan.plan_id, "shipped", None, rows, 1, 1, tuple(windows), pending, watermark, 0.0)


def landed(number: int) -> Landed:
    return Landed("00000000-0000-0000-0000-000000000001", number, number)


class LedgerMachine(RuleBasedStateMachine):
    """Plans are frozen, land, are recorded, repeated and passed; the ledger is rebuilt in between."""

    ledger: Ledger
    watcher: psycopg.Connection

    def __init__(self) -> None:
        super().__init__()
        self.identity = f"st.{uuid.uuid4().hex}"
        facts = {"cursor": "ts", "width_us": GRID.width_us, "source": "s", "target": self.identity}
        self.head = self.ledger.register(self.identity, origin_us=0, **facts)  # type: ignore[arg-type]
        self.frozen: list[Plan] = []
        # the lake: its chain of plans, what each shipped, and all that it holds
        self.chain: list[Plan] = []
        self.outcomes: dict[uuid.UUID, Outcome] = {}
        self.lake: dict[int, WindowState] = {}
        self.recorded = 0
        self.accounted: set[int] = set()
        self.watermark: int | None = None
        self.generation = 0
        self.hash = 0
        self.empties: set[uuid.UUID] = set()
        self.closed: set[uuid.UUID] = set()

    # ---- steps ---------------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """What `check_extent` does first (rule 5)."""
        if self.recorded < len(self.chain):
            plan = self.chain[-1]
            assert self.record(plan)

    def record(self, plan: Plan) -> bool:
        """`promote` for a plan that landed; whether this call recorded it."""
        outcome = self.outcomes[plan.plan_id]
        done = self.ledger.promote(plan, outcome, landed(self.chain.index(plan) + 1))
        if done.first:
            assert self.chain[self.recorded] is plan
            self.recorded += 1
            self.learn(plan, outcome)
            assert done.generation == plan.generation > self.generation
            self.generation = plan.generation
            end = gapless_end(self.watermark or 0, [GRID.span(n) for n in self.accounted])
            assert done.watermark_us == end
            self.watermark = end
        return done.first

    def learn(self, plan: Plan, outcome: Outcome) -> None:
        self.accounted |= {w.window for w in outcome.windows}
        self.accounted |= {n for s in plan.append for n in GRID.numbers(s)} - set(outcome.pending)

    @rule(
        upto=st.integers(0, LAST),
        full=st.sets(st.integers(0, LAST - 1)),
        again=st.sets(st.integers(0, LAST - 1), max_size=3),
        rows=st.integers(0, 5),
    )
    def freeze(self, upto: int, full: set[int], again: set[int], rows: int) -> None:
        """A plan over the settled time up to a window: unknown windows are appended, some known ones replaced."""
        self.adopt()
        head = self.ledger.head(self.identity)
        assert head is not None
        scan = Span(0, max(upto * GRID.width_us, head.watermark_us or 0))
        known, empty = self.ledger.windows(head, GRID, [scan])
        append = tuple(subtract(scan, [*(GRID.span(n) for n in known), *empty]))
        unknown = {n for s in append for n in GRID.numbers(s)}
        windows = [PlannedWindow(n, Action.APPEND, max(rows, 1), 7) for n in sorted(full & unknown)]
        for n in sorted(again - unknown):
            if n < scan.hi // GRID.width_us:
                before = known[n].state.rows if n in known else 0
                windows.append(PlannedWindow(n, Action.REPLACE, rows, 7, before))
        spans = [*(GRID.span(n) for n in known), *empty, *append]
        plan = a_plan(
            self.identity,
            generation=head.generation + 1,
            predecessor=head.plan_id,
            append=append,
            scan=scan,
            windows=tuple(windows),
            watermark_before=head.watermark_us,
            watermark_after=gapless_end(head.watermark_us or 0, spans),
        )
        self.ledger.freeze(plan)
        self.frozen.append(plan)

    @precondition(lambda self: self.frozen)
    @rule(data=st.data(), pending=st.sets(st.integers(0, LAST - 1), max_size=2))
    def ship(self, data: st.DataObject, pending: set[int]) -> None:
        """A job commits a plan, whichever: only one that names the head lands (rule 1)."""
        plan = data.draw(st.sampled_from(self.frozen))
        head = self.chain[-1].plan_id if self.chain else None
        if not plan.windows or plan.predecessor != head:
            return
        left = tuple(sorted(pending & {w.window for w in plan.windows}))
        states = []
        for w in plan.windows:
            if w.window not in left:
                self.hash += 1
                states.append(WindowState(w.window, w.rows, self.hash if w.rows else 0))
        self.outcomes[plan.plan_id] = shipped(plan, states, left)
        self.ledger.record_attempt(uuid.uuid4(), self.outcomes[plan.plan_id])
        self.chain.append(plan)
        for state in states:
            if state.rows:
                self.lake[state.window] = state
            else:
                self.lake.pop(state.window, None)

    @precondition(lambda self: self.chain)
    @rule(data=st.data())
    def update_watermark(self, data: st.DataObject) -> None:
        """Any plan that ever landed is recorded, once or again: only the first time counts (rule 21).

        But for one that a rebuild found in the lake before anybody had recorded it: it is superseded (rule 17).
        """
        plan = data.draw(st.sampled_from(self.chain))
        if plan.plan_id in self.closed:
            with pytest.raises(OffloadError) as refused:
                self.record(plan)
            assert refused.value.kind is PLAN_SUPERSEDED
            return
        unseen = plan is self.chain[-1] and self.recorded < len(self.chain)
        assert self.record(plan) == unseen

    @precondition(lambda self: [p for p in self.frozen if p.windows and p.plan_id not in self.outcomes])
    @rule(data=st.data())
    def record_what_was_passed(self, data: st.DataObject) -> None:
        """A plan that another one passed moves nothing, should anybody try to record it (rule 17)."""
        never = [p for p in self.frozen if p.windows and p.plan_id not in self.outcomes]
        plan = data.draw(st.sampled_from(never))
        head = self.ledger.head(self.identity)
        assert head is not None
        if plan.predecessor == head.plan_id:
            # whether it is in the lake is the marker's to say, not the ledger's
            return
        states = [WindowState(w.window, w.rows, 1) for w in plan.windows]
        with pytest.raises(OffloadError) as refused:
            self.ledger.promote(plan, shipped(plan, states), landed(99))
        assert refused.value.kind in {LEDGER_DISAGREES, PLAN_SUPERSEDED}

    @precondition(lambda self: [p for p in self.frozen if not p.windows])
    @rule(data=st.data())
    def record_an_empty_plan(self, data: st.DataObject) -> None:
        """It touches only the ledger, however late it comes (rule 8); unless a rebuild closed it (rules 17 and 22)."""
        plan = data.draw(st.sampled_from([p for p in self.frozen if not p.windows]))
        outcome = replace(shipped(plan, []), status="nothing")
        if plan.plan_id in self.closed:
            with pytest.raises(OffloadError) as refused:
                self.ledger.promote(plan, outcome, None)
            assert refused.value.kind is PLAN_SUPERSEDED
            return
        done = self.ledger.promote(plan, outcome, None)
        assert done.generation == self.generation
        if done.first:
            self.empties.add(plan.plan_id)
            self.learn(plan, outcome)
            self.watermark = gapless_end(self.watermark or 0, [GRID.span(n) for n in self.accounted])
        assert done.watermark_us == self.watermark

    @precondition(lambda self: self.chain)
    @rule()
    def rebuild(self) -> None:
        """From the lake alone; no plan made before ever lands again (rule 22)."""
        head = self.ledger.head(self.identity)
        assert head is not None
        last = self.chain[-1]
        watermark = self.outcomes[last.plan_id].watermark
        entries, origin = account(list(self.lake.values()), watermark, 0, 0, GRID)
        plan = a_plan(
            self.identity,
            generation=max(last.generation, head.generation) + GENERATION_STEP,
            predecessor=last.plan_id,
            scan=Span(0, 0),
            origin_us=origin,
            watermark_before=watermark,
            watermark_after=watermark,
        )
        self.ledger.freeze(plan)
        self.chain.append(plan)
        self.outcomes[plan.plan_id] = replace(shipped(plan, []), watermark=watermark)
        restore(self.ledger, head, plan, entries, FINGERPRINT, landed(len(self.chain)))
        self.closed |= {p.plan_id for p in self.chain[self.recorded : -1]}
        self.recorded = len(self.chain)
        self.accounted = {n for e in entries for n in GRID.numbers(e.span)}
        assert plan.generation > self.generation
        self.generation, self.watermark = plan.generation, watermark
        self.closed |= {p.plan_id for p in self.frozen if not p.windows} - self.empties

    # ---- what holds after every step -----------------------------------------------------------------------------

    @invariant()
    def the_ledger_is_what_the_model_says(self) -> None:
        head = self.ledger.head(self.identity)
        assert head is not None
        assert (head.watermark_us, head.generation) == (self.watermark, self.generation)
        assert head.plan_id == (self.chain[self.recorded - 1].plan_id if self.recorded else None)
        known, empty = self.ledger.windows(head, GRID, [ALL])
        if self.recorded == len(self.chain):
            assert {n: w.state for n, w in known.items()} == self.lake
        assert {n for s in empty for n in GRID.numbers(s)} == self.accounted - known.keys()
        assert known.keys() <= self.accounted
        ((total, overlapping),) = self.watcher.execute(
            "SELECT row_count, (SELECT count(*) FROM offload.windows a JOIN offload.windows b USING (table_id)"
            " WHERE a.ctid < b.ctid AND a.span && b.span AND table_id = w.table_id)"
            " FROM offload.watermarks w WHERE table_id = %s",
            (head.table_id,),
        ).fetchall()
        assert total == sum(w.state.rows for w in known.values())
        assert overlapping == 0


def test_rules_6_7_17_21_22_no_order_of_steps_brings_the_ledger_off(uri: str) -> None:
    """Windows never overlap, the watermark never goes back but by a rebuild, the generation rises."""
    ledger = Ledger(uri)
    with psycopg.connect(uri, autocommit=True) as watcher:
        machine = type("Machine", (LedgerMachine,), {"ledger": ledger, "watcher": watcher})
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, phases=PHASES)
        )
    ledger.close()


def together(uri: str, acts: list[Callable[[], object]]) -> list[object]:
    """What each act returned or was refused with; none of them writes the watermark before all have begun."""
    results: list[object] = [None] * len(acts)

    def one(i: int) -> None:
        try:
            results[i] = acts[i]()
        except OffloadError as error:
            results[i] = error.kind

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(acts))]
    with psycopg.connect(uri) as holder:
        holder.execute("SELECT FROM offload.watermarks FOR UPDATE")
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        with psycopg.connect(uri, autocommit=True) as watcher:
            while True:
                ((waiting,),) = watcher.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock'"
                ).fetchall()
                if waiting == len(acts):
                    break
                assert time.monotonic() < until, f"{waiting} of {len(acts)} wait"
                time.sleep(0.01)
    for thread in threads:
        thread.join(20)
    return results


def test_rule_21_of_two_plans_recorded_at_once_one_moves_the_watermark(uri: str) -> None:
    """Compare-and-swap: both have read the same head, the second one must not write over the first."""
    identity = f"st.{uuid.uuid4().hex}"
    one, two = Ledger(uri), Ledger(uri)
    one.register(identity, cursor="ts", width_us=GRID.width_us, source="s", target=identity, origin_us=0)
    plans = []
    for number in (0, 1):
        window = PlannedWindow(number, Action.APPEND, 3, 1)
        plans.append(a_plan(identity, append=(GRID.span(number),), windows=(window,)))
        one.freeze(plans[-1])
    outcomes = [shipped(p, [WindowState(n, 3, 1)]) for n, p in enumerate(plans)]
    acts: list[Callable[[], object]] = [
        lambda: one.promote(plans[0], outcomes[0], landed(1)).first,
        lambda: two.promote(plans[1], outcomes[1], landed(2)).first,
    ]
    results = together(uri, acts)
    assert results.count(True) == 1, results
    assert set(results) - {True} <= {LEDGER_DISAGREES, PLAN_SUPERSEDED, WATERMARK_MOVED}, results
    head = one.head(identity)
    assert head is not None and head.plan_id == plans[results.index(True)].plan_id
    known, _ = one.windows(head, GRID, [ALL])
    assert list(known) == [results.index(True)]
    one.close()
    two.close()


def test_rule_21_one_plan_recorded_twice_at_once_counts_once(uri: str) -> None:
    identity = f"st.{uuid.uuid4().hex}"
    one, two = Ledger(uri), Ledger(uri)
    one.register(identity, cursor="ts", width_us=GRID.width_us, source="s", target=identity, origin_us=0)
    window = PlannedWindow(0, Action.APPEND, 3, 1)
    plan = a_plan(identity, append=(GRID.span(0),), windows=(window,), watermark_after=GRID.width_us)
    one.freeze(plan)
    outcome = shipped(plan, [WindowState(0, 3, 1)])
    acts: list[Callable[[], object]] = [
        lambda: one.promote(plan, outcome, landed(1)).first,
        lambda: two.promote(plan, outcome, landed(1)).first,
    ]
    results = together(uri, acts)
    assert sorted(results, key=str) == [False, True]
    (row,) = [r for r in one.watermark_rows() if r["table_name"] == identity]
    assert (row["row_count"], row["generation"]) == (3, 1)
    one.close()
    two.close()
