"""The goals of the bulk load, each a ratio of figures of one bench. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from bench.results import BRONZE, SILVER, Goal, Run, Series, growth, ratio, speed_up

FLOORS = {"clickhouse-insert": 1.25, "pyiceberg": 1.5, "dlt": 2.5, "spark-jdbc-2": 5.0, "limit": 0.43}
"""Rows per second of our copy as a multiple of theirs, on bronze trades partitioned by day."""
MEMORY_LIMIT = 1.1
SERVER_CPU_LIMIT = 0.4
BYTES_LIMIT = 0.7
OURS = "offload"


def goals(series: Sequence[Series]) -> tuple[Goal, ...]:
    """Every goal for which there are figures, with what was found."""
    bronze = _largest(series, BRONZE)
    ours = bronze[OURS]
    found = [
        _at_least(f"rows per second of the copy, as a multiple of {_who(bronze[name], ours)}", floor,
                  speed_up(ours, bronze[name]).median)
        for name, floor in FLOORS.items() if name in bronze
    ]  # fmt: skip
    if native := bronze.get("clickhouse-insert"):
        found += [
            _at_most(f"ClickHouse's CPU, as a multiple of what {native.title} costs it", SERVER_CPU_LIMIT,
                     _share(ours, native, lambda run: run.server_cpu_s)),
            _at_most(f"bytes written, as a multiple of {native.title}", BYTES_LIMIT,
                     _share(ours, native, lambda run: run.bytes)),
        ]  # fmt: skip
    if alone := bronze.get("pyiceberg"):
        text = f"rows per second of the whole process, Spark's start included, as a multiple of {alone.title}"
        found.append(_at_least(text, 1.0, ratio(ours, alone, lambda run: run.process_s).median))
    smallest = min((s for s in series if (s.name, s.table) == (OURS, BRONZE)), key=lambda s: s.rows)
    if smallest.rows < ours.rows:
        text = f"peak memory of the job at {ours.rows:,} rows, as a multiple of that at {smallest.rows:,}"
        found.append(_at_most(text, MEMORY_LIMIT, growth(smallest, ours)))
    silver = _largest(series, SILVER)
    if OURS in silver and len(silver) > 1:
        text = "pairs of contenders whose order on silver_trades is not that on bronze_trades"
        found.append(Goal(text=text, limit=0, at_least=False, value=len(swapped(bronze, silver)), unit=""))
    return tuple(found)


def swapped(bronze: dict[str, Series], silver: dict[str, Series]) -> list[tuple[str, str]]:
    """The pairs of contenders of which the one is faster on bronze and the other on silver, by the median."""
    both = [name for name in bronze if name in silver]
    first, second = ({n: table[n].rows_per_s.median for n in both} for table in (bronze, silver))
    return [(a, b) for a, b in combinations(both, 2) if (first[a] > first[b]) != (second[a] > second[b])]


def _largest(series: Sequence[Series], table: str) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for one in sorted((s for s in series if s.table == table), key=lambda s: s.rows):
        found[one.name] = one
    return found


def _who(other: Series, ours: Series) -> str:
    return other.title if other.rows == ours.rows else f"{other.title}, {other.rows:,} rows"


def _share(ours: Series, theirs: Series, figure: Callable[[Run], float]) -> float:
    return 1 / ratio(ours, theirs, figure).median


def _at_least(text: str, limit: float, value: float) -> Goal:
    return Goal(text=text, limit=limit, at_least=True, value=round(value, 2), unit="×")


def _at_most(text: str, limit: float, value: float) -> Goal:
    return Goal(text=text, limit=limit, at_least=False, value=round(value, 2), unit="×")
