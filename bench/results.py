"""Figures of a bench: what every run measured, what follows from it, and the goals. Pure; results.json is its form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from pydantic import BaseModel, ConfigDict

MIB = 2**20


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(_Value):
    """One run of one contender. Seconds are wall clock unless they say CPU."""

    round: int
    copy_s: float
    """By the contender's own clock: from its first read until the commit returned; the start of Spark is not in it."""
    process_s: float
    client_cpu_s: float
    server_cpu_s: float
    tree_bytes: int
    process_bytes: int
    files: int
    bytes: int
    load: float
    """The machine's load average, one minute, when the run began: above 1 other work was going on."""


class Series(_Value):
    """All runs of one contender with one number of rows, in the order of their rounds."""

    name: str
    title: str
    rows: int
    runs: tuple[Run, ...]

    def spread(self, figure: Callable[[Run], float]) -> Spread:
        return Spread.of([figure(run) for run in self.runs])

    @property
    def rows_per_s(self) -> Spread:
        return self.spread(lambda run: self.rows / run.copy_s)

    @property
    def process_rows_per_s(self) -> Spread:
        return self.spread(lambda run: self.rows / run.process_s)


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, median and largest of a few figures."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        return cls(min(figures), median(figures), max(figures))


class Goal(_Value):
    """Something to reach. `value` is what the bench found; `at_least`: reached from `limit` upwards, else below it."""

    text: str
    limit: float
    at_least: bool
    value: float
    unit: str

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value < self.limit


class Results(_Value):
    """All of a bench: where and when it ran, and its figures."""

    made: str
    commit: str
    rows: int
    rounds: int
    machine: dict[str, str]
    versions: dict[str, str]
    series: tuple[Series, ...]
    goals: tuple[Goal, ...]

    def of(self, name: str, rows: int | None = None) -> Series:
        """The series of a contender. Raises KeyError."""
        for one in self.series:
            if one.name == name and one.rows == (rows or self.rows):
                return one
        raise KeyError(name)


def ratio(ours: Series, theirs: Series, figure: Callable[[Run], float]) -> Spread:
    """Theirs / ours, round by round: neighbours in time share the machine's mood, so their ratio is steadier."""
    rounds = {run.round: run for run in theirs.runs}
    return Spread.of([figure(rounds[run.round]) / figure(run) for run in ours.runs])


def speed_up(ours: Series, theirs: Series) -> Spread:
    """How many times as many rows per second of copy we move, round by round."""
    return ratio(ours, theirs, lambda run: run.copy_s)


def growth(small: Series, large: Series) -> float:
    """By how many percent the median peak memory of the process tree grows from one size to the other."""
    before = small.spread(lambda run: run.tree_bytes).median
    after = large.spread(lambda run: run.tree_bytes).median
    return 100 * (after / before - 1)


def goals(ours: Series, others: Sequence[Series], small: Series | None) -> tuple[Goal, ...]:
    """The goals of the bulk load, with what was found."""
    found = [
        Goal(
            text=f"rows per second of the copy, as a multiple of {other.title}",
            limit=3.0,
            at_least=True,
            value=round(speed_up(ours, other).median, 2),
            unit="×",
        )
        for other in others
    ]
    if small is not None:
        found.append(
            Goal(
                text=f"growth of the job's peak memory from {small.rows:,} to {ours.rows:,} rows",
                limit=20.0,
                at_least=False,
                value=round(growth(small, ours), 1),
                unit=" %",
            )
        )
    return tuple(found)
