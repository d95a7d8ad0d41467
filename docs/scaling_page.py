"""docs/scaling.md: a cluster in place of one machine.

Its figures are computed from bench/scaling.json, written by `python -m bench.scaling`, and from bench/results.json.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from pydantic import BaseModel

from bench.results import Results, Series
from bench.slow_link import Link
from include.offload.spec.model import PlanLimits, SliceLimits

BENCH = Path(__file__).resolve().parents[1] / "bench"
RECORD, RESULTS = BENCH / "scaling.json", BENCH / "results.json"
DAY_ROWS = 1_000_000_000
DAY_S, RUN_S, WINDOW_S = 86_400, 900, 300
"""A run every 15 minutes, and windows as specs have them by default."""
OUTAGE_S, CATCH_UP_S = 8 * 3600, 3600
"""A night without runs, to be made good within an hour."""


class _Run(BaseModel):
    workers: int
    seconds: float
    clickhouse_cpu_s: float
    slices: int
    load: float


class _Scaling(BaseModel):
    """What bench.scaling wrote, as far as this page shows it."""

    made: str
    rows: int
    rounds: int
    cores: int
    link: Link
    runs: tuple[_Run, ...]

    def rates(self, workers: int) -> list[float]:
        """Rows a second, round by round."""
        return [self.rows / run.seconds for run in self.runs if run.workers == workers]


_BEFORE = """
A job is one driver and a few Spark tasks. The driver asks, audits and commits; each task sends queries to ClickHouse
one after the other and writes what comes as Parquet into the object store. No row passes through the driver, and none
from one worker to another: there is no shuffle. So more workers read more at a time, until ClickHouse, the store or
`slice.concurrency` is the limit. Only a plan of up to `plan.driver_rows` rows, 250,000 by default, is shipped by the
driver itself, and starts no worker ([ADR 14](adr/0014-small-plans-in-the-driver.md)).

| what | where | how to get more |
| --- | --- | --- |
| rows a second of one job | the spec: `slice.concurrency`, queries that a job runs at a time, 2 by default | \
as many as workers have cores, and as ClickHouse is to bear; cores beyond that stay idle |
| load on ClickHouse | the spec: `source.limits`, threads and memory of each query | \
[replicas](#clickhouse-as-several-replicas): tables spread over them |
| jobs at a time | Airflow's pool `offload_spark` | slots |
| the length of a run | the spec: `plan.rows`, `plan.bytes` | \
smaller plans end sooner and lose less when they die; what is left is begun at once |
| drivers | Airflow's workers: each job has its driver there, a JVM and a Python process | more of Airflow's workers |

## The connection

The code is the same everywhere; the connection `offload_spark` says where. As environment variables:

```sh
# this machine
AIRFLOW_CONN_OFFLOAD_SPARK='{"conn_type": "spark", "host": "local[2]"}'
# a standalone cluster
AIRFLOW_CONN_OFFLOAD_SPARK='{"conn_type": "spark", "host": "spark://spark-master.example.com", "port": 7077, \
"extra": {"deploy-mode": "client"}}'
# the same with a master in reserve
AIRFLOW_CONN_OFFLOAD_SPARK='{"conn_type": "spark", \
"host": "spark://master-1.example.com:7077,master-2.example.com:7077", "extra": {"deploy-mode": "client"}}'
# YARN; HADOOP_CONF_DIR in the environment of Airflow's workers says where
AIRFLOW_CONN_OFFLOAD_SPARK='{"conn_type": "spark", "host": "yarn", \
"extra": {"deploy-mode": "client", "queue": "offload"}}'
# Kubernetes; Airflow needs the package apache-airflow-providers-cncf-kubernetes too
AIRFLOW_CONN_OFFLOAD_SPARK='{"conn_type": "spark", "host": "k8s://https://kubernetes.example.com", "port": 6443, \
"extra": {"deploy-mode": "client", "namespace": "offload"}}'
```

In a table's spec, `connections: {spark: offload_spark_large}` names another connection for that one. `bin/offload run`
and `bin/offload health --deep` take the master from `OFFLOAD_SPARK_MASTER`; the second starts Spark there and lets one
worker answer, which is the first thing to try.

## What the workers of a cluster need

- **Python** of the driver's minor version, with the packages of `requirements-spark.txt`, under the path that
  `PYSPARK_PYTHON` names in the environment of Airflow's tasks. Where the cluster unpacks it for each job
  (`spark.archives`, on YARN and Kubernetes), that path is relative: `PYSPARK_PYTHON=./venv/bin/python`, and
  `PYSPARK_DRIVER_PYTHON` the driver's own. No jar.
- **Not this repository.** The driver sends `include/` and `spark_jobs/` as a zip file through Spark's own file server.
  Nothing else of the driver's disk is read: neither its secrets file nor its scratch directory.
- **The way to ClickHouse and the object store**, by the same names that the driver uses, and back to the driver. Not to
  the ledger and not to the catalog. A CA file of yours ([TLS](howto-production.md#tls)) must exist on every worker.
- **A network that may carry logins.** A task carries the password of ClickHouse's user and the keys of the store:
  `spark.authenticate` and `spark.network.crypto.enabled`, unless only you are on that network. A standalone cluster
  wants the same `spark.authenticate.secret` on each machine too.

Settings of Spark belong into `$SPARK_HOME/conf/spark-defaults.conf` where the driver runs, or into `SPARK_SUBMIT_OPTS`,
as [`docker-compose.yaml`](../docker-compose.yaml) does:

```properties
# where executors call the driver back: the name or address of Airflow's worker
spark.driver.host                                 airflow-worker-1.example.com
spark.executor.memory                             512m
# on YARN and Kubernetes: Python lives beside the JVM, some 250 MB for each core
spark.executor.memoryOverhead                     768m
spark.executor.cores                              2
# of this job; slice.concurrency of the table uses as many
spark.cores.max                                   4
# do not begin with the first executor that comes
spark.scheduler.minRegisteredResourcesRatio       1.0
spark.scheduler.maxRegisteredResourcesWaitingTime 60s
spark.authenticate                                true
spark.network.crypto.enabled                      true
```

On YARN and Kubernetes `spark.executor.instances` takes the place of `spark.cores.max`. On Kubernetes, where Airflow's
worker is a pod: `spark.kubernetes.container.image` with the packages,
`spark.kubernetes.authenticate.serviceAccountName` that may create pods, a headless service for `spark.driver.host`,
and `spark.kubernetes.driver.pod.name`, so that executors go with their driver.

## What happens when a machine goes

| what dies | what is seen | how it goes on |
| --- | --- | --- |
| a worker, with all on it | a warning in the task's log, `Lost executor` | \
Spark gives its slices to the others, which read them from the first byte; a file that it had written is named by no \
snapshot, and maintenance removes it ([`test_spark_standalone.py`](../tests/faults/test_spark_standalone.py)) |
| a worker whose machine says no good-bye | the same after `spark.network.timeout`, 120 s | the same |
| all workers | the job waits for others, up to the job's time-out (`OFFLOAD_JOB_TIMEOUT_S`) | the next attempt |
| the driver, that is Airflow's worker | the task fails or is lost | \
Airflow's next try; a driver that lives on unseen can't commit twice ([rules 1 and 16](exactly-once.md)) |
| a replica of ClickHouse | [OFL-201](errors.md#ofl-201) or [OFL-208](errors.md#ofl-208), no file | \
the next try reads another ([`test_two_replicas.py`](../tests/faults/test_two_replicas.py)) |

## ClickHouse as several replicas

The ClickHouse connection's extra `{"replicas": "ch1,ch2"}` names all of them, or `OFFLOAD_CLICKHOUSE_URI` has a URI for
each, with commas between. A table's name decides which it asks first, so that tables spread over them. A run looks and
reads at one alone: what one has counted, another may not have yet. When that one is away as an attempt begins, the
attempt reads another of the same table that is less than `settle` behind, and ships what comes exactly as it was
planned, in count and hash; the rest waits for the next run, which plans anew ([rule 11](exactly-once.md)). A load
balancer in front of replicas pins nothing: name each by itself.

## Cluster mode

A task refuses `"deploy-mode": "cluster"` ([OFL-102](errors.md#ofl-102)). The job's last line decides what became of
it, and in cluster mode that is in a log of the cluster's; a plan that landed would count as failed. In client mode the
driver is a small process beside Airflow's task, so there is little to win. By hand, with the plan of a run that has not
shipped it, and where the image or the machines hold this repository, it would be

```sh
spark-submit --master k8s://https://kubernetes.example.com:6443 --deploy-mode cluster \\
  --conf spark.kubernetes.namespace=offload --conf spark.kubernetes.container.image=registry.example.com/offload:1 \\
  --conf spark.kubernetes.driver.secrets.offload=/run/secrets/offload \\
  --conf spark.kubernetes.driverEnv.OFFLOAD_SECRETS_FILE=/run/secrets/offload/offload.env \\
  --conf spark.kubernetes.driverEnv.PYICEBERG_HOME=/run/secrets/offload \\
  local:///opt/offload/spark_jobs/offload.py --plan PLAN
spark-submit --master yarn --deploy-mode cluster --queue offload \\
  --conf spark.yarn.appMasterEnv.OFFLOAD_SECRETS_FILE=/etc/offload/offload.env \\
  --conf spark.yarn.appMasterEnv.PYICEBERG_HOME=/etc/offload \\
  local:/opt/offload/spark_jobs/offload.py --plan PLAN
```

and then `update_watermark` cleared in Airflow: it asks the table, not the job. **None of this was run.**
"""

_AFTER = """
## What was run, and what was not

| | |
| --- | --- |
| a standalone cluster of two workers, client mode: a plan shipped, a worker killed under a job | \
run: [`test_spark_standalone.py`](../tests/faults/test_spark_standalone.py). Master and workers are processes of one \
machine, each with directories of its own, under another user than the driver where the test may change users; the \
Python packages are the same installation |
| each connection above becomes the command line of `spark-submit` that it should, and no secret is in it | \
run: [`test_spark_connections.py`](../tests/integrity/test_spark_connections.py); no cluster answers there |
| two replicas, of which one dies under a job | \
run: [`test_two_replicas.py`](../tests/faults/test_two_replicas.py); two servers with the same rows, without \
replication between them |
| workers on machines of their own, a network that breaks in two, a power cut | not run |
| YARN, Kubernetes, a master in reserve | not run |
| cluster mode | not run, and refused in a task |
| more than two workers | not run |
| a table of 1 billion rows a day | not run: computed above from smaller ones |
"""


def page(header: str, record: Path = RECORD, results: Path = RESULTS) -> str:
    """docs/scaling.md. header: who makes it; record: of bench.scaling, which may be missing; results: of the bench."""
    found = _Scaling.model_validate_json(record.read_text(encoding="utf-8")) if record.exists() else None
    ours = Results.model_validate_json(results.read_text(encoding="utf-8")).of("offload")
    return "\n".join(["# Past one machine\n", header, _BEFORE, *_measured(found), *_billion(ours, found), _AFTER])


def _spread(figures: Sequence[float], form: str = "{:,.0f}") -> str:
    return f"{form.format(median(figures))} ({form.format(min(figures))}–{form.format(max(figures))})"


def _measured(found: _Scaling | None) -> list[str]:
    title = "## One worker and two, measured\n"
    if found is None:
        return [title, "Not measured yet: `python -m bench.scaling` does, in some minutes.\n"]
    one, two = found.rates(1), found.rates(2)
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    busy = [run.clickhouse_cpu_s / run.seconds for run in found.runs if run.workers == 2]
    return [
        title,
        f"`python -m bench.scaling`, {found.made}: {found.rows:,} bronze trades in {found.runs[0].slices} slices and"
        f" two lanes, on standalone clusters of workers with one core each, {found.rounds} rounds in turn, median"
        f" (min–max). Everything runs on one machine of {found.cores} cores, so the servers are put at a distance: each"
        f" connection to ClickHouse and to the store carries {found.link.mb_per_s:g} MB a second, and each byte comes"
        f" {found.link.latency_ms:g} ms late. So neither server is the limit, and what is compared is how well two"
        " workers share a job. Seconds are the job's own, from when its workers are there until the commit returned.\n",
        "| | one worker | two workers |",
        "| --- | --- | --- |",
        f"| rows/s | {_spread(one)} | {_spread(two)} |",
        f"| of the same round | | {_spread(ratios, '{:.2f}×')} |",
        f"| cores that ClickHouse kept busy | | {_spread(busy, '{:.2f}')} |",
        "",
        f"The machine's load average was {_spread([run.load for run in found.runs], '{:.1f}')} when the runs began;"
        f" above {found.cores} other work takes part of its cores.\n",
    ]


def _billion(ours: Series, found: _Scaling | None) -> list[str]:
    near = ours.rows_per_s.median
    cpu_s = ours.spread(lambda run: run.server_cpu_s).median * DAY_ROWS / ours.rows
    row_bytes = ours.spread(lambda run: run.bytes).median / ours.rows
    inflow, a_run = DAY_ROWS / DAY_S, DAY_ROWS * RUN_S / DAY_S
    backlog = inflow * OUTAGE_S
    needed = backlog / CATCH_UP_S + inflow
    files = math.ceil(a_run / SliceLimits.model_fields["rows"].default)
    plan_rows = PlanLimits.model_fields["rows"].default
    lines = [
        "## A table of 1 billion rows a day\n",
        f"{inflow:,.0f} rows a second. Computed, for rows like bronze trades ({row_bytes:.0f} bytes each in Parquet),"
        f" from [the bench](performance.md): two cores that ClickHouse and the store share with the job copied"
        f" {ours.rows / 1e6:g} M of them at {near:,.0f} rows/s.\n",
        "| | |",
        "| --- | --- |",
        f"| a run, every {RUN_S // 60} minutes | {a_run / 1e6:.1f} M rows, {files} files or more, one commit |",
        f"| copying it, two cores beside the servers | {a_run / near:,.0f} s, {100 * a_run / near / RUN_S:.1f} % of the"
        " time |",
        f"| ClickHouse's own work | {cpu_s:,.0f} CPU seconds a day, {cpu_s / DAY_S:.3f} cores on average |",
        f"| the lake | {row_bytes * DAY_ROWS / 1e9:,.0f} GB a day, {DAY_S // RUN_S * files:,} files or more, before"
        " compaction |",
        f"| the ledger | a row per window, {DAY_S // WINDOW_S} a day with windows of five minutes, however many rows |",
        f"| after {OUTAGE_S // 3600} hours without runs | {backlog / 1e6:,.0f} M rows wait,"
        f" {math.ceil(backlog / plan_rows)} plans of at most {plan_rows / 1e6:,.0f} M rows (`plan.rows`), which follow"
        " each other |",
        f"| to make that good within an hour, while rows go on coming | {needed:,.0f} rows/s: {needed / near:.2f} times"
        " what two cores copied |",
    ]
    if found is not None:
        far = median(found.rates(2)) / 2
        cores = math.ceil(needed / far)
        lines.append(
            f"| the same with servers as far as in the measurement above, {far:,.0f} rows/s a core |"
            f" {cores} cores of workers, `slice.concurrency: {cores}`, if it went on like that: not tried |"
        )
    lines += [
        "",
        "These are the copies alone: each run adds the start of Airflow's tasks and of Spark, and Spark on a cluster"
        " the start of its executors. Cores beyond the first two are for catching up, and for servers that give each"
        " connection little: there `slice.concurrency` and cores make up for it, as long as ClickHouse and the store"
        " carry so many queries at a time. Rows of other tables are wider: `bin/offload run` says the rows a second of"
        " yours.",
    ]
    return lines
