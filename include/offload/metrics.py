"""What the pipeline says of itself: one registry of metrics, and the emitter that sends them over StatsD.

Every number is a counter, a duration or an instant. Ages, lag and rates are computed later, by recording
rules: a gauge that holds an age freezes when its sender dies, a timestamp grows old by itself.

Tags travel in the InfluxDB style (`offload_rows_total,table=k2.trades`), `statsd_exporter` turns them into
labels. Sending never fails a task: UDP to nobody is silent, and an installation without a port says so once.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from statsd import StatsClient

from include.offload.errors import REGISTRY as ERRORS
from include.offload.model import Action, Outcome, Plan
from include.offload.settings import Settings
from include.offload.spec.interval import interval_s
from include.offload.spec.model import TableSpec

log = logging.getLogger(__name__)

VERSION = "0.1.0"
MAX_NAME = 250
"""Airflow's limit for a metric name with its tags, characters; longer ones are dropped on the way."""
DATAGRAM_BYTES = 1400
"""Fits one Ethernet frame, the size the StatsD documentation recommends for a local network."""
NO_EXPIRY_S = 315_360_000
"""The TTL headroom of a table of which nothing unshipped expires: ten years, since StatsD knows no infinity."""
DURATION_BUCKETS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800)
"""Upper bounds in seconds; the mapping file repeats them, a test compares."""

STEPS = ("check_extent", "offload", "update_watermark")
ACTIONS = ("append", "replace")
STATUSES = ("success", "failure")
RESULTS = ("equal", "differs")

LAKE_WHEN = "before and after the last maintenance"

RETIRED = (
    "watermark_timestamp_seconds",
    "offload_expiry_timestamp_seconds",
    "offload_mismatched_windows",
    "offload_verify_mismatched_windows",
    "offload_windows_expired_unshipped",
    "offload_late_rows_beyond_horizon",
    "offload_late_unknown_windows",
    "offload_ttl_guard_stopped",
    "offload_ttl_guard_refused",
    "offload_maintenance_interval_seconds",
    "offload_maintenance_last_success_timestamp",
)
"""The gauges that keep an alert on a table firing; 0 says of each that there is nothing."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_.\-/+]")


class Kind(StrEnum):
    """What StatsD calls it; a timing becomes a Prometheus histogram in seconds."""

    COUNTER = "counter"
    GAUGE = "gauge"
    TIMING = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `labels` beside the value; `zero`: the label values a counter starts with, per table or alone."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    zero: tuple[Mapping[str, str], ...] = ()


REGISTRY: dict[str, Metric] = {
    m.name: m
    for m in (
        # the installation
        Metric("offload_info", Kind.GAUGE, "1", "Always 1; the label says which version reports", ("version",)),
        Metric("offload_tables_configured", Kind.GAUGE, "tables", "Table specs that parsed"),
        Metric(
            "offload_errors_by_id_total",
            Kind.COUNTER,
            "errors",
            "Failed tries of a task by OFL error id, over all tables",
            ("error",),
            tuple({"error": id} for id in (*ERRORS, "unknown")),
        ),
        # a table's runs
        Metric(
            "offload_cycles_total",
            Kind.COUNTER,
            "runs",
            "Ended DAG runs of a table by status; a cleared run counts again",
            ("table", "status"),
            tuple({"status": s} for s in STATUSES),
        ),
        Metric(
            "offload_errors_total",
            Kind.COUNTER,
            "errors",
            "Failed tries of a task by step",
            ("table", "step"),
            tuple({"step": s} for s in STEPS),
        ),
        Metric(
            "offload_last_success_timestamp", Kind.GAUGE, "seconds", "When a run last ended well, Unix time", ("table",)
        ),
        Metric(
            "offload_last_failure_timestamp", Kind.GAUGE, "seconds", "When a try last failed, Unix time", ("table",)
        ),
        Metric(
            "offload_cycle_duration_seconds",
            Kind.TIMING,
            "seconds",
            "From the start of check_extent to the end of update_watermark",
            ("table",),
        ),
        # what a run shipped; counted once a plan, whatever is cleared and run again
        Metric("offload_rows_total", Kind.COUNTER, "rows", "Rows committed to Iceberg", ("table",), ({},)),
        Metric("offload_bytes_total", Kind.COUNTER, "bytes", "Bytes of Parquet committed", ("table",), ({},)),
        Metric("offload_files_total", Kind.COUNTER, "files", "Parquet files committed", ("table",), ({},)),
        Metric(
            "offload_windows_total",
            Kind.COUNTER,
            "windows",
            "Windows committed, appended for the first time or replaced because their content changed",
            ("table", "action"),
            tuple({"action": a} for a in ACTIONS),
        ),
        Metric(
            "offload_late_rows_total",
            Kind.COUNTER,
            "rows",
            "Rows that reached ClickHouse after their window was shipped, healed by a replace",
            ("table",),
            ({},),
        ),
        Metric(
            "offload_duration_seconds",
            Kind.TIMING,
            "seconds",
            "The offload job: read, encode, audit and commit",
            ("table",),
        ),
        Metric(
            "offload_rows_per_second", Kind.GAUGE, "rows/s", "Throughput of the last job that committed", ("table",)
        ),
        # where a table stands
        Metric(
            "watermark_timestamp_seconds",
            Kind.GAUGE,
            "seconds",
            "Every window that ended before this instant was offloaded or seen empty, Unix time; 0 for a table that was"
            " retired",
            ("table",),
        ),
        Metric("offload_settle_seconds", Kind.GAUGE, "seconds", "The settle time of the table's spec", ("table",)),
        Metric("offload_window_seconds", Kind.GAUGE, "seconds", "The width of the table's windows", ("table",)),
        Metric(
            "offload_interval_seconds",
            Kind.GAUGE,
            "seconds",
            "The longest time between two runs of the table's schedule; 0 for one that never comes",
            ("table",),
        ),
        Metric(
            "offload_lag_objective_seconds", Kind.GAUGE, "seconds", "`alerts.lag` of the spec, 0 without", ("table",)
        ),
        Metric(
            "offload_cycle_objective_seconds",
            Kind.GAUGE,
            "seconds",
            "`alerts.cycle` of the spec, 0 without",
            ("table",),
        ),
        Metric(
            "offload_ttl_headroom_objective_seconds",
            Kind.GAUGE,
            "seconds",
            "`alerts.ttl_headroom` of the spec, 0 without",
            ("table",),
        ),
        Metric("offload_pending_windows", Kind.GAUGE, "windows", "Settled windows that wait to be shipped", ("table",)),
        Metric("offload_pending_rows", Kind.GAUGE, "rows", "Rows in the pending windows", ("table",)),
        Metric(
            "offload_mismatched_windows",
            Kind.GAUGE,
            "windows",
            "Windows that differ between ClickHouse and Iceberg and that the last run did not heal",
            ("table",),
        ),
        Metric(
            "offload_verify_mismatched_windows",
            Kind.GAUGE,
            "windows",
            "Windows in which `bin/offload verify` or `reconcile` found a difference, until one of them looks at"
            " the same windows and finds none; the ledger keeps them, and every run sends their number again",
            ("table",),
        ),
        Metric(
            "offload_windows_expired_unshipped",
            Kind.GAUGE,
            "windows",
            "Windows whose rows expired in ClickHouse before they were shipped, until `bin/offload accept-loss`",
            ("table",),
        ),
        Metric(
            "offload_expiry_timestamp_seconds",
            Kind.GAUGE,
            "seconds",
            "When ClickHouse deletes the first row that may not be in Iceberg, Unix time; 0 when none of them expires",
            ("table",),
        ),
        Metric(
            "offload_ttl_headroom_seconds",
            Kind.GAUGE,
            "seconds",
            "Time until that first expiry when the last run looked, ten years when nothing expires;"
            " it freezes between runs, so alert on the timestamp",
            ("table",),
        ),
        Metric(
            "offload_ttl_guard_stopped",
            Kind.GAUGE,
            "1",
            "1 while the TTL guard keeps the TTL merges of the source stopped",
            ("table",),
        ),
        Metric(
            "offload_ttl_guard_refused",
            Kind.GAUGE,
            "1",
            "1 while the TTL guard wants the TTL merges of the source stopped and ClickHouse goes on deleting rows",
            ("table",),
        ),
        # rows that no run ships by itself
        Metric(
            "offload_late_rows_beyond_horizon",
            Kind.GAUGE,
            "rows",
            "Rows that came after their window was shipped and after the horizon; `bin/offload reconcile` ships them",
            ("table",),
        ),
        Metric(
            "offload_late_unknown_windows",
            Kind.GAUGE,
            "windows",
            "Windows that lost rows in ClickHouse, of which the last survey did not look whether late ones are among"
            " the rest: not known whether rows are missing in Iceberg",
            ("table",),
        ),
        Metric(
            "offload_rows_before_start",
            Kind.GAUGE,
            "rows",
            "Rows in ClickHouse that lie before the table's accounting begins and are never offloaded",
            ("table",),
        ),
        Metric(
            "offload_rows_in_future",
            Kind.GAUGE,
            "rows",
            "Rows in ClickHouse whose cursor lies ahead of its clock; offloaded when their window settles",
            ("table",),
        ),
        # verification as a habit
        Metric(
            "offload_verify_windows_total",
            Kind.COUNTER,
            "windows",
            "Windows that verify compared between ClickHouse and Iceberg, by what came of it",
            ("table", "result"),
            tuple({"result": r} for r in RESULTS),
        ),
        Metric(
            "offload_verify_last_timestamp",
            Kind.GAUGE,
            "seconds",
            "When verify last compared windows of the table, whatever came of it, Unix time",
            ("table",),
        ),
        # care for the lake
        Metric(
            "offload_maintenance_runs_total",
            Kind.COUNTER,
            "runs",
            "Ended maintenance runs of a table by status",
            ("table", "status"),
            tuple({"status": s} for s in STATUSES),
        ),
        Metric(
            "offload_maintenance_last_success_timestamp",
            Kind.GAUGE,
            "seconds",
            "When a maintenance of the table last ended well, Unix time",
            ("table",),
        ),
        Metric(
            "offload_maintenance_interval_seconds",
            Kind.GAUGE,
            "seconds",
            "Longest time between two maintenance runs by the spec's schedule; 0 where the spec wants none",
            ("table",),
        ),
        *(
            Metric(f"offload_lake_{name}", Kind.GAUGE, unit, f"{meaning} {LAKE_WHEN}", ("table", "when"))
            for name, unit, meaning in (
                ("files", "files", "Data files of the Iceberg table"),
                ("small_files", "files", "Data files below the size that compaction aims at"),
                ("average_file_bytes", "bytes", "Mean size of a data file"),
                ("delete_files", "files", "Files of row-level deletes"),
                ("snapshots", "snapshots", "Snapshots that the table keeps"),
                ("metadata_bytes", "bytes", "Metadata file, manifest list and manifests of the current snapshot"),
            )
        ),
    )
}


class _Pipe(Protocol):
    def incr(self, stat: str, count: int = 1) -> None: ...
    def gauge(self, stat: str, value: float) -> None: ...
    def timing(self, stat: str, delta: float) -> None: ...
    def send(self) -> None: ...


class Metrics:
    """The emitter of one process. Without `settings.statsd_port` every call does nothing, said once in the log."""

    def __init__(self, settings: Settings) -> None:
        self._client: StatsClient | None = None
        if settings.statsd_port is None:
            log.warning("no metrics: OFFLOAD_STATSD_PORT is not set")
            return
        try:
            self._client = StatsClient(settings.statsd_host, settings.statsd_port, maxudpsize=DATAGRAM_BYTES)
        except socket.gaierror as e:
            log.warning("no metrics: the name %s does not resolve: %s", settings.statsd_host, e)

    # ----- the three kinds -------------------------------------------------------------------------------------

    def count(self, name: str, value: int = 1, **labels: str) -> None:
        """Adds `value` (≥ 0) to a counter of the registry."""
        if value < 0:
            raise ValueError(f"counter {name} can not go down by {value}")
        self._send(Kind.COUNTER, name, value, labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge of the registry. Negative values are set, not subtracted."""
        self._send(Kind.GAUGE, name, value, labels)

    def timing(self, name: str, seconds: float, **labels: str) -> None:
        """Records a duration in seconds in a histogram of the registry."""
        self._send(Kind.TIMING, name, seconds * 1000, labels)

    def _send(self, kind: Kind, name: str, value: float, labels: Mapping[str, str]) -> None:
        stat = stat_name(_checked(name, kind, labels), labels)
        if self._client is None:
            return
        if kind is Kind.COUNTER:
            self._client.incr(stat, value)
        elif kind is Kind.GAUGE:
            self._client.gauge(stat, value)
        else:
            self._client.timing(stat, value)

    # ----- what the steps say ----------------------------------------------------------------------------------

    def declare(self, tables: Iterable[str], *, configured: int | None = None) -> None:
        """Sends every counter of these tables as 0, so that `increase()` sees the first event.

        configured: how many table specs parsed; None when the caller does not know them all.
        """
        if self._client is None:
            return
        pipe: _Pipe = self._client.pipeline()
        pipe.gauge(stat_name(REGISTRY["offload_info"], {"version": VERSION}), 1)
        if configured is not None:
            pipe.gauge("offload_tables_configured", configured)
        alone = [m for m in REGISTRY.values() if m.kind is Kind.COUNTER and "table" not in m.labels]
        per_table = [m for m in REGISTRY.values() if m.kind is Kind.COUNTER and "table" in m.labels]
        for metric in alone:
            for labels in metric.zero:
                pipe.incr(stat_name(metric, labels), 0)
        for table in tables:
            for metric in per_table:
                for labels in metric.zero:
                    pipe.incr(stat_name(metric, {"table": table, **labels}), 0)
        pipe.send()

    def announce(self, specs: Iterable[TableSpec], *, configured: int | None = None) -> None:
        """Declares these tables and sends what their specs fix: settle time, window, interval, limits of alerts."""
        chosen = tuple(specs)
        self.declare([spec.identity for spec in chosen], configured=configured)
        for spec in chosen:
            self.gauge("offload_settle_seconds", spec.settle_us / 1e6, table=spec.identity)
            self.gauge("offload_window_seconds", spec.window_us / 1e6, table=spec.identity)
            self.gauge("offload_interval_seconds", interval_s(spec.schedule), table=spec.identity)
            care_s = interval_s(spec.maintenance.schedule) if spec.maintenance.enabled else 0
            self.gauge("offload_maintenance_interval_seconds", care_s, table=spec.identity)
            limits = spec.alerts
            self.gauge("offload_lag_objective_seconds", limits.lag_s or 0, table=spec.identity)
            self.gauge("offload_cycle_objective_seconds", limits.cycle_s or 0, table=spec.identity)
            self.gauge("offload_ttl_headroom_objective_seconds", limits.ttl_headroom_s or 0, table=spec.identity)

    def check(
        self,
        table: str,
        *,
        settle_us: int,
        pending_windows: int,
        pending_rows: int,
        mismatched_windows: int = 0,
        first_expiry_us: int | None = None,
        now_us: int | None = None,
        late_beyond_horizon: int = 0,
        rows_before_start: int = 0,
        rows_in_future: int = 0,
        late_unknown: int = 0,
    ) -> None:
        """What `check_extent` found. `first_expiry_us`: as `limits.expires_us` has it, None never."""
        self.gauge("offload_settle_seconds", settle_us / 1e6, table=table)
        self.gauge("offload_pending_windows", pending_windows, table=table)
        self.gauge("offload_pending_rows", pending_rows, table=table)
        self.gauge("offload_mismatched_windows", mismatched_windows, table=table)
        self.gauge("offload_late_rows_beyond_horizon", late_beyond_horizon, table=table)
        self.gauge("offload_rows_before_start", rows_before_start, table=table)
        self.gauge("offload_rows_in_future", rows_in_future, table=table)
        self.gauge("offload_late_unknown_windows", late_unknown, table=table)
        self.expiry(table, first_expiry_us, now_us)

    def expiry(self, table: str, first_expiry_us: int | None, now_us: int | None = None) -> None:
        """When the first unshipped row expires, None never; now_us: by ClickHouse's clock, else this machine's.

        As `limits.expires_us` has it: rows that came after the last look count too.
        """
        now_s = time.time() if now_us is None else now_us / 1e6
        headroom = NO_EXPIRY_S if first_expiry_us is None else first_expiry_us / 1e6 - now_s
        self.gauge("offload_expiry_timestamp_seconds", (first_expiry_us or 0) / 1e6, table=table)
        self.gauge("offload_ttl_headroom_seconds", round(headroom, 3), table=table)

    def guarded(self, table: str, *, stopped: bool, refused: bool = False) -> None:
        """Whether the TTL guard keeps TTL merges of the source stopped; refused: it should, and ClickHouse goes on."""
        self.gauge("offload_ttl_guard_stopped", int(stopped), table=table)
        self.gauge("offload_ttl_guard_refused", int(refused), table=table)

    def lost(self, table: str, windows: int) -> None:
        """How many windows lost rows before they were shipped, and nobody accepted it yet."""
        self.gauge("offload_windows_expired_unshipped", windows, table=table)

    def shipped(self, table: str, *, rows: int, files: int, bytes: int, seconds: float) -> None:
        """What a job committed. Call it only when this attempt made the commit, not when it found it made."""
        self.count("offload_bytes_total", bytes, table=table)
        self.count("offload_files_total", files, table=table)
        self.timing("offload_duration_seconds", seconds, table=table)
        if rows and seconds > 0:
            self.gauge("offload_rows_per_second", round(rows / seconds, 1), table=table)

    def landed(self, plan: Plan, outcome: Outcome) -> None:
        """What a plan moved. Call it once a plan: when the ledger first records it, whoever does that."""
        actions = {w.window: w for w in plan.windows}
        replaced = [w for w in outcome.windows if w.window in actions and actions[w.window].action is Action.REPLACE]
        late = sum(max(0, w.rows - (actions[w.window].ledger_rows or 0)) for w in replaced)
        self.count("offload_rows_total", outcome.rows, table=plan.table)
        self.count("offload_windows_total", len(outcome.windows) - len(replaced), table=plan.table, action="append")
        self.count("offload_windows_total", len(replaced), table=plan.table, action="replace")
        self.count("offload_late_rows_total", late, table=plan.table)

    def watermark(
        self,
        table: str,
        *,
        watermark_us: int | None,
        pending_windows: int = 0,
        pending_rows: int = 0,
        first_expiry_us: int | None = None,
        cycle_seconds: float | None = None,
    ) -> None:
        """A run that ended well. pending_*: what it left; cycle_seconds: since the start of check_extent."""
        if watermark_us is not None:
            self.gauge("watermark_timestamp_seconds", watermark_us / 1e6, table=table)
        self.gauge("offload_last_success_timestamp", round(time.time(), 3), table=table)
        self.gauge("offload_pending_windows", pending_windows, table=table)
        self.gauge("offload_pending_rows", pending_rows, table=table)
        self.expiry(table, first_expiry_us)
        self.count("offload_cycles_total", table=table, status="success")
        if cycle_seconds is not None:
            self.timing("offload_cycle_duration_seconds", cycle_seconds, table=table)

    def remembered(
        self,
        table: str,
        *,
        watermark_us: int | None,
        last_success_us: int | None,
        first_expiry_us: int | None,
        looked: bool,
        mismatched_windows: int,
        late_beyond_horizon: int,
        late_unknown: int = 0,
    ) -> None:
        """What earlier runs found, instants in µs UTC. `looked`: one of them planned; else its part is unknown."""
        if watermark_us is not None:
            self.gauge("watermark_timestamp_seconds", watermark_us / 1e6, table=table)
        if last_success_us is not None:
            self.gauge("offload_last_success_timestamp", last_success_us / 1e6, table=table)
        if looked:
            self.gauge("offload_mismatched_windows", mismatched_windows, table=table)
            self.gauge("offload_late_rows_beyond_horizon", late_beyond_horizon, table=table)
            self.gauge("offload_late_unknown_windows", late_unknown, table=table)
            self.expiry(table, first_expiry_us)

    def failure(self, table: str, step: str, error_id: str | None, *, final: bool) -> None:
        """A try of `step` failed. `error_id`: `OFL-…`, None for anything else; `final`: no retry follows."""
        self.count("offload_errors_total", table=table, step=step)
        self.count("offload_errors_by_id_total", error=error_id if error_id in ERRORS else "unknown")
        self.gauge("offload_last_failure_timestamp", round(time.time(), 3), table=table)
        if final:
            self.count("offload_cycles_total", table=table, status="failure")

    def maintained(self, table: str, *, success: bool) -> None:
        """A maintenance of the table ended."""
        self.count("offload_maintenance_runs_total", table=table, status="success" if success else "failure")
        if success:
            self.gauge("offload_maintenance_last_success_timestamp", round(time.time(), 3), table=table)

    def lake(self, table: str, when: str, figures: Mapping[str, int]) -> None:
        """The Iceberg table in figures. when: `before` or `after` a maintenance."""
        for name, value in figures.items():
            self.gauge(f"offload_lake_{name}", value, table=table, when=when)

    def verified(self, table: str, windows: int) -> None:
        """How many windows are known to differ by verify and reconcile, as the ledger keeps them."""
        self.gauge("offload_verify_mismatched_windows", windows, table=table)

    def compared(self, table: str, *, equal: int, differing: int) -> None:
        """A verification ended: so many windows were found equal, so many differ."""
        self.count("offload_verify_windows_total", equal, table=table, result="equal")
        self.count("offload_verify_windows_total", differing, table=table, result="differs")
        self.gauge("offload_verify_last_timestamp", round(time.time(), 3), table=table)

    def retire(self, table: str) -> None:
        """Ends what the alerts know of a table that was taken out of the specs: they remember it for days."""
        for metric in RETIRED:
            self.gauge(metric, 0, table=table)

    def close(self) -> None:
        """Closes the socket; the emitter stays usable as one that does nothing."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None:
            self.close()


def _checked(name: str, kind: Kind, labels: Mapping[str, str]) -> Metric:
    metric = REGISTRY[name]
    if metric.kind is not kind:
        raise ValueError(f"{name} is a {metric.kind}, not a {kind}")
    if set(labels) != set(metric.labels):
        raise ValueError(f"{name} has the labels {metric.labels}, not {tuple(labels)}")
    return metric


def stat_name(metric: Metric, labels: Mapping[str, str]) -> str:
    """The StatsD name with its tags, at most 250 characters, ASCII, without what StatsD reads as syntax.

    A value that must be cut ends in a digest of the whole, so that two long names stay two.
    """
    tags = {k: _UNSAFE.sub("_", labels[k]) or "_" for k in metric.labels}
    name = metric.name + "".join(f",{k}={v}" for k, v in tags.items())
    if len(name) <= MAX_NAME:
        return name
    longest = max(tags, key=lambda k: len(tags[k]))
    digest = hashlib.sha256(labels[longest].encode()).hexdigest()[:8]
    keep = len(tags[longest]) - (len(name) - MAX_NAME) - len(digest) - 1
    tags[longest] = f"{tags[longest][:keep]}-{digest}"
    return metric.name + "".join(f",{k}={v}" for k, v in tags.items())


def series(metric: Metric, tables: int) -> int:
    """How many Prometheus series a metric has at most with this many tables."""
    each = len(DURATION_BUCKETS) + 3 if metric.kind is Kind.TIMING else 1  # +Inf, sum and count
    return each * max(1, len(metric.zero)) * (tables if "table" in metric.labels else 1)


def markdown() -> str:
    """The registry as the table of `docs/metrics.md`."""
    head = "| metric | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| `{m.name}` | {m.kind} | {m.unit} | {', '.join(f'`{x}`' for x in m.labels)} | {m.meaning} |\n"
        for m in REGISTRY.values()
    )
