"""`python -m bench.small`: what does a run of 10,000 rows cost, and where does its time go? Writes bench/small.json.

Our Spark job, from the start of spark-submit until it has committed and ended: its slices shipped by the driver, as
a run of so few rows does; shipped by Spark's executors; and these with what a plain spark-submit has. Beside them
spark-submit with less and less to do. Each in turn, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from ruamel.yaml import YAML

from bench.meter import Usage, measure
from bench.report import cell
from bench.results import Spread
from bench.tables import SPECS
from bench.world import DATABASE, World
from include.offload.jobwords import RESULT, Place
from include.offload.model import Plan
from include.offload.spec.load import load_spec
from include.offload.spec.model import TableSpec
from include.offload.steps import RunRequest, check_extent, update_watermark
from include.offload.verify import verify
from local import k2, spark
from local.paths import ROOT

OUT = ROOT / "bench" / "small.json"
CYCLE = ROOT / "bench" / "cycle.json"
PAGE = ROOT / "docs" / "small-runs.md"
ROUNDS = 5
ROWS = 10_000
WINDOW_S, SETTLE_S = 30, 1
NEVER = "0 0 29 2 *"
"""No interval since the DAGs' start date of 2024-01-01 has ended."""
TIMEOUT_S = 180.0
WALL_S, CPU_S, SHARE = 3.0, 3.5, 0.5
"""The goals: seconds and CPU seconds from spark-submit to its end, and their share of the plain submit's."""
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Way:
    """Something that spark-submit is asked to do. `place`: of our job; None: there is no plan to ship."""

    name: str
    title: str
    job: Path
    place: Place | None = None
    plain: bool = False


JOB = ROOT / "spark_jobs" / "offload.py"
DRIVER, PLAIN = "driver", "plain"
WAYS = (
    Way(DRIVER, "our job, shipped by the driver (what a run of so few rows does)", JOB, Place.DRIVER),
    Way("executors", "our job, shipped by executors", JOB, Place.EXECUTORS),
    Way(PLAIN, "the same by a plain spark-submit: no class data archive, Java's and Spark's defaults", JOB,
        Place.EXECUTORS, plain=True),
    Way("probe", "no job: a Spark context, and one Python worker that answers", ROOT / "spark_jobs" / "probe.py"),
    Way("empty", "no job: an empty Python file", ROOT / "bench" / "empty_job.py"),
    Way("empty-plain", "an empty Python file by a plain spark-submit", ROOT / "bench" / "empty_job.py", plain=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """One way. Seconds of each round: of the whole process, its CPU, and the job's own from its first read on."""

    name: str
    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    job_s: tuple[float, ...]
    tree_mib: tuple[float, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; exit code 1 when a run's rows are not exactly in the lake."""
    parser = argparse.ArgumentParser(prog="python -m bench.small", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each way runs (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go (%(default)s)")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} and measure nothing")
    options = parser.parse_args(argv)
    if options.page:
        write_page()
        return 0
    with tempfile.TemporaryDirectory(prefix="offload-small-") as folder:
        world = World(Path(folder))
        try:
            world.start()
            found, wrong = _measured(world, options.rounds)
        finally:
            world.stop()
    document = {
        "made": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "rounds": options.rounds,
        "rows": ROWS,
        "load": round(os.getloadavg()[0], 1),
        "ways": [asdict(one) for one in found],
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    for one in found:
        wall, cpu = (cell(Spread.of(figures), "{:.2f}") for figures in (one.wall_s, one.cpu_s))
        console.print(f"{one.name}: {wall} s, {cpu} CPU s")
    for goal, limit, value in goals(document):
        console.print(f"{'met' if value <= limit else 'missed'}: {goal}: {value:.2f} (goal ≤ {limit:g})")
    if options.out.resolve() == OUT:
        write_page()
    for line in wrong:
        console.print(f"[red]wrong[/]: {line}", markup=True)
    return 1 if wrong else 0


# -- the runs ----------------------------------------------------------------------------------------------------------


def _measured(world: World, rounds: int) -> tuple[list[Figures], list[str]]:
    k2.create(world.db)
    world.db.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    spark.write_conf(world.home)
    specs = {(w.name, n): behind(world, f"small_{w.name}_{n}") for w in WAYS if w.place for n in range(rounds)}
    insert_settled(world, list(specs.values()))
    seen: dict[str, list[tuple[Usage, float]]] = {way.name: [] for way in WAYS}
    for number in track(range(rounds), "rounds", console=console):
        for way in WAYS:
            seen[way.name].append(_run(world, way, specs.get((way.name, number))))
    wrong = [f"{spec.identity}: {line}" for spec in specs.values() for line in verify(world.context, spec).findings()]
    return [_figures(name, runs) for name, runs in seen.items()], wrong


def _figures(name: str, runs: Sequence[tuple[Usage, float]]) -> Figures:
    usages, jobs = [usage for usage, _ in runs], [seconds for _, seconds in runs]
    return Figures(
        name,
        tuple(round(u.wall_s, 3) for u in usages),
        tuple(round(u.cpu_s, 2) for u in usages),
        tuple(round(s, 3) for s in jobs),
        tuple(round(u.tree_bytes / 2**20, 1) for u in usages),
    )


def _run(world: World, way: Way, spec: TableSpec | None) -> tuple[Usage, float]:
    """One spark-submit; the job's own seconds, 0 where there is no job. Raises ContenderFailedError."""
    command, env = [*spark.spark_submit_command(), str(way.job)], {**os.environ, **_environment(way)}
    if spec is None or way.place is None:
        return measure(command, env, server_pid=world.server_pid, timeout_s=TIMEOUT_S).usage, 0.0
    plan: Plan = check_extent(world.context, spec, RunRequest("measured")).plan
    if plan.rows != ROWS:
        raise RuntimeError(f"{spec.identity}: {plan.rows} rows planned, not {ROWS}")
    command += ["--plan", str(plan.plan_id), "--place", way.place]
    done = measure(command, env, server_pid=world.server_pid, timeout_s=TIMEOUT_S)
    update_watermark(world.context, spec, plan.plan_id)
    (said,) = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    return done.usage, float(json.loads(said.removeprefix(RESULT))["seconds"])


def _environment(way: Way) -> Mapping[str, str]:
    """Where Spark is, and how it starts: as the one-machine stack has it, or with its defaults."""
    env = dict(spark.spark_env())
    if way.plain:
        settings = {**spark.submit_conf(), "spark.python.daemon.module": "pyspark.daemon"}
        # only what keeps it on loopback and in the bench's own directory
        env["SPARK_SUBMIT_OPTS"] = " ".join(f"-D{k}={v}" for k, v in settings.items() if k != "spark.ui.enabled")
    return env


def behind(world: World, name: str) -> TableSpec:
    """A table of which a first run has shipped what was there an hour ago."""
    world.db.command(f"CREATE TABLE {DATABASE}.{name} AS {k2.DATABASE}.{k2.EXCHANGES[0].table}")
    yaml = YAML()
    document: Any = yaml.load((SPECS / "bronze_trades_binance.yaml").read_text())
    document |= {"schedule": NEVER, "window": f"{WINDOW_S}s", "settle": f"{SETTLE_S}s", "horizon": "2h"}
    folder = world.tables / DATABASE
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.yaml").open("w") as file:
        yaml.dump(document, file)
    spec = load_spec(f"{DATABASE}.{name}", world.tables, None)
    now = time.time_ns() // 1_000
    _insert(world, spec, 100, now - 3_600_000_000, now - 3_000_000_000)
    plan = check_extent(world.context, spec, RunRequest("first")).plan
    world.ship(plan.plan_id)
    update_watermark(world.context, spec, plan.plan_id)
    return spec


def insert_settled(world: World, specs: Sequence[TableSpec]) -> None:
    """New rows in each table, of the last half minute; returns when they have settled."""
    now = time.time_ns() // 1_000
    for spec in specs:
        _insert(world, spec, ROWS, now - WINDOW_S * 1_000_000, now)
    # the rows' windows end, and settle
    time.sleep(WINDOW_S + SETTLE_S + 1)


def _insert(world: World, spec: TableSpec, rows: int, lo_us: int, hi_us: int) -> None:
    trades = k2.trades_sql(k2.EXCHANGES[0], lo_us, rows, lo_us, hi_us)
    world.db.command(f"INSERT INTO {DATABASE}.{spec.source.table} {trades}")


# -- the page ----------------------------------------------------------------------------------------------------------


def goals(document: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Each goal, its limit and the median that was found."""
    ways = {raw["name"]: raw for raw in document["ways"]}
    ours, plain = ways[DRIVER], ways[PLAIN]
    yield "seconds from spark-submit to its end", WALL_S, Spread.of(ours["wall_s"]).median
    yield "CPU seconds of it", CPU_S, Spread.of(ours["cpu_s"]).median
    for figure, what in (("wall_s", "seconds"), ("cpu_s", "CPU seconds")):
        ratios = [a / b for a, b in zip(ours[figure], plain[figure], strict=True)]
        yield f"{what}, as a share of the plain spark-submit's", SHARE, Spread.of(ratios).median


def write_page() -> None:
    """docs/small-runs.md, of what is recorded."""
    cycle = json.loads(CYCLE.read_text()) if CYCLE.exists() else None
    PAGE.write_text(page(json.loads(OUT.read_text()), cycle))


def page(document: Mapping[str, Any], cycle: Mapping[str, Any] | None) -> str:
    """The page. cycle: what `bench.cycle` wrote."""
    ways = {raw["name"]: raw for raw in document["ways"]}
    lines = [
        "# Where a small run's time goes",
        "",
        "<!-- Made by `python -m bench.small` and `bench.cycle` from their figures; do not edit. -->",
        "",
        f"The usual run ships a few thousand rows. Here {document['rows']:,} bronze trades are shipped by the offload"
        " job, from the start of `spark-submit` until it has committed and ended, and beside it `spark-submit` does"
        f" less and less. Each in turn, {document['rounds']} rounds, median (min–max).",
        "",
        "| what | seconds | CPU seconds | of these in the job, from the first read to the commit | peak memory, MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way in WAYS:
        raw = ways[way.name]
        inside = cell(Spread.of(raw["job_s"]), "{:.2f}") if any(raw["job_s"]) else "–"
        lines.append(
            f"| {way.title} | {cell(Spread.of(raw['wall_s']), '{:.2f}')} | {cell(Spread.of(raw['cpu_s']), '{:.2f}')} |"
            f" {inside} | {cell(Spread.of(raw['tree_mib']), '{:.0f}')} |"
        )
    lines += ["", "## Goals", "", "| goal | limit | found | |", "| --- | --- | --- | --- |"]
    for goal, limit, value in goals(document):
        lines.append(f"| {goal} | ≤ {limit:g} | {value:.2f} | {'met' if value <= limit else '**missed**'} |")
    lines += ["", f"Measured {document['made']}, load average at its end {document['load']}.", ""]
    if cycle is not None:
        lines += _through_airflow(cycle)
    return "\n".join([*lines, END])


def _through_airflow(document: Mapping[str, Any]) -> Iterator[str]:
    """What bench/cycle.json says."""
    from bench.cycle import STEPS
    from bench.cycle import goals as cycle_goals

    rounds = document["rounds"]
    alone = [one["alone"] for one in rounds]
    yield from ("## Through Airflow", "")
    yield (
        f"The same {document['rows']:,} rows through a DAG run on a one-machine stack with Airflow, by Airflow's own"
        f" clock, from `queued_at` to the end of the last task; {len(rounds)} rounds, median (min–max)."
    )
    yield from ("", "| a run alone | seconds until it starts | seconds |", "| --- | --- | --- |")
    for index, step in enumerate(STEPS):
        waits, tasks = ([one[key][index] for one in alone] for key in ("waits", "tasks"))
        yield f"| `{step}` | {cell(Spread.of(waits), '{:.1f}')} | {cell(Spread.of(tasks), '{:.1f}')} |"
    yield f"| whole | | {cell(Spread.of([one['whole'] for one in alone]), '{:.1f}')} |"
    yield ""
    yield (
        f"{document['tables']} such tables at once: {cell(Spread.of([one['cycle_s'] for one in rounds]), '{:.1f}')} s,"
        f" in which {cell(Spread.of([100 * one['efficiency'] for one in rounds]), '{:.0f}')} % of the time of"
        f" {rounds[0]['cores']} cores went into the runs, what an idle Airflow takes not counted."
    )
    yield from ("", "| goal | limit | found | |", "| --- | --- | --- | --- |")
    for goal, limit, value, met in cycle_goals(document):
        yield f"| {goal} | {limit:g} | {value:.2f} | {'met' if met else '**missed**'} |"
    yield from ("", f"Measured {document['made']}.", "")


END = """\
## What was done about it

- **The driver ships a small plan itself** ([`plan.driver_rows`](spec.md#plan), 250,000 rows by default): no Spark \
context, no Python workers. A cluster that is away does not stop such a run either; `bin/offload health --deep` asks it.
- **Class data archive**: parsed classes of this Java and this Spark, baked at set-up and into the images. Java maps \
them instead of reading 200 jars.
- **A JVM for a scheduler of tasks**: the serial collector, the quick compiler alone, no UI, no Iceberg jar in the \
offload job (PyIceberg commits), 768 MB of heap.
- **Compiled bytecode**: `bin/venv` compiles every package at set-up; without, each process compiles a thousand modules.
- **Workers forked from one that has imported**: `spark_jobs/worker_daemon.py`, for runs that use executors; the \
context starts in a thread while the driver imports and opens the ledger.

What is left is Java's start and Python's imports: PyIceberg, Arrow, psycopg, pydantic.

`python -m bench.small` and `python -m bench.cycle` repeat it.
"""


if __name__ == "__main__":
    sys.exit(main())
