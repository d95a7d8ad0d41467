"""`python -m bench.history`: do the three steps cost more when a table has a long history? Writes bench/history.json.

Pairs of tables with little and with much behind them: snapshots, data files, ClickHouse parts, hours of horizon. Round
by round each gets the same new rows and one run, in this process, so that neither Airflow's nor Spark's start hides
the difference. The ratio of a round is of two runs that followed each other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyiceberg.manifest import DataFile
from pyiceberg.typedef import Record
from rich.console import Console
from rich.progress import track

from bench.world import DATABASE, World
from include.offload.lake.rewriting import data_file
from include.offload.spec.load import load_spec
from include.offload.spec.model import TableSpec
from include.offload.steps import RunRequest, check_extent, update_watermark
from local import k2
from local.paths import ROOT

OUT = ROOT / "bench" / "history.json"
PAGE = ROOT / "docs" / "cost-of-history.md"
STEPS = ("check_extent", "offload", "update_watermark")
LIMIT = 1.3
ROUNDS = 9
NEW_ROWS = 1_000
WINDOW_S, SETTLE_S = 30, 1
OLD_ROWS, OLD_HOURS = 2_000_000, 72
"""What the tables of the horizon hold before the first run."""
OLD_DAYS = 20
"""So many of ClickHouse's partitions hold the parts: in one, it would refuse inserts long before 2,000."""
COMMITS_AT_ONCE = 100
HOUR_US = 3_600_000_000
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of tables that differ in one number. `much`: how many times `unit` the table with the long history has."""

    name: str
    unit: str
    little: int
    much: int


CASES = (
    Case("snapshots", "snapshots in Iceberg", 10, 2_000),
    Case("files", "data files in Iceberg", 100, 5_000),
    Case("parts", "parts in ClickHouse", 50, 2_000),
    Case("horizon", "hours of horizon", 1, OLD_HOURS),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One step of one case: medians in seconds, and the ratios of the rounds, much over little."""

    case: str
    step: str
    little_s: float
    much_s: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all was measured: a missed goal is printed, not an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--page", action="store_true", help="write docs/cost-of-history.md from --out and measure nothing"
    )
    options = parser.parse_args(argv)
    if options.page:
        PAGE.write_text(page(json.loads(options.out.read_text())))
        return 0
    cases = [case for case in CASES if not options.only or case.name in options.only]
    with tempfile.TemporaryDirectory(prefix="offload-history-") as folder:
        world = World(Path(folder))
        try:
            world.start()
            found = list(_measured(world, cases, options.rounds))
        finally:
            world.stop()
    document = {
        "made": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "rounds": options.rounds,
        "load": round(os.getloadavg()[0], 1),
        "findings": [asdict(one) for one in found],
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    for one in found:
        verdict = "met" if one.ratio <= LIMIT else "missed"
        console.print(f"{verdict}: {one.case}, {one.step}: {one.ratio:.2f}× ({one.little_s:.3f} s, {one.much_s:.3f} s)")
    if options.out.resolve() == OUT:
        PAGE.write_text(page(document))
    return 0


# -- the tables --------------------------------------------------------------------------------------------------------


def _measured(world: World, cases: Sequence[Case], rounds: int) -> Iterator[Finding]:
    k2.create(world.db)
    world.db.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    pairs = {case: (_made(world, case, case.little), _made(world, case, case.much)) for case in cases}
    times: dict[tuple[Case, str], list[tuple[float, float]]] = {}
    for number in track(range(rounds), "rounds", console=console):
        for pair in pairs.values():
            for spec in pair:
                _insert(world, spec, time.time_ns() // 1_000, 1, NEW_ROWS)
        # the rows' windows end, and settle
        time.sleep(WINDOW_S + SETTLE_S + 1)
        for case, (little, much) in pairs.items():
            # each goes first in every other round
            order = (little, much) if number % 2 else (much, little)
            ran = {spec.identity: _run(world, spec, f"round-{number}") for spec in order}
            for step in STEPS:
                both = (ran[little.identity][step], ran[much.identity][step])
                times.setdefault((case, step), []).append(both)
    for (case, step), found in times.items():
        few, many = [a for a, _ in found], [b for _, b in found]
        ratios = tuple(b / a for a, b in found)
        yield Finding(case.name, step, statistics.median(few), statistics.median(many), ratios)


def _made(world: World, case: Case, size: int) -> TableSpec:
    """A table with so much history, of which everything that ClickHouse holds is in the lake."""
    console.print(f"{case.name}: {size:,} {case.unit}")
    name = f"{case.name}_{size}"
    world.db.command(
        f"CREATE TABLE {DATABASE}.{name}"
        " (ts DateTime64(6, 'UTC'), id Int64, price Decimal(18, 8), sym String)"
        " ENGINE = MergeTree PARTITION BY toDate(ts) ORDER BY (sym, ts)"
    )
    horizon = size if case.name == "horizon" else 2
    folder = world.tables / DATABASE
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(
        f"cursor: ts\nsequence: id\nwindow: {WINDOW_S}s\nsettle: {SETTLE_S}s\nhorizon: {horizon}h\n"
        'target:\n  partition: ["day(ts)"]\n'
    )
    spec = load_spec(f"{DATABASE}.{name}", world.tables, None)
    now = time.time_ns() // 1_000
    if case.name == "parts":
        _parts(world, spec, size)
    if case.name == "horizon":
        _insert(world, spec, now - OLD_HOURS * HOUR_US, OLD_HOURS * HOUR_US, OLD_ROWS)
    else:
        _insert(world, spec, now - 2 * HOUR_US, HOUR_US, NEW_ROWS)
    _run(world, spec, "first")
    history: dict[str, Callable[[World, TableSpec, int], None]] = {"snapshots": _snapshots, "files": _files}
    if case.name in history:
        history[case.name](world, spec, size)
    _run(world, spec, "second")
    return spec


def _insert(world: World, spec: TableSpec, from_us: int, span_us: int, rows: int) -> None:
    world.db.command(
        f"INSERT INTO {DATABASE}.{spec.source.table} SELECT fromUnixTimestamp64Micro(toInt64({from_us}"
        f" + intDiv({span_us} * number, {rows})), 'UTC'), {from_us} + number, toDecimal64(number % 1000, 8),"
        f" concat('s', toString(number % 20)) FROM numbers({rows})"
    )


def _snapshots(world: World, spec: TableSpec, size: int) -> None:
    """So many commits of other writers, each with a file: entries of manifests, as no step reads the files."""
    for first in range(0, size, COMMITS_AT_ONCE):
        table = world.target(spec.target.table)
        with table.transaction() as transaction:
            for number in range(first, min(size, first + COMMITS_AT_ONCE)):
                with transaction.update_snapshot().fast_append() as append:
                    append.append_data_file(_entry(table, number))


def _files(world: World, spec: TableSpec, size: int) -> None:
    """So many files of another writer's single commit."""
    table = world.target(spec.target.table)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for number in range(size):
            append.append_data_file(_entry(table, number))


def _parts(world: World, spec: TableSpec, size: int) -> None:
    """So many inserts that ClickHouse does not merge, in the partitions of the days before yesterday."""
    world.db.command(f"SYSTEM STOP MERGES {DATABASE}.{spec.source.table}")
    lo = time.time_ns() // 1_000 - (OLD_DAYS + 2) * 24 * HOUR_US
    for number in range(size):
        _insert(world, spec, lo + number % OLD_DAYS * 24 * HOUR_US + number, 1, 1)


def _entry(table: Any, number: int) -> DataFile:
    day = int(time.time() // 86_400) - 30
    statistics_of_none: dict[str, Any] = {
        "column_sizes": {}, "value_counts": {}, "null_value_counts": {}, "nan_value_counts": {},
        "lower_bounds": {}, "upper_bounds": {}, "split_offsets": [4],
    }  # fmt: skip
    path = f"{table.location()}/data/foreign-{number}.parquet"
    return data_file(table, path, 1_000, 1, Record(day), statistics_of_none)


# -- the runs ----------------------------------------------------------------------------------------------------------


def _run(world: World, spec: TableSpec, run_id: str) -> dict[str, float]:
    """The three steps of one run; the seconds of each."""
    began = time.perf_counter()
    plan = check_extent(world.context, spec, RunRequest(run_id)).plan
    checked = time.perf_counter()
    if plan.touches_lake:
        world.ship(plan.plan_id)
    shipped = time.perf_counter()
    update_watermark(world.context, spec, plan.plan_id)
    return dict(zip(STEPS, (checked - began, shipped - checked, time.perf_counter() - shipped), strict=True))


# -- the page ----------------------------------------------------------------------------------------------------------


def page(document: dict[str, Any]) -> str:
    """docs/cost-of-history.md."""
    cases = {case.name: case for case in CASES}
    lines = [
        "# What history costs",
        "",
        "<!-- Made by `python -m bench.history` from bench/history.json; do not edit. -->",
        "",
        "Each step of a run with a little and with a lot behind the table, the same new rows, without the start of"
        f" Airflow's tasks and of Spark: medians of {document['rounds']} rounds, and the median (min–max) of the"
        f" ratios of each. The goal is at most {LIMIT}×.",
        "",
        "| what there is more of | step | little | much | ratio | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for raw in document["findings"]:
        one = Finding(**{**raw, "ratios": tuple(raw["ratios"])})
        case = cases[one.case]
        verdict = "met" if one.ratio <= LIMIT else "**missed**"
        spread = f"{one.ratio:.2f}× ({min(one.ratios):.2f}–{max(one.ratios):.2f})"
        lines.append(
            f"| {case.little:,} and {case.much:,} {case.unit} | `{one.step}` | {one.little_s * 1000:.0f} ms |"
            f" {one.much_s * 1000:.0f} ms | {spread} | {verdict} |"
        )
    lines += [
        "",
        f"Measured {document['made']}, load average {document['load']}. Snapshots and files are another writer's:"
        " entries of manifests whose files nobody reads. The tables of the horizon hold"
        f" {OLD_ROWS:,} rows of {OLD_HOURS} hours, all of them shipped. The"
        f" parts lie in {OLD_DAYS} days before yesterday; those of the day that rows still arrive in are read by every"
        " check, as ClickHouse does not say which windows a part holds.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
