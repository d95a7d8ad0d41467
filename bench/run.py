"""`make bench`: every contender in turn, round by round, on a stack of its own; prints, and writes results.json.

`make bench-quick`: the fast contenders with few rows, their ratios held to the recorded ones. Exit code 1 when our job
failed or wrote a wrong result, and when a ratio of `bench-quick` regressed or its contender has no figures. What is
wrong with another's result, another that fails and a missed goal are printed and kept, not errors.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from bench import gate, jars, machine, report
from bench.contenders import CONTENDERS, OURS, QUICK, Contender, Job
from bench.field import Entry, field
from bench.goals import goals
from bench.meter import ContenderFailedError, measure
from bench.results import Results, Run, Series, speed_up
from bench.world import World, written
from local.paths import ROOT

ROWS, SILVER_ROWS, SLOW_ROWS = 8_000_000, 2_000_000, 1_000_000
QUICK_ROWS = 500_000
ROUNDS = 3
TIMEOUT_S = 300.0
"""The longest run that is waited for: ours takes a tenth of it."""
console = Console(highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; see the module's docstring for the exit code."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="offload-bench-") as folder:
        world = World(options.home or Path(folder))
        try:
            results = _Bench(world, options).run()
        except ContenderFailedError as error:
            console.print(f"[red]failed[/]: {error}", markup=True, soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("stopped")
            return 130
        finally:
            if not options.keep:
                world.stop()
    _say(results)
    if options.out:
        options.out.write_text(results.model_dump_json(indent=2) + "\n")
        console.print(f"written: {options.out}")
        if options.out.resolve() == report.RESULTS:
            report.write(results)
            console.print(f"written: {report.PAGE}, and its plots")
    return _gate(results, record=options.record) if options.quick else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="bronze trades to move (%(default)s)")
    parser.add_argument("--silver-rows", type=int, default=SILVER_ROWS, help="silver trades, 0: none (%(default)s)")
    parser.add_argument("--slow-rows", type=int, default=SLOW_ROWS, help="for slow contenders, at most (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each contender runs (%(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"the fast ones, {QUICK_ROWS} rows; judges the ratios")
    parser.add_argument("--record", action="store_true", help=f"with --quick: write {gate.RECORDED.name}")
    parser.add_argument("--only", nargs="+", choices=[c.name for c in CONTENDERS], help="these contenders and ours")
    parser.add_argument("--out", type=Path, help=f"where the figures go ({report.RESULTS.relative_to(ROOT)})")
    parser.add_argument("--home", type=Path, help="state directory of the stack, kept; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="leave the servers of --home running")
    options = parser.parse_args(argv)
    if options.keep and not options.home:
        parser.error("--keep needs --home")
    if options.record and not options.quick:
        parser.error("--record needs --quick")
    if options.quick:
        options.rows, options.silver_rows, options.only = QUICK_ROWS, 0, list(QUICK)
    elif options.out is None and options.only is None:
        options.out = report.RESULTS
    return options


class _Bench:
    """One bench: its stack, its tables, its runs."""

    def __init__(self, world: World, options: argparse.Namespace) -> None:
        self._world = world
        self._rounds: int = options.rounds
        self._rows: int = options.rows
        wanted = [c for c in CONTENDERS if options.only is None or c is OURS or c.name in options.only]
        self._entries, self._missing = field(wanted, options.rows, options.silver_rows, options.slow_rows,
                                             small=not options.quick)  # fmt: skip
        self._runs: dict[Entry, list[Run]] = {entry: [] for entry in self._entries}

    def run(self) -> Results:
        """All rounds. Raises ContenderFailedError when our own job fails or is wrong."""
        with _progress() as bar:
            total = self._rounds * len(self._entries)
            task = bar.add_task("jars of the JDBC contender", total=total)
            if any(entry.contender.name.startswith("spark-jdbc") for entry in self._entries):
                jars.jars()
            bar.update(task, description="starting ClickHouse, PostgreSQL, SeaweedFS")
            self._world.start()
            sources = self._make(bar)
            for number in range(1, self._rounds + 1):
                for entry in self._entries:
                    bar.update(task, description=f"round {number}: {entry}")
                    if entry in self._runs:
                        self._one(entry, sources[entry.source], number)
                    bar.advance(task)
        series = tuple(
            Series(name=e.contender.name, title=e.contender.title, table=e.table.name, rows=e.rows, runs=tuple(runs))
            for e, runs in self._runs.items()
        )
        return Results(
            made=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            commit=machine.commit(),
            rows=self._rows,
            rounds=self._rounds,
            machine=machine.machine(),
            versions=machine.versions(self._world),
            series=series,
            goals=goals(series),
            missing=tuple(self._missing),
        )

    def _make(self, bar: Progress) -> dict[tuple[str, int], str]:
        sources = {}
        for entry in self._entries:
            if entry.source not in sources:
                making = bar.add_task(f"making {entry.rows:,} of {entry.table.name}", total=entry.rows)
                sources[entry.source] = self._world.make(entry.table, entry.rows, partial(_made, bar, making))
                bar.remove_task(making)
        return sources

    def _one(self, entry: Entry, source: str, number: int) -> None:
        target = f"{entry.contender.name}_{entry.table.name}_{entry.rows}_{number}_{datetime.now(UTC):%H%M%S}"
        job = Job(entry.table, source, target.replace("-", "_"), entry.rows)
        try:
            run = _run(self._world, entry.contender, job, number)
        except ContenderFailedError as error:
            if entry.contender is OURS:
                raise
            # without all its rounds a contender has no median; the others go on
            console.print(f"[red]failed[/]: {error}", markup=True, soft_wrap=True)
            del self._runs[entry]
            self._missing.append(entry.missing(_last_words(error), failed=True))
            return
        if run.wrong and entry.contender is OURS:
            raise ContenderFailedError(f"our own result is wrong: {'; '.join(run.wrong)}")
        self._runs[entry].append(run)
        console.print(
            f"round {number}  {entry.contender.name:<17} {entry.table.name:<13} {entry.rows:>9,} rows"
            f"  {entry.rows / run.copy_s / 1e6:6.3f} M rows/s  copy {run.copy_s:6.2f} s  whole {run.process_s:6.2f} s"
            f"  CPU {run.client_cpu_s:6.2f} s + ClickHouse {run.server_cpu_s:5.2f} s  load {run.load:.1f}"
        )
        for fault in run.wrong:
            console.print(f"         [yellow]wrong[/]: {fault}", markup=True, soft_wrap=True)


def _last_words(error: ContenderFailedError) -> str:
    """The line of a failure that tells most: the last one that names an error, else the first."""
    lines = [re.sub(r"\x1b\[\d+m", "", line).strip() for line in str(error).splitlines()]
    named = [line for line in lines if re.match(r"[\w.]*(Exception|Error)\b|error |failed to |Arrow type ", line, re.I)]
    own = [line for line in named if not line.startswith("subprocess.")]
    return f"{lines[0].rstrip(':')}: {own[-1]}"[:300] if own else lines[0]


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield bar


def _made(bar: Progress, task: TaskID, rows: int) -> None:
    bar.update(task, completed=rows)


def _run(world: World, contender: Contender, job: Job, number: int) -> Run:
    """One measured and checked run. Raises ContenderFailedError."""
    contender.prepare(world, job)
    command = contender.command(world, job)
    world.settle()
    load = os.getloadavg()[0]
    try:
        finished = measure(command.argv, command.env, server_pid=world.server_pid, timeout_s=TIMEOUT_S)
        copy_s = contender.copied(finished.stdout)
    except ContenderFailedError as error:
        raise ContenderFailedError(f"{contender.title}, {job.table.name}: {error}") from error
    wrong = contender.check(world, job)
    files = written(world.target(job.target)) if contender.writes else None
    used = finished.usage
    return Run(
        round=number,
        copy_s=round(copy_s, 3),
        process_s=round(used.wall_s, 3),
        client_cpu_s=round(used.cpu_s, 2),
        server_cpu_s=round(used.server_cpu_s, 2),
        tree_bytes=used.tree_bytes,
        process_bytes=used.process_bytes,
        files=files.files if files else 0,
        bytes=files.bytes if files else 0,
        load=round(load, 2),
        wrong=wrong,
    )


def _say(results: Results) -> None:
    for name in dict.fromkeys(series.table for series in results.series):
        console.print(report.terminal(results, name))
    for other in results.series:
        if other.name != OURS.name:
            found = speed_up(results.beside(OURS.name, other), other)
            console.print(
                f"{found.median:5.2f} × ({found.min:.2f}–{found.max:.2f}) the rows/s of {other.title}, {other.table}"
            )
    for missing in results.missing:
        console.print(f"no figures: {missing.title}, {missing.table}: {missing.why}", soft_wrap=True)
    for goal in results.goals:
        console.print(report.goal_line(goal), soft_wrap=True)


def _gate(results: Results, *, record: bool) -> int:
    if record:
        gate.record(results)
        console.print(f"written: {gate.RECORDED}")
    code, lines = gate.judge(results)
    for line in lines:
        console.print(line, soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
