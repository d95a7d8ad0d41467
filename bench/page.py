"""docs/performance.md, from the figures of a bench. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bench.goals import OURS
from bench.report import FIGURES, cell, limit_of
from bench.results import BRONZE, SILVER, Results, Series, Spread, ratio, speed_up

WHAT = {
    BRONZE: "bronze trades (ten columns, partitioned by day)",
    SILVER: "silver trades (twenty columns, among them arrays, a map and a UUID; partitioned by day, exchange and asset"
    " class)",
}
PLOTS = {
    "bench-rate": "Rows per second of the copy, by contender",
    "bench-cpu": "CPU seconds per million rows, of the client and of ClickHouse, by contender",
}

END = """\
## How it is measured

- **Copy**: by the contender's own clock, from its first read until the commit returned. Ours is the job's `seconds`, \
which begins before it loads the plan and the table; for all others catalog and table are ready before the clock \
starts, and imports done. Only Sling's is its whole process: its own words give whole seconds.
- **Whole process**: from the start of the program to its end. Ours includes `check_extent`, which counts and hashes \
every row in ClickHouse, and `update_watermark`.
- **Client CPU**: user and system seconds of the whole process tree; its root adopts and awaits each orphan; children \
that their parent ignores, as Spark's Python workers are, are looked at ten times a second. \
**ClickHouse CPU**: the difference of its process's own account over the same time.
- **Peak memory**: resident memory summed over the tree, sampled ten times a second; pages shared by processes count \
in each. The largest process is the kernel's own high-water mark. What ClickHouse's own `INSERT` holds is in ClickHouse.
- **Verified**: PyIceberg reads each table back: the types of the columns, the count, the sum of every number and \
instant, and the count of the newest day, for which it must find its way through the partitions. Ours is read by \
`verify` too.
- **ClickHouse's own `INSERT`** goes through the engine DataLakeCatalog, so that it commits through the catalog.
- **PyIceberg** appends what clickhouse-connect streams, an eighth of the rows a commit; **dlt** gets the same Arrow \
batches as a resource. Both write into a table that is there, partitioned as ours.
- **Spark JDBC** is treated kindly: no sort and no shuffle on writing (ours sorts each file by the table's order), \
uncompressed transfer, 4 GB of heap, all its jars on disk already. Arrays and maps, which it can't read, travel as JSON.
- **Sling** makes its own table, without partitions: it knows none.
- **The limit** is the same `SELECT` as everyone's, a connection a core, its bytes thrown away.
- Slow contenders move fewer rows, so that the bench ends in time.

`make bench` repeats it; `make bench-quick` runs the fast contenders with few rows and fails when a ratio is more than \
30 % below the one in `bench/quick.json`.
"""


def page(results: Results) -> str:
    """The whole page."""
    tables = list(dict.fromkeys(series.table for series in results.series))
    lines = [
        "# Performance",
        "",
        "<!-- Made by `python -m bench.report` from bench/results.json, which `make bench` writes; do not edit. -->",
        "",
        f"A bulk load from ClickHouse into a fresh Iceberg table: {_loads(results, tables)}; a day and two hours of"
        f" them, by each contender in turn, {results.rounds} rounds, on one machine that also runs ClickHouse, the"
        " object store and the catalog.",
        "",
        *(line for name, alt in PLOTS.items() for line in (f"![{alt}](img/{name}.svg)", "")),
        "## Goals",
        "",
        "| goal | limit | found | |",
        "| --- | --- | --- | --- |",
    ]
    for goal in results.goals:
        verdict = "met" if goal.met else "**missed**"
        lines.append(f"| {goal.text} | {limit_of(goal)} | {goal.value:g}{goal.unit} | {verdict} |")
    for table in tables:
        lines += [*_figures(results, table), *_ratios(results, table)]
    lines += _wrong(results)
    lines += ["", "## Where it ran", "", f"{results.made}, commit `{results.commit}`.", "", "| | |", "| --- | --- |"]
    loads = Spread.of([run.load for series in results.series for run in series.runs])
    facts = results.machine | {"load average at the start of a run": cell(loads, "{:.1f}")} | results.versions
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += [
        "",
        "A load average above 1 means that other work shared the machine: seconds and rows per second then say little,"
        " ratios and CPU seconds still do.",
        "",
    ]
    return "\n".join(lines) + "\n" + END


def _loads(results: Results, tables: list[str]) -> str:
    return ", and ".join(f"{results.of(OURS, table).rows:,} {WHAT[table]}" for table in tables)


def _figures(results: Results, table: str) -> Iterator[str]:
    mine = [series for series in results.series if series.table == table]
    yield from ("", f"## Figures: {table}", "", "Median (min–max) of the rounds.", "")
    yield "| | rows | " + " | ".join(title for title, _, _ in FIGURES) + " |"
    yield "| --- | --- |" + " --- |" * len(FIGURES)
    for series in mine:
        cells = " | ".join(cell(figure(series), form) for _, figure, form in FIGURES)
        yield f"| {series.title} | {series.rows:,} | {cells} |"


def _ratios(results: Results, table: str) -> Iterator[str]:
    yield from ("", f"## Ratios: {table}", "")
    yield (
        "Round by round: a machine that is slow for a while is slow for both. Above 1, this project does better."
        " Beside a contender that moves fewer rows stands our job with as many, where it ran; else figures are per row."
    )
    yield from ("", "| against | rows | rows/s of the copy | whole process | CPU, client and ClickHouse | CPU of"
                " ClickHouse | bytes written |", "| --- |" + " --- |" * 6)  # fmt: skip
    for other in results.series:
        if other.table == table and other.name != OURS:
            cells = " | ".join(_against(results.beside(OURS, other), other))
            yield f"| {other.title} | {other.rows:,} | {cells} |"


def _against(ours: Series, other: Series) -> list[str]:
    spreads = [
        speed_up(ours, other),
        ratio(ours, other, lambda r: r.process_s),
        ratio(ours, other, lambda r: r.client_cpu_s + r.server_cpu_s),
        ratio(ours, other, lambda r: r.server_cpu_s),
    ]
    bytes_ = cell(ratio(ours, other, lambda r: r.bytes), "{:.2f}×") if any(r.bytes for r in other.runs) else "–"
    return [*(cell(spread, "{:.2f}×") for spread in spreads), bytes_]


def _wrong(results: Results) -> Iterator[str]:
    found = dict.fromkeys(
        (series.title, series.table, fault) for series in results.series for run in series.runs for fault in run.wrong
    )
    if found:
        yield from ("", "## Wrong results", "", "What is wrong with the tables that contenders wrote:", "")
        yield from (f"- {title}, {table}: {fault}." for title, table, fault in found)
    if results.missing:
        yield from ("", "## Without figures", "")
        yield from (f"- {missing.title}, {missing.table}: {missing.why}" for missing in results.missing)
