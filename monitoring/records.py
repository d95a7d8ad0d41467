"""Recording rules: ages, lag, limits, rates and the two service objectives. All of them by table alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from monitoring.values import Burn, Values


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule. `meaning`: for docs/metrics.md; `slow`: computed at the slow interval."""

    name: str
    expr: str
    meaning: str
    labels: dict[str, str] = field(default_factory=dict)
    slow: bool = False


def records(v: Values) -> tuple[Record, ...]:
    """All recording rules of a profile, in an order in which each uses only earlier ones."""
    return (*_tables(v), *_scheduler(v), *_limits(v), *_rates(v), *_objectives(v))


def _tables(v: Values) -> Iterator[Record]:
    yield Record("offload:tables", "group by (table) (offload_cycles_total)", "1 for every table that was declared")
    yield Record(
        "offload:last_success_age_seconds",
        "time() - max by (table) (offload_last_success_timestamp)",
        "How long ago a run last ended well",
    )
    yield Record(
        "offload:behind_seconds",
        "clamp_min(time() - max by (table) (offload_settle_seconds) - max by (table) (watermark_timestamp_seconds), 0)",
        "now - settle - watermark",
    )
    # before a whole window is over, no settled row can be unshipped; a window of unknown width says nothing
    yield Record(
        "offload_lag_minutes",
        "((offload:behind_seconds >= on (table) max by (table) (offload_window_seconds))"
        " or ((offload:behind_seconds * 0) and on (table) offload_window_seconds)) / 60",
        "now - settle - watermark, 0 while no whole window has passed since; a sawtooth when healthy. Runs that end"
        " well move the watermark over empty windows too: a table with nothing new has no lag only while they do",
    )
    yield Record(
        "offload:lag_trough_minutes",
        f"min_over_time(offload_lag_minutes[{v.text('lag_elevated_trough')}])",
        f"The least lag of the last {v.text('lag_elevated_trough')}",
    )
    yield Record(
        "offload:ttl_headroom_seconds",
        "max by (table) (offload_expiry_timestamp_seconds > 0) - time()",
        "Time until ClickHouse deletes the first row that is not in Iceberg; absent when none expires",
    )


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
        return Record(name, f"(max by (table) ({metric} > 0){unit}) or on (table) ({default})", meaning)

    surplus = f"clamp_min(max by (table) (offload_window_seconds) - {v.seconds('lag_window')}, 0) / 60"
    rarer = f"2 * clamp_min(max by (table) (offload_interval_seconds) - {v.seconds('interval')}, 0) / 60"
    yield limit(
        "offload:lag_objective_minutes",
        "offload_lag_objective_seconds",
        # an interval that nobody has announced is the usual one
        f"{surplus} + on (table) ({rarer} or max by (table) (offload_window_seconds) * 0)"
        f" + {v.minutes('lag_critical'):g}",
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
        f"offload:tables * {v.seconds('ttl_headroom_critical')}",
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
    yield Record(
        "offload:cycle_seconds",
        f"sum by (table) (rate(offload_cycle_duration_seconds_sum[{within}]))"
        f" / (sum by (table) (rate(offload_cycle_duration_seconds_count[{within}])) > 0)",
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


def _runs(status: str, within: str) -> str:
    return f'sum by (table) (increase(offload_cycles_total{{status="{status}"}}[{within}]))'


def success_ratio(within: str) -> str:
    """Runs that ended well over all runs, by table; nothing where none ran."""
    return f"{_runs('success', within)} / (sum by (table) (increase(offload_cycles_total[{within}])) > 0)"


def burns(v: Values, objective: str) -> tuple[Burn, ...]:
    """All window pairs of `freshness` or `success`."""
    return (*v.burns(f"{objective}_fast"), *v.burns(f"{objective}_slow"))


def _objectives(v: Values) -> Iterator[Record]:
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
