"""`offload-overview`: all tables on one page. Is every row safe, how far behind, what broke, what does it cost."""

from __future__ import annotations

from monitoring import conditions as c
from monitoring.alerts import alerts
from monitoring.dashboards.expiry import colours, expires
from monitoring.dashboards.expressions import (
    DAG_OF_TABLE,
    SELECTED,
    any_of,
    differing,
    firing,
    not_safe,
    of_tables,
)
from monitoring.dashboards.parts import GREEN, NEXT, ORANGE, RED, Maker, Page, Panel, Query, Row, tables
from monitoring.panels import OVERVIEW, Overview
from monitoring.records import burns, known
from monitoring.values import Values

TABLES = f"offload:tables{{{SELECTED}}}"
OPEN_TABLE = {
    "title": "Open ${__data.fields.table}",
    "url": "/d/offload-table?var-table=${__data.fields.table}&${datasource:queryparam}&${__url_time_range}",
}


def overview(v: Values) -> Page:
    """The dashboard of all tables."""
    make = Maker(v, OVERVIEW)
    rows = (
        Row("Is every row safe?", (*_safe(make), *_heard(make))),
        Row("How far behind?", (*_behind(make), _worst(make), _lag(make))),
        Row("What broke?", _broke(make)),
        Row("What does it cost?", _cost(make)),
    )
    about = "All tables: is every row safe, how far behind, what broke, what it costs. Worst tables first."
    return make.page(OVERVIEW, "Offload: all tables", about, (tables(many=True),), rows)


def _safe(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    danger = any_of(c.ttl_critical(v).expr, c.mismatch(v).expr, c.regressed(v).expr, c.guard_refused().expr)
    return (
        make.words(
            Overview.SAFE,
            "Is every row safe?",
            8,
            Query(not_safe(danger)),
            "Yes",
            "tables in danger or unknown",
            "Tables of which rows are about to expire unshipped, or did, whose two sides differ, whose TTL merges"
            " ClickHouse does not stop for the guard, or whose watermark went back:"
            " the alerts that nothing silences. Also those that no run has looked at since the metrics began."
            f" {NEXT}the table at the top of the list below, then its runbook.",
            height=5,
        ),
        expires(
            make,
            Overview.EXPIRES,
            "The first unshipped row expires in",
            SELECTED,
            f", the worst table. {colours(v)}. {NEXT}"
            "`bin/offload status` names the table; mend what holds it up, or stop its TTL merges, in time.",
        ),
        make.words(
            Overview.AGREE,
            "Do ClickHouse and Iceberg agree?",
            8,
            Query(f"sum({differing(SELECTED)})"),
            "Yes",
            "windows differ",
            "Windows whose rows or content hash differ between ClickHouse and Iceberg, as the last run or"
            " `bin/offload verify` left them, or whose rows expired before they were shipped."
            f" {NEXT}`bin/offload verify TABLE` lists them, `bin/offload reconcile TABLE` ships what is missing.",
            height=5,
        ),
    )


def _heard(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    silent = c.not_since_start(v).expr
    believe = (c.scheduler_down(v), c.dag_processor_down(v), c.import_errors(v), c.pipeline_broken(v))
    parts = " or ".join(f'label_replace({one.expr}, "look", "{i}", "", "")' for i, one in enumerate(believe))
    return (
        make.words(
            Overview.HEARD,
            "Is every table heard of?",
            8,
            Query(f"count({silent}) or count(offload:tables) * 0"),
            "Yes",
            "tables never offloaded",
            "Configured tables without one good run since the metrics began, or of which nothing is known."
            f" {NEXT}`bin/offload status` shows which; unpause its DAG in Airflow or look at its failed run.",
        ),
        make.words(
            Overview.BEYOND,
            "Will a run ship every row?",
            8,
            Query(f"sum({known('offload_late_rows_beyond_horizon', chosen=SELECTED)})"),
            "Yes",
            "rows came too late",
            "Rows that came after their window was shipped and after the horizon: no scheduled run looks there any"
            f" more. {NEXT}`bin/offload reconcile TABLE` ships them; a longer `horizon` in the spec keeps it from"
            " happening again.",
        ),
        make.words(
            Overview.BELIEVE,
            "Can this page be believed?",
            8,
            Query(f"count({parts}) or vector(0)"),
            "Yes",
            "parts are down",
            "Airflow's scheduler and DAG processor, DAG files that do not import, and the way of the metrics. While one"
            f" is down, the numbers here are old. {NEXT}the page `Airflow and metrics`, linked at the top.",
        ),
    )


def _behind(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    last = burns(v, "freshness")[-1].long
    return (
        make.words(
            Overview.LATE,
            "Is a table too late?",
            6,
            Query(of_tables(c.lag_critical(v).expr, "offload_lag_minutes")),
            "No",
            "tables too late",
            f"Tables over their lag limit all through {v.text('lag_critical_trough')}: two runs or more did not land."
            f" {NEXT}open the worst table below, then the last run of its DAG.",
        ),
        make.number(
            Overview.TROUGH,
            "Lag of the worst table at its best",
            6,
            Query(f"max(offload:lag_trough_minutes{{{SELECTED}}})"),
            "m",
            f"The least lag of the last {v.text('lag_elevated_trough')}, the worst table. Lag is a sawtooth: what"
            " counts is how far it falls after a run. A table's own limit (`alerts.lag`) is in the list below."
            f" {NEXT}`bin/offload plan TABLE` shows what waits.",
            steps=((None, GREEN), (v.minutes("lag_elevated"), ORANGE), (v.minutes("lag_critical"), RED)),
        ),
        make.words(
            Overview.STANDS,
            "Does a watermark stand still?",
            6,
            Query(of_tables(c.watermark_stale(v).expr, "offload_lag_minutes")),
            "No",
            "watermarks stand still",
            f"Tables over their lag limit whose watermark has not moved for {v.text('watermark_stale')}."
            f" {NEXT}the log of the last `update_watermark`, and the runbook.",
        ),
        make.number(
            Overview.FRESH,
            f"Minutes within the lag limit, {last}",
            6,
            Query(f"1 - avg(offload:freshness_errors:{last}{{{SELECTED}}})"),
            "percentunit",
            f"The freshness objective, mean of the tables: {v.number('freshness_objective'):.1%} of the minutes within"
            f" the lag limit. Red: the budget is overdrawn. {NEXT}the tables below that are over 100 % of their limit.",
            steps=((None, RED), (v.number("freshness_objective"), GREEN)),
        ),
    )


def _worst(make: Maker) -> Panel:
    v = make.v
    share = v.seconds("lag_elevated") / v.seconds("lag_critical")
    reached = (
        f"offload:lag_trough_minutes{{{SELECTED}}} / on (table) offload:lag_objective_minutes",
        # a headroom that is used up would turn the sign
        f"offload:ttl_objective_seconds / on (table) clamp_min(offload:ttl_headroom_seconds{{{SELECTED}}}, 1)",
        f"{differing(SELECTED)} > bool 0",
        f"{TABLES} unless on (table) offload_last_success_timestamp",
    )
    parts = " or ".join(f'label_replace({one}, "of", "{i}", "", "")' for i, one in enumerate(reached))
    danger = f"label_replace(clamp_max(max by (table) ({parts}), 10), {DAG_OF_TABLE})"
    failed = (
        f'sum by (table) (increase(offload_cycles_total{{status="failure",{SELECTED}}}[{v.text("failures_within")}]))'
    )
    columns = {
        "of its limit": Query(danger),
        "lag": Query(f"offload_lag_minutes{{{SELECTED}}}"),
        "TTL headroom": Query(
            f"offload:ttl_headroom_seconds{{{SELECTED}}}", quiet="no row that is not in Iceberg has a TTL that runs"
        ),
        "rows that wait": Query(f"max by (table) (offload_pending_rows{{{SELECTED}}})"),
        f"failed in {v.text('failures_within')}": Query(failed),
        "last good run": Query(f"offload:last_success_age_seconds{{{SELECTED}}}"),
    }
    coloured = {"type": "color-background"}
    limit = {"mode": "absolute", "steps": [{"value": None, "color": GREEN}]}
    limit["steps"] += [{"value": round(share, 4), "color": ORANGE}, {"value": 1, "color": RED}]  # type: ignore[operator]
    dag = {
        "title": "Its DAG in Airflow",
        "url": f"{v.text('airflow')}/dags/${{__data.fields.dag}}",
        "targetBlank": True,
    }
    overrides: dict[str, dict[str, object]] = {
        "table": {"links": [OPEN_TABLE, dag]},
        "of its limit": {"unit": "percentunit", "decimals": 0, "thresholds": limit, "custom.cellOptions": coloured},
        "lag": {"unit": "m", "decimals": 0},
        "TTL headroom": {"unit": "s"},
        "rows that wait": {"unit": "short"},
        f"failed in {v.text('failures_within')}": {"unit": "short", "decimals": 0},
        "last good run": {"unit": "s"},
    }
    return make.grid(
        Overview.WORST,
        "Worst tables first",
        24,
        columns,
        overrides,
        "The 25 tables nearest to a limit. `of its limit` is the worst of: least lag against the table's lag limit,"
        " the least TTL headroom that is allowed against the one it has, 100 % for windows that differ or a table that"
        f" never offloaded. {NEXT}a click on a table opens its page or its DAG.",
        hidden=("dag",),
        sort="of its limit",
        no_value="",
        height=9,
    )


def _lag(make: Maker) -> Panel:
    v = make.v
    worst = f"topk(5, offload:lag_trough_minutes{{{SELECTED}}} @ end())"
    return make.graph(
        Overview.LAG,
        "Lag of the five worst tables",
        24,
        (Query(f"offload_lag_minutes{{{SELECTED}}} and on (table) {worst}", "{{table}}"),),
        "m",
        "A sawtooth that falls back near zero is healthy; one whose lowest points rise is falling behind. The lines are"
        f" the limits of a table that sets none. {NEXT}open the table and compare its cycle time with its schedule.",
        limits=((None, "transparent"), (v.minutes("lag_elevated"), ORANGE), (v.minutes("lag_critical"), RED)),
    )


def _broke(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    runbook = {
        "title": "Runbook of ${__data.fields.alertname}",
        "url": f"{v.text('runbooks')}/${{__data.fields.runbook}}",
        "targetBlank": True,
    }
    return (
        make.grid(
            Overview.FIRING,
            "Alerts that fire now",
            12,
            {"firing": Query(firing(alerts(v)), quiet="no alert fires")},
            {"alertname": {"links": [runbook]}, "table": {"links": [OPEN_TABLE]}},
            "Every alert that fires, also one that Alertmanager silences or inhibits."
            f" {NEXT}a click on its name opens its runbook, a click on the table that table's page.",
            hidden=("firing",),
            no_value="No alert fires",
        ),
        make.words(
            Overview.FAILING,
            "Does a table fail run after run?",
            6,
            Query(of_tables(c.consecutive_failures(v).expr)),
            "No",
            "tables keep failing",
            f"Tables with {v.number('failures'):g} failed runs one after the other and no good one."
            f" {NEXT}`bin/offload errors ID` with the id at the end of the failed task's log.",
            height=8,
        ),
        make.number(
            Overview.SUCCESS,
            f"Runs that end well, worst table, {v.text('success_rate_within')}",
            6,
            Query(f"min(offload:success_ratio{{{SELECTED}}})"),
            "percentunit",
            f"Under {v.number('success_rate'):.0%}, with {v.number('success_rate_least_runs'):g} runs or more, is an"
            f" alert. {NEXT}the table's page names the step that fails.",
            steps=((None, RED), (v.number("success_rate"), GREEN)),
            height=8,
        ),
        make.bars(
            Overview.ERRORS,
            "Errors by id",
            12,
            Query(
                "sum by (error) (increase(offload_errors_by_id_total[$__range])) > 0.5", "{{error}}", "no try failed"
            ),
            "Failed tries in the time shown, by error id; `unknown` is not one of ours."
            f" {NEXT}`bin/offload errors ID` says what happened and what to type.",
        ),
        make.graph(
            Overview.RUNS,
            "Runs by how they ended, each 15 min",
            12,
            (
                Query(
                    f"sum by (status) (increase(offload_cycles_total{{{SELECTED}}}[$__interval]))",
                    "{{status}}",
                ),
            ),
            "short",
            "A gap means that nothing ran: paused DAGs, or a scheduler that is down."
            f" {NEXT}`Can this page be believed?` above tells the two apart.",
            bars=True,
        ),
    )


def _cost(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    within = v.text("throughput_within")
    rows = f"sum(increase(offload_rows_total{{{SELECTED}}}[{within}]))"
    quiet = f"no row was shipped within {within}, or only one job ran since the exporter started"
    return (
        make.number(
            Overview.JOB_TIME,
            "Job time per million rows",
            6,
            Query(
                f"1e6 * (sum(increase(offload_duration_seconds_sum{{{SELECTED}}}[{within}])) > 0) / ({rows} > 0)",
                "",
                quiet,
            ),
            "s",
            "Seconds that the Spark jobs ran, by the clock, for a million rows: reading, encoding, checking and"
            " committing, without their start. CPU time is not measured."
            f" {NEXT}many small jobs cost most; a longer schedule ships the same rows in fewer.",
            no_value="Too little shipped",
        ),
        make.number(
            Overview.PARQUET,
            "Parquet per million rows",
            6,
            Query(f"1e6 * sum(increase(offload_bytes_total{{{SELECTED}}}[{within}])) / ({rows} > 0)", "", quiet),
            "decbytes",
            f"What a million rows take in the lake as they are written. {NEXT}a sudden rise is a new column or one that"
            " compresses badly; compare the tables' pages.",
            no_value="Too little shipped",
        ),
        make.number(
            Overview.ROWS,
            "Rows into Iceberg, mean of 1 h",
            6,
            Query(f"sum(offload:rows:rate1h{{{SELECTED}}})"),
            "suffix: rows/s",
            f"All tables together. {NEXT}zero while rows wait means that no run lands: see `What broke?`.",
        ),
        make.number(
            Overview.FAILED,
            "Failed tries, 1 h",
            6,
            Query(f"round(sum(increase(offload_errors_total{{{SELECTED}}}[1h])))"),
            "short",
            f"Tries that failed cost time and moved nothing. {NEXT}`Errors by id` above.",
            named={0: ("None", GREEN)},
        ),
        make.graph(
            Overview.DEAREST,
            "Job time per million rows, the five dearest tables",
            24,
            (Query(_dearest(within), "{{table}}", quiet),),
            "s",
            f"Which tables the time goes to, mean of {within}. Small tables are dear by nature: each job has a fixed"
            f" part. {NEXT}for a table that became dearer, its page shows whether cycles or rows changed.",
        ),
    )


def _dearest(within: str) -> str:
    time = f"sum by (table) (increase(offload_duration_seconds_sum{{{SELECTED}}}[{within}]))"
    rows = f"sum by (table) (increase(offload_rows_total{{{SELECTED}}}[{within}]))"
    return f"topk(5, 1e6 * ({time} > 0) / ({rows} > 0))"
