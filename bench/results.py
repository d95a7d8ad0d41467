"""Figures of a bench: what every run measured, and what follows from it. Pure; results.json is its form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from pydantic import BaseModel, ConfigDict

MIB = 2**20
BRONZE, SILVER = "bronze_trades", "silver_trades"


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
    wrong: tuple[str, ...] = ()
    """What is wrong with the Iceberg table that it wrote."""


class Series(_Value):
    """All runs of one contender with one number of rows of one table, in the order of their rounds."""

    name: str
    title: str
    rows: int
    runs: tuple[Run, ...]
    table: str = BRONZE

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
    """Something to reach. `value` is what the bench found; `at_least`: `limit` is a floor, else a ceiling."""

    text: str
    limit: float
    at_least: bool
    value: float
    unit: str

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


class Missing(_Value):
    """A contender that has no figures for a table, and why."""

    name: str
    title: str
    table: str
    why: str
    failed: bool
    """It ran and ended with an error; False: it can't run on that machine."""


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
    missing: tuple[Missing, ...] = ()

    def of(self, name: str, table: str = BRONZE) -> Series:
        """The series of a contender with the most rows. Raises KeyError."""
        found = [one for one in self.series if (one.name, one.table) == (name, table)]
        if not found:
            raise KeyError(f"{name} on {table}")
        return max(found, key=lambda one: one.rows)

    def beside(self, name: str, other: Series) -> Series:
        """The series of a contender on the table of `other`, with as many rows if there is one. Raises KeyError."""
        for one in self.series:
            if (one.name, one.table, one.rows) == (name, other.table, other.rows):
                return one
        return self.of(name, other.table)


def ratio(ours: Series, theirs: Series, figure: Callable[[Run], float]) -> Spread:
    """Theirs / ours for each row, round by round: neighbours in time share the machine's mood."""
    rounds = {run.round: run for run in theirs.runs}
    per_row = ours.rows / theirs.rows
    return Spread.of([per_row * figure(rounds[run.round]) / figure(run) for run in ours.runs])


def speed_up(ours: Series, theirs: Series) -> Spread:
    """How many times as many rows per second of copy we move, round by round."""
    return ratio(ours, theirs, lambda run: run.copy_s)


def growth(small: Series, large: Series) -> float:
    """The median peak memory of the process tree at one size as a multiple of that at the other."""
    before = small.spread(lambda run: run.tree_bytes).median
    return large.spread(lambda run: run.tree_bytes).median / before
