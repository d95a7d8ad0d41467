"""results.json for people: a table on the terminal, and docs/performance.md (`python -m bench.report` writes it)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from bench.results import MIB, Goal, Results, Run, Series, Spread, ratio, speed_up
from local.paths import ROOT

RESULTS = ROOT / "bench" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
OURS = "offload"

Figure = tuple[str, Callable[[Series], Spread], str]
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


def _scaled(spread: Spread, unit: float) -> Spread:
    return Spread(spread.min / unit, spread.median / unit, spread.max / unit)


def _per_million(series: Series, figure: Callable[[Run], float]) -> Spread:
    return _scaled(series.spread(figure), series.rows / 1e6)


def _cell(spread: Spread, form: str) -> str:
    lo, mid, hi = (form.format(x) for x in (spread.min, spread.median, spread.max))
    return mid if lo == hi else f"{mid} ({lo}–{hi})"


def terminal(results: Results) -> Table:
    """A row per figure, a column per contender: median (min–max)."""
    table = Table(title=f"{results.rounds} rounds, median (min–max)", title_justify="left")
    table.add_column("")
    for series in results.series:
        table.add_column(f"{series.name}\n{series.rows:,} rows", justify="right")
    for title, figure, form in FIGURES:
        table.add_row(title, *(_cell(figure(series), form) for series in results.series))
    return table


def goal_line(goal: Goal) -> str:
    """One goal in a line, with its verdict."""
    sign = "≥" if goal.at_least else "<"
    verdict = "met" if goal.met else "missed"
    return f"{verdict}: {goal.text}: {goal.value:g}{goal.unit} (goal {sign} {goal.limit:g}{goal.unit})"


def page(results: Results) -> str:
    """docs/performance.md."""
    ours = results.of(OURS)
    lines = [
        "# Performance",
        "",
        "<!-- Made by `python -m bench.report` from bench/results.json, which `make bench` writes; do not edit. -->",
        "",
        f"A bulk load of {results.rows:,} bronze trades (a day and two hours of them, ten columns, partitioned by day)"
        " from ClickHouse into a fresh Iceberg table, by each contender in turn,"
        f" {results.rounds} rounds, on one machine that also runs ClickHouse, the object store and the catalog. Every"
        " result was read back: count, and the sum of every number and instant, by PyIceberg; ours by `verify` too.",
        "",
        "## Goals",
        "",
        "| goal | limit | found | |",
        "| --- | --- | --- | --- |",
    ]
    for goal in results.goals:
        limit = f"{'≥' if goal.at_least else '<'} {goal.limit:g}{goal.unit}"
        lines.append(f"| {goal.text} | {limit} | {goal.value:g}{goal.unit} | {'met' if goal.met else '**missed**'} |")
    lines += ["", "## Figures", "", "Median (min–max) of the rounds.", ""]
    lines.append("| | " + " | ".join(f"{s.title}, {s.rows:,} rows" for s in results.series) + " |")
    lines.append("| --- |" + " --- |" * len(results.series))
    for title, figure, form in FIGURES:
        lines.append(f"| {title} | " + " | ".join(_cell(figure(s), form) for s in results.series) + " |")
    lines += [
        "",
        "## Ratios",
        "",
        "Round by round: a machine that is slow for a while is slow for both. Above 1, this project does better.",
        "",
        "| against | rows/s of the copy | whole process | CPU, client and ClickHouse | bytes written |",
        "| --- | --- | --- | --- | --- |",
    ]
    for other in results.series:
        if other.name == OURS:
            continue
        cells = (
            speed_up(ours, other),
            ratio(ours, other, lambda r: r.process_s),
            ratio(ours, other, lambda r: r.client_cpu_s + r.server_cpu_s),
            ratio(ours, other, lambda r: r.bytes),
        )
        lines.append(f"| {other.title} | " + " | ".join(_cell(c, "{:.2f}×") for c in cells) + " |")
    lines += ["", "## Where it ran", "", f"{results.made}, commit `{results.commit}`.", "", "| | |", "| --- | --- |"]
    loads = Spread.of([run.load for series in results.series for run in series.runs])
    facts = results.machine | {"load average at the start of a run": _cell(loads, "{:.1f}")} | results.versions
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += [
        "",
        "A load average above 1 means that other work shared the machine: seconds and rows per second then say little,"
        " ratios and CPU seconds still do.",
        "",
        "## How it is measured",
        "",
        "- **Copy**: by the contender's own clock, from its first read until the commit returned. Ours is the job's"
        " `seconds`, which begins before it loads the plan and the table; for JDBC the session, the catalog and the"
        " schema are ready before the clock starts.",
        "- **Whole process**: from the start of the program to its end. Ours includes `check_extent`, which counts and"
        " hashes every row in ClickHouse, and `update_watermark`.",
        "- **Client CPU**: user and system seconds of the whole process tree; its root adopts and awaits each orphan,"
        " so none is lost. **ClickHouse CPU**: the difference of its process's own account over the same time.",
        "- **Peak memory**: resident memory summed over the tree, sampled ten times a second; pages shared by processes"
        " count in each. The largest process is the kernel's own high-water mark.",
        "- **Spark JDBC** is treated kindly: no sort and no shuffle on writing (ours sorts each file by the table's"
        " order), uncompressed transfer, 4 GB of heap, all its jars on disk already.",
        "",
        "`make bench` repeats it, `make bench-quick` runs one round of 500,000 rows.",
        "",
    ]
    return "\n".join(lines)


def read(path: Path = RESULTS) -> Results:
    """What a bench wrote. Raises FileNotFoundError."""
    return Results.model_validate_json(path.read_text())


def write_page(results: Results) -> None:
    PAGE.write_text(page(results))


if __name__ == "__main__":
    write_page(read())
    sys.exit(0)
