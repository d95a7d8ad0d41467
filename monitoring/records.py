"""Recording rules: ages, lag, limits, rates and the two service objectives. All of them by table alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from monitoring.values import Burn, Values


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule. `meaning`: for docs/metrics.md; `slow`: at the slow interval; `each`: series a table."""

    name: str
    expr: str
    meaning: str
    labels: dict[str, str] = field(default_factory=dict)
    slow: bool = False
    each: int = 1


REMEMBERED = (
    "watermark_timestamp_seconds",
    "offload_expiry_timestamp_seconds",
    "offload_settle_seconds",
    "offload_window_seconds",
    "offload_interval_seconds",
    "offload_lag_objective_seconds",
    "offload_ttl_headroom_objective_seconds",
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
"""What must not be forgotten with statsd_exporter: a table that does not run says it no second time."""
KEPT = ("offload_maintenance_interval_seconds", "offload_maintenance_last_success_timestamp")
"""What is remembered without an end: nothing says these for as long as a table is neither offloaded nor maintained."""


def records(v: Values) -> tuple[Record, ...]:
    """All recording rules of a profile; each uses those before it, or those of the slow group as it last left them."""
    return (*_memory(v), *_tables(v), *_scheduler(v), *_limits(v), *_rates(v), *_objectives(v))


def known(metric: str, only: str = "", chosen: str = "") -> str:
    """What each table last said, to the running exporter, else to one before it.

    only: a condition of the latter. chosen: a matcher of the tables that are wanted, as `table="k2.t"`; empty: all.
    """
    if metric not in REMEMBERED:
        raise ValueError(f"{metric} is not remembered")
    now, before = (f"{{{chosen}}}", f",{chosen}") if chosen else ("", "")
    return f'(max by (table) ({metric}{now}) or max by (table) (offload:remembered{{metric="{metric}"{before}}}{only}))'


def _memory(v: Values) -> Iterator[Record]:
    # seldom, so that a range of days stays cheap
    yield Record(
        "offload:seen",
        f'max by (table, metric) (label_replace({{__name__=~"{"|".join(REMEMBERED)}",table!=""}},'
        ' "metric", "$1", "__name__", "(.+)"))',
        f"What a table last said of itself, a sample each {v.text('slow_interval')}",
        slow=True,
        each=len(REMEMBERED),
    )
    yield Record(
        "offload:remembered",
        f"last_over_time(offload:seen[{v.text('memory')}])"
        # what is overdue only gets more so: it hands itself on, until the table is retired
        f' or on (table, metric) last_over_time(offload:remembered{{metric=~"{"|".join(KEPT)}"}}[{v.text("memory")}])',
        f"The same, for {v.text('memory')} after statsd_exporter forgot it: a restart of it resolves no alert; of"
        " maintenance until `bin/offload metrics --retire`",
        slow=True,
        each=len(REMEMBERED),
    )


def _tables(v: Values) -> Iterator[Record]:
    yield Record("offload:tables", "group by (table) (offload_cycles_total)", "1 for every table that was declared")
    yield Record(
        "offload:last_success_age_seconds",
        "time() - max by (table) (offload_last_success_timestamp)",
        "How long ago a run last ended well",
    )
    scraped = f'max(avg_over_time(up{{job="statsd-exporter"}}[{v.text("memory_scraped")}])) > 0.5'
    yield Record(
        "offload:watermark_timestamp_seconds",
        f"{known('watermark_timestamp_seconds', f' and on () ({scraped})')} != 0",
        "The watermark, as remembered while a restarted statsd_exporter has none, unless it could not be scraped for"
        f" half of {v.text('memory_scraped')}; absent after `bin/offload metrics --retire`",
    )
    yield Record("offload:window_seconds", known("offload_window_seconds"), "The width of the windows, as remembered")
    yield Record(
        "offload:interval_seconds",
        f"{known('offload_interval_seconds')} or offload:window_seconds * 0",
        "The longest time between two runs, as remembered; 0 for a schedule that never comes or that nobody announced",
    )
    yield Record(
        "offload:behind_seconds",
        f"clamp_min(time() - {known('offload_settle_seconds')} - offload:watermark_timestamp_seconds, 0)",
        "now - settle - watermark",
    )
    # before a whole window is over, no settled row can be unshipped; a window of unknown width says nothing
    yield Record(
        "offload_lag_minutes",
        "offload:behind_seconds * (offload:behind_seconds >= bool on (table) offload:window_seconds) / 60",
        "now - settle - watermark, 0 while no whole window has passed since; a sawtooth when healthy. Runs that end"
        " well move the watermark over empty windows too: a table with nothing new has no lag only while they do",
    )
    yield from _troughs(v)
    yield Record(
        "offload:ttl_headroom_seconds",
        f"({known('offload_expiry_timestamp_seconds')} > 0) - time()",
        "Time until ClickHouse deletes the first row that is not in Iceberg; absent when none expires",
    )


def _troughs(v: Values) -> Iterator[Record]:
    """The least lag of two intervals: over half an hour a longer schedule has no trough."""
    usual, within = "offload:lag_trough_minutes", v.text("lag_elevated_trough")
    expr, meaning = f"min_over_time(offload_lag_minutes[{within}])", f"The least lag of the last {within}"
    rarely = v.schedules("lag_slow")
    if rarely:
        each = (
            f"(min_over_time(offload_lag_minutes[{one.use}])"
            # of less than two intervals nothing is known yet
            f" and on (table) (offload_lag_minutes offset {one.use}) and on (table) ({one.among}))"
            for one in rarely
        )
        words = ", ".join(f"{one.use} with a schedule of up to {one.most}" for one in rarely)
        yield Record(
            "offload:lag_trough_slow_minutes",
            " or on (table) ".join(each),
            f"The least lag of the last {words}",
            slow=True,
        )
        expr = (
            f"({expr} unless on (table) (offload:interval_seconds > {v.seconds('interval')}))"
            " or on (table) offload:lag_trough_slow_minutes"
        )
        meaning += f"; {words}; absent with a longer one"
    yield Record(usual, expr, meaning)


def _scheduler(v: Values) -> Iterator[Record]:
    beat = f"max(increase(airflow_scheduler_heartbeat_total[{v.text('scheduler_heartbeat')}]) > bool 0)"
    yield Record(
        "up",
        # unknown, not down, while the exporter itself can not be scraped: another alert says that
        f'{beat} or max(up{{job="statsd-exporter"}} == 1) * 0',
        "1 while Airflow's scheduler sends heartbeats, 0 when it does not, absent while nobody can know",
        {"job": "iceberg-scheduler"},
    )


def _limits(v: Values) -> Iterator[Record]:
    def limit(name: str, metric: str, default: str, unit: str, meaning: str) -> Record:
        own = known(metric) if metric in REMEMBERED else f"max by (table) ({metric})"
        return Record(name, f"(({own} > 0){unit}) or on (table) ({default})", meaning)

    surplus = f"clamp_min(offload:window_seconds - {v.seconds('lag_window')}, 0) / 60"
    rarer = f"2 * clamp_min(offload:interval_seconds - {v.seconds('interval')}, 0) / 60"
    yield limit(
        "offload:lag_objective_minutes",
        "offload_lag_objective_seconds",
        f"{surplus} + on (table) {rarer} + {v.minutes('lag_critical'):g}",
        " / 60",
        "The lag at which a table is late: of its spec, else of values.yaml, more for long windows and schedules",
    )
    yield limit(
        "offload:cycle_objective_seconds",
        "offload_cycle_objective_seconds",
        f"offload:tables * {v.seconds('cycle_too_slow')}",
        "",
        "The mean cycle that is too slow: of the spec, else of values.yaml",
    )
    yield limit(
        "offload:ttl_objective_seconds",
        "offload_ttl_headroom_objective_seconds",
        # a table whose spec broke is not declared any more, and its rows expire all the same
        f"(offload:tables or offload:ttl_headroom_seconds * 0 + 1) * {v.seconds('ttl_headroom_critical')}",
        "",
        "The least TTL headroom: of the spec, else of values.yaml",
    )


def _rates(v: Values) -> Iterator[Record]:
    for what in ("rows", "bytes"):
        yield Record(
            f"offload:{what}:rate1h",
            f"sum by (table) (rate(offload_{what}_total[1h]))",
            f"{what.capitalize()} a second into Iceberg, mean of an hour",
        )
    within = v.text("cycle_within")
    total, count = (f"sum by (table) (offload_cycle_duration_seconds_{end}" for end in ("sum", "count"))
    yield Record(
        "offload:cycle_seconds",
        f"(sum by (table) (rate(offload_cycle_duration_seconds_sum[{within}]))"
        f" / (sum by (table) (rate(offload_cycle_duration_seconds_count[{within}])) > 0))"
        # the first cycle of a histogram is in no rate, and a restart of the exporter makes each table's next the first
        f" or on (table) (({total}) / {count})) unless on (table) {count} offset {within}))",
        f"Mean duration of the cycles of the last {within}",
    )
    within = v.text("throughput_within")
    yield Record(
        "offload:job_rows",
        f"sum by (table) (increase(offload_rows_total[{within}]))",
        f"Rows committed within {within}",
    )
    yield Record(
        "offload:job_rows_per_second",
        f"offload:job_rows / (sum by (table) (increase(offload_duration_seconds_sum[{within}])) > 0)",
        f"Throughput of the jobs of the last {within}",
    )
    yield Record(
        "offload:success_ratio",
        success_ratio(v.text("success_rate_within")),
        f"Share of the runs of the last {v.text('success_rate_within')} that ended well",
    )


def failures_rare(v: Values) -> tuple[str, ...]:
    """The times over which three failed runs of a schedule of hours or days are looked for."""
    return tuple(v.all["failures_rare"])


def _runs(status: str, within: str) -> str:
    return f'sum by (table) (increase(offload_cycles_total{{status="{status}"}}[{within}]))'


def success_ratio(within: str) -> str:
    """Runs that ended well over all runs, by table; nothing where none ran."""
    return f"{_runs('success', within)} / (sum by (table) (increase(offload_cycles_total[{within}])) > 0)"


def burns(v: Values, objective: str) -> tuple[Burn, ...]:
    """All window pairs of `freshness` or `success`."""
    return (*v.burns(f"{objective}_fast"), *v.burns(f"{objective}_slow"))


def _objectives(v: Values) -> Iterator[Record]:
    for window in failures_rare(v):
        yield Record(
            f"offload:cycles:{window}",
            f"sum by (table, status) (increase(offload_cycles_total[{window}]))",
            f"Runs that ended within {window}, by status",
            slow=True,
            each=2,
        )
    yield Record(
        "offload:fresh",
        "offload_lag_minutes <= bool on (table) offload:lag_objective_minutes",
        "1 while a table is within its lag limit: the freshness objective counts this",
    )
    for window in sorted({w for b in burns(v, "freshness") for w in (b.long, b.short)}):
        yield Record(
            f"offload:freshness_errors:{window}",
            f"1 - avg_over_time(offload:fresh[{window}])",
            f"Share of the last {window} beyond the lag limit",
            slow=True,
        )
    for window in sorted({w for b in burns(v, "success") for w in (b.long, b.short)}):
        yield Record(
            f"offload:success_errors:{window}",
            f"1 - {success_ratio(window)}",
            f"Share of the runs of the last {window} that failed",
            slow=True,
        )
