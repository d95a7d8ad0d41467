"""`python -m bench.scaling`: how much faster is a job on two workers than on one? Writes bench/scaling.json.

The workers are those of real Spark standalone clusters, one core each, and everything runs on one machine. So that
neither its cores nor the servers are the limit, a relay puts ClickHouse and the store at a distance. Each plan is cut
into the same slices and two lanes. `docs/generate.py` writes docs/scaling.md of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.progress import track

from bench import machine
from bench.meter import ContenderFailedError, cpu_seconds
from bench.slow_link import Link, slow_link
from bench.tables import BRONZE
from bench.world import DATABASE, World
from include.offload.context import open_context
from include.offload.jobwords import RESULT
from include.offload.settings import load
from include.offload.spec.load import load_spec
from include.offload.steps import RunRequest, check_extent, update_watermark
from include.offload.verify import verify
from local import ports, spark
from local.paths import ROOT
from local.secrets import read
from local.spark_cluster import SparkCluster, spark_cluster

OUT = ROOT / "bench" / "scaling.json"
ROWS, ROUNDS, SLICES, LANES = 480_000, 3, 12, 2
LINK = Link(latency_ms=20, mb_per_s=4)
"""As between two sites, or as a store that gives each connection little."""
TIMEOUT_S = 180.0
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Run:
    """One job. seconds: from when its workers are there until the commit returned; load: of the machine before."""

    workers: int
    round: int
    seconds: float
    clickhouse_cpu_s: float
    slices: int
    load: float


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all was measured. Raises ContenderFailedError for a job that failed or a lake that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="offload-scaling-") as folder:
        world = World(Path(folder))
        try:
            world.start()
            runs = _measured(world, options.rows, options.rounds)
        finally:
            world.stop()
    document = {
        "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": machine.commit(),
        "rows": options.rows,
        "slices": runs[0].slices,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "link": asdict(LINK),
        "runs": [asdict(run) for run in runs],
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n")
    one, two = (statistics.median(run.seconds for run in runs if run.workers == n) for n in (1, 2))
    console.print(f"{one:.2f} s on one worker, {two:.2f} s on two: {one / two:.2f}×")
    console.print(f"written: {options.out}; `make docs` makes docs/scaling.md of it")
    return 0


def _measured(world: World, rows: int, rounds: int) -> list[Run]:
    """All rounds: one worker and two, in turn."""
    spark.write_conf(world.home)
    source = world.make(BRONZE, rows, lambda _: None)
    world.settle()
    runs = []
    with spark_cluster(1) as one, spark_cluster(2) as two, _far(world) as far:
        for number in track(range(1, rounds + 1), "rounds", console=console, transient=True):
            for cluster in (one, two):
                run = _one(world, cluster, source, rows, number, far)
                runs.append(run)
                console.print(f"round {number}  {run.workers} worker(s)  {run.seconds:6.2f} s  load {run.load}")
    return runs


@contextlib.contextmanager
def _far(world: World) -> Iterator[dict[str, str]]:
    """Environment that leads a process to ClickHouse and to the store through the slow links."""
    clickhouse, store = (f"{ports.HOST}:{ports.port(name)}" for name in ("CLICKHOUSE", "S3"))
    with slow_link(clickhouse, LINK) as source, slow_link(store, LINK) as target:
        yield {
            "OFFLOAD_CLICKHOUSE_URI": read(world.home, "offload_clickhouse_uri").replace(
                clickhouse, f"{ports.HOST}:{source}"
            ),
            "PYICEBERG_CATALOG__LAKE__S3__ENDPOINT": f"http://{ports.HOST}:{target}",
        }


def _one(world: World, cluster: SparkCluster, source: str, rows: int, number: int, far: Mapping[str, str]) -> Run:
    """One run of a fresh table, shipped through the links and verified without them."""
    workers = len(cluster.workers)
    target = f"scaling_{workers}_{number}"
    world.spec(BRONZE, target, source)
    file = world.tables / DATABASE / f"{target}.yaml"
    file.write_text(f"{file.read_text()}slice: {{rows: {rows // SLICES}, concurrency: {LANES}}}\n")
    spec = load_spec(f"{DATABASE}.{target}", world.tables, None)
    # a plan names its replica by address: it is made through the link that the job will read through
    ctx = open_context(load(clickhouse_uri=far["OFFLOAD_CLICKHOUSE_URI"]))
    try:
        plan = check_extent(ctx, spec, RunRequest(f"scaling-{number}")).plan
        load_before, cpu_before = os.getloadavg()[0], cpu_seconds(world.server_pid)
        said = _job(world, cluster, plan.plan_id, far)
        used = cpu_seconds(world.server_pid) - cpu_before
        update_watermark(ctx, spec, plan.plan_id)
    finally:
        ctx.close()
    if (said["status"], said["rows"]) != ("committed", rows):
        raise ContenderFailedError(f"{target}: {said}")
    report = verify(world.context, spec)
    if not report.ok:
        raise ContenderFailedError(f"{target}: {'; '.join(report.findings())}")
    return Run(workers, number, round(said["seconds"], 3), round(used, 2), len(plan.slices), round(load_before, 1))


def _job(world: World, cluster: SparkCluster, plan_id: UUID, far: Mapping[str, str]) -> dict[str, Any]:
    """Ship a plan on a cluster; the job's own result. Raises ContenderFailedError with its last words."""
    job = [str(ROOT / "spark_jobs" / "offload.py"), "--plan", str(plan_id)]
    done = subprocess.run(
        [*spark.spark_submit_command(), *cluster.submit_options(), *job],
        env={**os.environ, **spark.spark_env(world.home), **far},
        cwd=world.home.root,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith(RESULT):
            found: dict[str, Any] = json.loads(line.removeprefix(RESULT))
            return found
    raise ContenderFailedError(f"the job said no result:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
