"""results.json for people: tables on the terminal, docs/performance.md and its plots (`python -m bench.report`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from bench.contenders.base import BENCH_VENV
from bench.results import BRONZE, MIB, Goal, Results, Run, Series, Spread
from local.paths import ROOT, venv_bin

RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "img"
PLOTTER = ROOT / "bench" / "plots.py"

Figure = tuple[str, Callable[[Series], Spread], str]


def _scaled(spread: Spread, unit: float) -> Spread:
    return Spread(spread.min / unit, spread.median / unit, spread.max / unit)


def _per_million(series: Series, figure: Callable[[Run], float]) -> Spread:
    return _scaled(series.spread(figure), series.rows / 1e6)


FIGURES: tuple[Figure, ...] = (
    ("M rows/s, copy", lambda s: _scaled(s.rows_per_s, 1e6), "{:.3f}"),
    ("M rows/s, whole process", lambda s: _scaled(s.process_rows_per_s, 1e6), "{:.3f}"),
    ("client CPU s per M rows", lambda s: _per_million(s, lambda r: r.client_cpu_s), "{:.2f}"),
    ("ClickHouse CPU s per M rows", lambda s: _per_million(s, lambda r: r.server_cpu_s), "{:.2f}"),
    ("peak memory, MiB, tree", lambda s: _scaled(s.spread(lambda r: r.tree_bytes), MIB), "{:.0f}"),
    ("largest process, MiB", lambda s: _scaled(s.spread(lambda r: r.process_bytes), MIB), "{:.0f}"),
    ("MB written", lambda s: _scaled(s.spread(lambda r: r.bytes), 1e6), "{:.1f}"),
    ("files", lambda s: s.spread(lambda r: r.files), "{:.0f}"),
)


def cell(spread: Spread, form: str) -> str:
    """`median (min–max)`, or one figure where they read the same."""
    lo, mid, hi = (form.format(x) for x in (spread.min, spread.median, spread.max))
    return mid if lo == hi else f"{mid} ({lo}–{hi})"


def terminal(results: Results, name: str = BRONZE) -> Table:
    """A row per contender on one table, a column per figure: median (min–max)."""
    table = Table(title=f"{name}, {results.rounds} rounds, median (min–max)", title_justify="left")
    table.add_column("")
    table.add_column("rows", justify="right")
    for title, _, _ in FIGURES:
        table.add_column(title, justify="right")
    for series in results.series:
        if series.table == name:
            cells = (cell(figure(series), form) for _, figure, form in FIGURES)
            table.add_row(series.name, f"{series.rows:,}", *cells)
    return table


def limit_of(goal: Goal) -> str:
    """`≥ 3×`."""
    return f"{'≥' if goal.at_least else '≤'} {goal.limit:g}{goal.unit}"


def goal_line(goal: Goal) -> str:
    """One goal in a line, with its verdict."""
    return f"{'met' if goal.met else 'missed'}: {goal.text}: {goal.value:g}{goal.unit} (goal {limit_of(goal)})"


def read(path: Path = RESULTS) -> Results:
    """What a bench wrote. Raises FileNotFoundError."""
    return Results.model_validate_json(path.read_text())


def write(results: Results) -> None:
    """The page, and its plots from RESULTS. Raises CalledProcessError when they can't be drawn."""
    from bench.page import page

    PAGE.write_text(page(results))
    argv = [str(venv_bin("python", BENCH_VENV)), str(PLOTTER), str(RESULTS), str(IMAGES)]
    subprocess.run(argv, check=True, timeout=300)


if __name__ == "__main__":
    write(read())
    sys.exit(0)
