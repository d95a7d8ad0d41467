"""What each alert asks Prometheus, for how long, and the same in words."""

from __future__ import annotations

from dataclasses import dataclass

from monitoring.records import failures_rare, known
from monitoring.values import Values, seconds

AT_ONCE = "0s"
UNSCRAPED = "statsd_exporter can not be scraped"
"""The one broken part of the metrics pipeline that makes other alerts worthless; Alertmanager inhibits by it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`when`: the condition in words; `wait`: how long it must hold, a Prometheus duration."""

    expr: str
    when: str
    wait: str = AT_ONCE


def lag_critical(v: Values) -> Condition:
    trough = v.text("lag_critical_trough")
    return Condition(
        f"min_over_time(offload_lag_minutes[{trough}]) > on (table) offload:lag_objective_minutes",
        f"lag over {v.text('lag_critical')} (or `alerts.lag`) all through {trough}: never after one failed run",
        v.text("lag_for"),
    )


def lag_elevated(v: Values) -> Condition:
    share = v.seconds("lag_elevated") / v.seconds("lag_critical")
    trough = v.text("lag_elevated_trough")
    above = f"offload:lag_trough_minutes > on (table) (offload:lag_objective_minutes * {share:.4g})"
    return Condition(
        f"({above}) <= on (table) offload:lag_objective_minutes",
        f"least lag of {trough}, of two intervals with a longer schedule, over {v.text('lag_elevated')} and not over"
        f" {v.text('lag_critical')} (or {share:.0%} of `alerts.lag`)",
        v.text("lag_for"),
    )


def falling_behind(v: Values) -> Condition:
    usual, growth = v.text("falling_behind_step"), v.minutes("falling_behind_growth")

    def grew(step: str) -> str:
        trough, more = "offload:lag_trough_minutes", growth * seconds(step) / seconds(usual)
        twice = f"{2 * seconds(step)}s"
        return (
            f"{trough} > {trough} offset {step} + {more:g} and"
            f" {trough} offset {step} > {trough} offset {twice} + {more:g}"
        )

    rarely = v.schedules("lag_slow")
    expr = grew(usual)
    if rarely:
        expr = f"({expr} unless on (table) (offload:interval_seconds > {v.seconds('interval')}))" + "".join(
            f" or on (table) ({grew(one.use)} and on (table) ({one.among}))" for one in rarely
        )
    words = "".join(f", within {one.use} with a schedule of up to {one.most}" for one in rarely)
    return Condition(
        expr,
        f"least lag grew by more than {v.text('falling_behind_growth')} an hour within {usual}{words}, twice running",
        v.text("lag_for"),
    )


def watermark_stale(v: Values) -> Condition:
    stale, trough = v.text("watermark_stale"), v.text("lag_critical_trough")
    return Condition(
        # the least lag, as LagCritical: with a run an hour or less often, one failed run lifts the peak over the limit
        f"offload_lag_minutes and on (table) (min_over_time(offload_lag_minutes[{trough}])"
        " > on (table) offload:lag_objective_minutes) and on (table)"
        f" (changes(offload:watermark_timestamp_seconds[{stale}]) == 0)"
        # a series that is younger has not stood still for that long
        f" and on (table) (offload:watermark_timestamp_seconds offset {stale})",
        f"watermark unchanged for {stale}, and the lag over its limit all through {trough}: never after one failed run",
        v.text("lag_for"),
    )


def not_since_start(v: Values) -> Condition:
    slow = v.pairs("not_since_start_slow")
    rarely = "".join(f" unless on (table) ({_still_young(seconds(above), known)})" for above, known in slow.items())
    later = "".join(f", {known} with a schedule of more than {above}" for above, known in slow.items())
    # an empty source has no watermark, and so no lag and no expiry: only the age of its last run is left
    idle = (
        "(offload:last_success_age_seconds > on (table) (2 * (offload:interval_seconds > 0)))"
        " unless on (table) watermark_timestamp_seconds"
    )
    return Condition(
        f"offload:tables unless on (table) offload_last_success_timestamp{rarely}"
        f" or on (table) ({idle})"
        " or label_replace(max(offload_tables_configured) - (count(offload:tables) or vector(0)) > 0,"
        ' "table", "some tables", "", "")'
        ' or label_replace(sum(absent(offload_tables_configured > 0)), "table", "every table", "", "")',
        f"a configured table without one success since statsd_exporter started, for {v.text('not_since_start')}{later};"
        " also when the last one of a table without a watermark is two intervals old, when fewer tables report than are"
        " configured, and when none is configured",
        v.text("not_since_start"),
    )


def _still_young(above_s: int, known: str) -> str:
    """Tables with an interval over `above_s` that were declared, or ended a run well, within `known`."""
    interval = "offload_interval_seconds"
    success = f"max_over_time(offload_last_success_timestamp[{known}])"
    return (
        f"max by (table) ({interval}) > {above_s} and on (table)"
        f" ({success} or on (table) ({interval} unless on (table) ({interval} offset {known})))"
    )


def consecutive_failures(v: Values) -> Condition:
    failures, within, none = v.number("failures"), v.text("failures_within"), v.text("failures_no_success")
    pairs = {within: none} | v.pairs("failures_slow")
    counted = 'sum by (table) (increase(offload_cycles_total{{status="{}"}}[{}]))'
    # increase() extrapolates: three runs show as 2.9 to 3.1
    each = [
        f"({counted.format('failure', within)} > {failures - 0.5:g}"
        f" unless on (table) ({counted.format('success', none)} > 0))"
        for within, none in pairs.items()
    ]
    rare = failures_rare(v)
    each += [
        f'(sum by (table) (offload:cycles:{within}{{status="failure"}}) > {failures - 0.5:g}'
        f' unless on (table) (offload:cycles:{within}{{status="success"}} > 0))'
        for within in rare
    ]
    pairs |= {within: within for within in rare}
    words = ", or ".join(f"within {within} and no success within {none}" for within, none in pairs.items())
    return Condition(
        f"({' or on (table) '.join(each)})"
        # a success after the last failure ends it for good, also when no run follows
        " unless on (table) (max by (table) (offload_last_success_timestamp)"
        " > on (table) max by (table) (offload_last_failure_timestamp))",
        f"{failures:g} failed runs {words}",
    )


def success_rate(v: Values) -> Condition:
    within, least = v.text("success_rate_within"), v.number("success_rate_least_runs")
    return Condition(
        f"offload:success_ratio < {v.text('success_rate')}"
        f" and on (table) sum by (table) (increase(offload_cycles_total[{within}])) > {least - 0.5:g}",
        f"fewer than {v.number('success_rate'):.0%} of at least {least:g} runs within {within} ended well",
    )


def burn(v: Values, objective: str, pace: str) -> Condition:
    """Both windows of a pair burn faster than its rate; the short one makes the alert clear soon."""
    budget = 1 - v.number(f"{objective}_objective")
    record = f"offload:{objective}_errors"
    pairs, words = [], []
    for one in v.burns(f"{objective}_{pace}"):
        limit = f"{one.rate * budget:.4g}"
        both = f"{record}:{one.long} > {limit} and on (table) {record}:{one.short} > {limit}"
        if objective == "success":
            # where few runs ended, one that failed is a large share of them
            failed = f'sum by (table) (increase(offload_cycles_total{{status="failure"}}[{one.long}]))'
            both += f" and on (table) {failed} > 1.5"
        pairs.append(f"({both})")
        words.append(f"{one.rate:g} times the allowed rate over {one.long} and {one.short}")
    wait = v.text("freshness_fast_for") if (objective, pace) == ("freshness", "fast") else AT_ONCE
    more = ", and more than one run failed" if objective == "success" else ""
    return Condition(" or on (table) ".join(pairs), f"budget burns at {', or '.join(words)}{more}", wait)


def cycle_too_slow(v: Values) -> Condition:
    return Condition(
        "offload:cycle_seconds > on (table) offload:cycle_objective_seconds",
        f"mean cycle of {v.text('cycle_within')} over {v.text('cycle_too_slow')} (or `alerts.cycle`)",
    )


def cycle_slow(v: Values) -> Condition:
    share = v.seconds("cycle_slow") / v.seconds("cycle_too_slow")
    return Condition(
        f"(offload:cycle_seconds > on (table) (offload:cycle_objective_seconds * {share:.4g}))"
        " <= on (table) offload:cycle_objective_seconds",
        f"mean cycle of {v.text('cycle_within')} over {v.text('cycle_slow')} (or {share:.0%} of `alerts.cycle`)",
    )


def throughput(v: Values) -> Condition:
    rate, rows = v.number("throughput"), v.number("throughput_least_rows")
    return Condition(
        f"offload:job_rows_per_second < {rate:g} and on (table) offload:job_rows > {rows:g}",
        f"under {rate:,.0f} rows/s of job time, where more than {rows:,.0f} rows moved"
        f" within {v.text('throughput_within')}",
    )


def ttl_critical(v: Values) -> Condition:
    return Condition(
        "offload:ttl_headroom_seconds < on (table) offload:ttl_objective_seconds",
        f"the first unshipped row expires within {v.text('ttl_headroom_critical')} (or `alerts.ttl_headroom`)",
    )


def ttl_warning(v: Values) -> Condition:
    times = v.seconds("ttl_headroom_warning") / v.seconds("ttl_headroom_critical")
    return Condition(
        f"(offload:ttl_headroom_seconds < on (table) (offload:ttl_objective_seconds * {times:g}))"
        " >= on (table) offload:ttl_objective_seconds",
        f"the first unshipped row expires within {v.text('ttl_headroom_warning')}"
        f" (or {times:g} times `alerts.ttl_headroom`)",
    )


def mismatch(v: Values) -> Condition:
    found = {
        "offload_mismatched_windows": "windows",
        "offload_verify_mismatched_windows": "windows (seen by verify or reconcile)",
        "offload_windows_expired_unshipped": "windows whose rows expired in ClickHouse before they were shipped",
        "offload_late_rows_beyond_horizon": "rows that came after the horizon",
    }
    return Condition(
        " or ".join(f'label_replace({known(metric)} > 0, "what", "{what}", "", "")' for metric, what in found.items()),
        "a run, `bin/offload verify` or `reconcile` found windows that differ, rows expired before they were shipped,"
        f" or rows came after the horizon, and nothing healed it for {v.text('mismatch_for')}",
        v.text("mismatch_for"),
    )


def late_unknown(v: Values) -> Condition:
    wait = v.text("mismatch_for")
    return Condition(
        f"{known('offload_late_unknown_windows')} > 0",
        f"shipped windows lost rows in ClickHouse, and whether late ones are among the rest is not known, for {wait}",
        wait,
    )


def guard_stopped(v: Values) -> Condition:
    wait = v.text("guard_stopped_for")
    return Condition(
        f"{known('offload_ttl_guard_stopped')} > 0", f"`ttl_guard: stop` has held TTL merges for {wait}", wait
    )


def guard_refused() -> Condition:
    return Condition(
        f"{known('offload_ttl_guard_refused')} > 0",
        "`ttl_guard: stop` wants TTL merges stopped, and ClickHouse goes on deleting rows",
    )


def regressed(v: Values) -> Condition:
    memory = v.text("watermark_memory")
    mark = "max by (table) ({})"
    return Condition(
        f"{mark.format(f'max_over_time(watermark_timestamp_seconds[{memory}])')}"
        f" - {mark.format('watermark_timestamp_seconds != 0')} > 0",
        f"the watermark is before where it was within {memory}",
    )


def maintenance_overdue(v: Values) -> Condition:
    interval = known("offload_maintenance_interval_seconds")
    last = f"({known('offload_maintenance_last_success_timestamp')} > 0)"
    times, never = v.number("maintenance_intervals"), v.pairs("maintenance_never")
    lows = (0, *(seconds(most) for most in never))
    # a table that nobody maintains yet has until then; remembered, or a restart of the exporter would make it new
    known_for = [
        f"({interval} > {low} <= {seconds(most)} and on (table)"
        f' max by (table) (offload:remembered{{metric="offload_maintenance_interval_seconds"}} offset {within}) > 0)'
        for low, (most, within) in zip(lows, never.items(), strict=False)
    ]
    words = ", or ".join(f"{within} with a schedule of up to {most}" for most, within in never.items())
    return Condition(
        f"(time() - {last} > on (table) ({times:g} * ({interval} > 0)))"
        f" or on (table) (({' or '.join(known_for)}) * 0 unless on (table) {last})",
        f"no maintenance ended well for {times:g} intervals of its schedule, or none ever did, known for {words}",
    )


def scheduler_down(v: Values) -> Condition:
    beat, wait = v.text("scheduler_heartbeat"), v.text("scheduler_down_for")
    return Condition('up{job="iceberg-scheduler"} == 0', f"no heartbeat within {beat}, for {wait}", wait)


def dag_processor_down(v: Values) -> Condition:
    within = v.text("dag_processor_heartbeat")
    return Condition(
        f"(sum(increase(airflow_dag_processor_heartbeat_total[{within}]))"
        ' or max(up{job="statsd-exporter"} == 1) * 0) == 0',
        f"no heartbeat within {within}, for {v.text('dag_processor_down_for')}",
        v.text("dag_processor_down_for"),
    )


def import_errors(v: Values) -> Condition:
    wait = v.text("import_errors_for")
    return Condition("max(airflow_dag_import_errors) > 0", f"a DAG file does not import, for {wait}", wait)


def pipeline_broken(v: Values) -> Condition:
    within = v.text("pipeline_within")

    def part(expr: str, name: str) -> str:
        return f'label_replace({expr}, "part", "{name}", "", "")'

    def grew(metric: str) -> str:
        return f"sum(increase({metric}[{within}])) > 0"

    return Condition(
        " or ".join(
            (
                part('sum(absent(up{job="statsd-exporter"} == 1))', UNSCRAPED),
                part('sum(absent(up{job="alertmanager"} == 1))', "Alertmanager can not be scraped"),
                part(f"{refused_lines(within)} > 0", "statsd_exporter refuses or drops lines"),
                part(grew("prometheus_rule_evaluation_failures_total"), "Prometheus fails to evaluate rules"),
                part(grew("prometheus_notifications_dropped_total"), "Prometheus drops notifications"),
            )
        ),
        "the exporter or Alertmanager can not be scraped, lines are refused or dropped, rules fail, or notifications"
        f" are dropped, for {v.text('pipeline_broken_for')}",
        v.text("pipeline_broken_for"),
    )


def refused_lines(within: str) -> str:
    """Lines that statsd_exporter refused, could not read, or never took from its socket; nothing without a scrape."""
    # it has no series of these before the first one, and a sum with nothing is nothing
    late = ("events_conflict", "sample_errors", "udp_packet_drops")
    others = (f"(sum(increase(statsd_exporter_{one}_total[{within}])) or vector(0))" for one in late)
    return " + ".join((f"sum(increase(statsd_exporter_tag_errors_total[{within}]))", *others))


def watchdog() -> Condition:
    return Condition("vector(1)", "always: its silence is the alert")
