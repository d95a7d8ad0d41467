"""`python -m bench.cycle`: how long is a run through Airflow, alone and ten at once? Writes bench/cycle.json.

A stack of its own with Airflow, ten tables, 10,000 new rows in each. Round by round one table's run is asked for while
nothing else goes on, then one of each of the ten. Times are Airflow's own, from `queued_at` of the run to the end of
its last task.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from bench import small
from bench.world import DATABASE, World
from include.offload.airflow_rest import AirflowRest, DagRun
from include.offload.spec.model import TableSpec
from include.offload.verify import verify
from local import k2, secrets
from local.ports import HOST, port

ROUNDS = 3
TABLES = 10
STEPS = ("check_extent", "offload", "update_watermark")
RUN_S, CYCLE_S, EFFICIENCY = 15.0, 90.0, 0.81
"""The goals."""
IDLE_S = 20.0
"""How long Airflow is watched with nothing to do: what it takes then is not the runs' work."""
LIMIT_S = 600.0
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Times:
    """One run of a DAG in seconds. `whole`: from queued to the end of its last task; `tasks`: of each, while it ran;
    `waits`: between a task's predecessor, or the run's queuing, and its own start."""

    whole: float
    tasks: tuple[float, ...]
    waits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """`alone`: one run with the machine to itself; `cycle_s`: from the first that was queued to the last that ended;
    `busy`: seconds that the cores worked in the cycle, without what an idle Airflow takes; `cores`: how many."""

    alone: Times
    cycle_s: float
    busy: float
    cores: int

    @property
    def efficiency(self) -> float:
        """The share of the cores' time in the cycle that went into the runs."""
        return self.busy / (self.cores * self.cycle_s)


class Airflow(AirflowRest):
    """The REST API, with times."""

    def times(self, run: DagRun) -> tuple[float, float, Times]:
        """When a run was queued and ended (seconds since 1970), and how it went. Raises RuntimeError if it failed."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}"
        told, listed = self._call("GET", path), self._call("GET", f"{path}/taskInstances")["task_instances"]
        if told["state"] != "success":
            raise RuntimeError(f"{run.dag_id} {run.run_id} is {told['state']}")
        spans = {t["task_id"]: (_instant(t["start_date"]), _instant(t["end_date"])) for t in listed}
        queued = before = _instant(told["queued_at"])
        waits: list[float] = []
        for step in STEPS:
            waits.append(spans[step][0] - before)
            before = spans[step][1]
        tasks = tuple(round(hi - lo, 3) for lo, hi in (spans[step] for step in STEPS))
        return queued, before, Times(round(before - queued, 3), tasks, tuple(round(w, 3) for w in waits))


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; exit code 1 when a table is not exactly in the lake afterwards."""
    parser = argparse.ArgumentParser(prog="python -m bench.cycle", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many rounds (%(default)s)")
    parser.add_argument("--out", type=Path, default=small.CYCLE, help="where the figures go (%(default)s)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="offload-cycle-") as folder:
        world = World(Path(folder))
        try:
            world.start()
            specs = _tables(world)
            world.stack.start(["airflow"])
            rounds = _measured(world, specs, options.rounds)
            wrong = [f"{s.identity}: {line}" for s in specs for line in verify(world.context, s).findings()]
        finally:
            world.stop()
    document = {
        "made": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "rows": small.ROWS,
        "tables": TABLES,
        "rounds": [{**asdict(one), "efficiency": round(one.efficiency, 3)} for one in rounds],
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    if options.out.resolve() == small.CYCLE:
        small.write_page()
    for goal, limit, value, met in goals(document):
        console.print(f"{'met' if met else 'missed'}: {goal}: {value:.2f} (goal {limit:g})")
    for line in wrong:
        console.print(f"[red]wrong[/]: {line}", markup=True)
    return 1 if wrong else 0


def _tables(world: World) -> list[TableSpec]:
    k2.create(world.db)
    world.db.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    return [small.behind(world, f"cycle_{number}") for number in range(TABLES)]


def _measured(world: World, specs: Sequence[TableSpec], rounds: int) -> list[Round]:
    password = secrets.read(world.home, "airflow_admin_password")
    airflow = Airflow(f"http://{HOST}:{port('AIRFLOW')}", "admin", password)
    try:
        airflow.wait_for_dags({spec.dag_id for spec in specs}, LIMIT_S)
        for spec in specs:
            airflow.pause(spec.dag_id, False)
        # processes that have never run a task, and pages that nobody has read
        _run_all(airflow, specs[:1])
        idle = _idle()
        return [_round(world, airflow, specs, idle) for _ in track(range(rounds), "rounds", console=console)]
    finally:
        airflow.close()


def _round(world: World, airflow: Airflow, specs: Sequence[TableSpec], idle: float) -> Round:
    small.insert_settled(world, specs[:1])
    ((_, _, alone),) = _run_all(airflow, specs[:1])
    small.insert_settled(world, specs)
    before = _cores_busy()
    all_ = _run_all(airflow, specs)
    seconds = max(ended for _, ended, _ in all_) - min(queued for queued, _, _ in all_)
    busy = _cores_busy() - before - idle * seconds
    return Round(alone, round(seconds, 3), round(busy, 2), os.cpu_count() or 1)


def _run_all(airflow: Airflow, specs: Sequence[TableSpec]) -> list[tuple[float, float, Times]]:
    runs = [airflow.trigger(spec.dag_id) for spec in specs]
    return [airflow.times(airflow.ended(run, LIMIT_S)) for run in runs]


def _idle() -> float:
    """Cores that are busy while Airflow has nothing to do."""
    before = _cores_busy()
    time.sleep(IDLE_S)
    return (_cores_busy() - before) / IDLE_S


def _cores_busy() -> float:
    """Seconds that all cores together have worked since the machine started: proc(5), the first line of /proc/stat."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def goals(document: Mapping[str, Any]) -> list[tuple[str, float, float, bool]]:
    """Each goal, its limit, the median that was found, and whether that meets it."""
    rounds = document["rounds"]
    alone, cycle, share = (
        statistics.median(figures)
        for figures in (
            [one["alone"]["whole"] for one in rounds],
            [one["cycle_s"] for one in rounds],
            [one["efficiency"] for one in rounds],
        )
    )
    return [
        ("seconds of a run alone, from queued to its last task's end, at most", RUN_S, alone, alone <= RUN_S),
        (f"seconds of {document['tables']} runs at once, at most", CYCLE_S, cycle, cycle <= CYCLE_S),
        ("share of the cores' time in these that went into the runs, at least", EFFICIENCY, share, share >= EFFICIENCY),
    ]


if __name__ == "__main__":
    sys.exit(main())
