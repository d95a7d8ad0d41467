"""What happens in a round, told before it happens: pure, and the same for the same seed.

A story is a table's shape and a list of acts: rows arrive (late, out of order, in the future), rows change or are
deleted, a run goes by, something breaks. `expected` is the model: what the lake must hold when all of it is over.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from include.offload.crashpoint import POINTS

WINDOWS_S = (60, 300, 900)
DAY_S = 86_400
PAST_S = (-2 * 3_600, 5 * 3_600)
"""Rows of a story lie here, seconds from its zero, which is six hours ago: all of it is settled and in the horizon."""
FUTURE_S = (9 * 3_600, 30 * 3_600)
"""Rows that have not happened yet: no run may ship them."""
PARTITIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("day(ts)",),
    ("hour(ts)",),
    ("sym",),
    ("day(ts)", "sym"),
    ("bucket(4, id)",),
    ("truncate(1, sym)",),
    ("note",),
)
SYMBOLS = ("a", "b", "bc", "ü'\\")

KILLS = tuple(f"kill at {p}" for p in POINTS if p != "spark-started")
RARE = ("ClickHouse killed", "SeaweedFS killed")
"""They take seconds each to come back."""
COMMON = (
    *KILLS,
    "zombie lands first",
    "zombie wakes late",
    "zombie in flight",
    "zombie after a rebuild",
    "one plan in two jobs",
    "two plans at once",
    "watermark twice at once",
    "ledger lost",
    "ledger restored",
    "foreign append and removal",
    "foreign commit in between",
    "foreign compaction",
    "marker deleted",
    "snapshots expired",
    "rolled back",
    "PostgreSQL backends terminated",
    "answer lost",
    "request lost",
    "rows while reading",
    "merge while reading",
    "range forced",
    "run cleared",
)
SPARK = "Spark job"
FAULTS = (*COMMON, *RARE, SPARK)
SPARK_POINTS = ("spark-started", "mid-stream", "before-commit", "after-commit", "")
SPARK_EVERY = 10
"""Every so many rounds one fault is a real Spark job: it costs as much as a whole round."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A table. `window_s`: width of a window in seconds; `slice_rows`: most rows of a file."""

    final: bool
    partition: tuple[str, ...]
    sequence: bool
    window_s: int
    follow: bool
    slice_rows: int
    sort: bool
    ttl: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """`count` rows with ids from `first` on. Times in seconds from the story's zero."""

    first: int
    count: int
    start_s: int
    step_s: float
    sym: str
    future: bool = False

    @property
    def ids(self) -> range:
        return range(self.first, self.first + self.count)


@dataclass(frozen=True, slots=True)
class Change:
    """The rows whose id leaves this remainder get another note; `None` as note: they are deleted."""

    modulus: int
    remainder: int
    note: str | None

    def hits(self, number: int) -> bool:
        return number % self.modulus == self.remainder


@dataclass(frozen=True, slots=True)
class Run:
    """A run without a fault. `merge`: ClickHouse merges all parts first."""

    merge: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Something breaks. `during`: rows that arrive while it does; `pick`: for the choices within it."""

    kind: str
    during: Rows
    pick: int


Act = Rows | Change | Run | Fault


@dataclass(frozen=True, slots=True)
class Story:
    """One round."""

    seed: int
    round: int
    shape: Shape
    acts: tuple[Act, ...]

    @property
    def digest(self) -> str:
        """The same story has the same digest on every machine."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def _fitting(partition: tuple[str, ...], *, final: bool) -> tuple[str, ...]:
    """A newer version of a row has another note: FINAL is refused there (rule 9)."""
    return ("sym",) if final and partition == ("note",) else partition


def tell(seed: int, number: int) -> Story:
    """The story of a round."""
    rng = random.Random(f"{seed}/{number}")
    follow = rng.random() < 0.4
    final = rng.random() < 0.3
    shape = Shape(
        final=final,
        partition=_fitting(rng.choice(PARTITIONS), final=final),
        sequence=rng.random() < 0.5,
        window_s=rng.choice(WINDOWS_S),
        follow=follow,
        slice_rows=rng.choice((1_000, 2_000_000)),
        sort=rng.random() < 0.3,
        ttl=rng.random() < 0.3,
    )
    return Story(seed, number, shape, tuple(_acts(rng, shape, number)))


def _acts(rng: random.Random, shape: Shape, number: int) -> Iterator[Act]:
    ids = _Ids()
    if rng.random() < 0.9:
        yield ids.rows(rng)
    if rng.random() < 0.6:
        yield Run()
    kinds = rng.sample(COMMON, rng.randint(2, 4))
    if rng.random() < 0.08:
        kinds.append(rng.choice(RARE))
    if number % SPARK_EVERY == SPARK_EVERY - 1:
        kinds.append(SPARK)
    rng.shuffle(kinds)
    for kind in kinds:
        for _ in range(rng.randint(1, 2)):
            yield ids.rows(rng)
        if rng.random() < 0.25:
            yield ids.rows(rng, future=True)
        if rng.random() < 0.4:
            yield _change(rng, shape)
        yield Fault(kind, ids.rows(rng), rng.randrange(1_000))
        if rng.random() < 0.25:
            yield Run(merge=rng.random() < 0.4)
    if rng.random() < 0.5:
        yield _change(rng, shape)


def _change(rng: random.Random, shape: Shape) -> Change:
    modulus = rng.choice((3, 7, 50))
    # ReplacingMergeTree keeps a deleted row's older version in reach of the next merge: only plain tables delete
    gone = shape.follow and not shape.final and rng.random() < 0.4
    return Change(modulus, rng.randrange(modulus), None if gone else f"changed {rng.randrange(5)}")


class _Ids:
    """Every row of a story has an id of its own."""

    def __init__(self) -> None:
        self._next = 1

    def rows(self, rng: random.Random, future: bool = False) -> Rows:
        count = rng.choice((1, 3, 20, 120, 700))
        low, high = FUTURE_S if future else PAST_S
        # from one window full of rows to a row in each of many
        step = rng.choice((0.05, 1.0, 7.5, 60.0))
        span = int(count * step) + 1
        while span > high - low:
            count = max(1, count // 2)
            span = int(count * step) + 1
        start = rng.randrange(low, high - span)
        if rng.random() < 0.3:
            start -= start % 900
        rows = Rows(self._next, count, max(start, low), step, rng.choice(SYMBOLS), future)
        self._next += count
        return rows


def expected(story: Story) -> dict[int, str]:
    """The model: id to note of every row that the lake must hold, exactly once, in the end."""
    held: dict[int, str] = {}
    for act in story.acts:
        match act:
            case Rows():
                _arrive(held, act)
            case Fault():
                _arrive(held, act.during)
            case Change(note=None):
                for number in [n for n in held if act.hits(n)]:
                    del held[number]
            case Change(note=str() as note):
                held.update({n: note for n in held if act.hits(n)})
            case Run():
                pass
    return held


def _arrive(held: dict[int, str], rows: Rows) -> None:
    if not rows.future:
        held.update(dict.fromkeys(rows.ids, rows.sym))


def arrived(story: Story) -> int:
    """How many rows the source got, the future ones included."""
    return sum(a.count if isinstance(a, Rows) else a.during.count for a in story.acts if isinstance(a, Rows | Fault))
