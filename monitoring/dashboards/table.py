"""`offload-table`: one table. The same questions in the same order, and every number against the table's own limit."""

from __future__ import annotations

from monitoring import conditions as c
from monitoring.alerts import alerts
from monitoring.dashboards.expiry import colours, expires
from monitoring.dashboards.expressions import any_of, differing, firing, not_safe, of_tables
from monitoring.dashboards.parts import GREEN, NEXT, ORANGE, RED, Maker, Page, Panel, Query, Row, dag, tables
from monitoring.panels import TABLE, Table
from monitoring.records import burns, known
from monitoring.values import Values

ONE = 'table="$table"'
NEVER_RAN = "no run of this table has ended well yet"


def table(v: Values) -> Page:
    """The dashboard of one table."""
    make = Maker(v, TABLE)
    rows = (
        Row("Is every row of $table safe?", (*_safe(make), *_ledger(make))),
        Row("How far behind is $table?", _behind(make)),
        Row("What broke in $table?", _broke(make)),
        Row("What does $table cost?", _cost(make)),
    )
    about = "One table: is every row safe, how far behind, what broke, what it costs, against its own limits."
    return make.page(TABLE, "Offload: one table", about, (tables(many=False), dag()), rows)


def _safe(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    danger = any_of(c.ttl_critical(v).expr, c.mismatch(v).expr, c.regressed(v).expr, c.guard_refused().expr)
    return (
        make.words(
            Table.SAFE,
            "Is every row safe?",
            8,
            Query(not_safe(danger)),
            "Yes",
            "table in danger or unknown",
            "Whether rows are about to expire unshipped, or did, the two sides differ, ClickHouse does not stop TTL"
            " merges that the guard wants stopped, or the watermark went back; also red when no run has looked at the"
            " table since the metrics began."
            f" {NEXT}the three panels beside and below say which, their corner links to the runbook.",
            height=5,
        ),
        expires(
            make,
            Table.EXPIRES,
            "Its first unshipped row expires in",
            ONE,
            f". {colours(v)}; `alerts.ttl_headroom` in the spec moves the alert. {NEXT}`bin/offload plan TABLE` shows"
            " what waits; trigger the DAG, or stop the table's TTL merges before the time is up.",
        ),
        make.words(
            Table.AGREE,
            "Do ClickHouse and Iceberg agree?",
            8,
            Query(differing(ONE)),
            "Yes",
            "windows differ",
            "Windows whose rows or content hash differ, as the last run or `bin/offload verify` left them, or whose"
            " rows expired before they were shipped."
            f" {NEXT}`bin/offload verify TABLE` lists them, `bin/offload reconcile TABLE` ships what is missing.",
            height=5,
        ),
    )


def _ledger(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    memory = v.text("watermark_memory")
    mark = f"watermark_timestamp_seconds{{{ONE}}}"
    return (
        make.words(
            Table.BACK,
            "Did the watermark go back?",
            4,
            Query(
                f"max(max_over_time({mark}[{memory}])) - max({mark})"
                f" or max(offload_expiry_timestamp_seconds{{{ONE}}}) * 0"
            ),
            "No",
            "seconds back",
            f"How far the watermark is before where it was within {memory}. It must never go back."
            f" {NEXT}pause the DAG, then `bin/offload ledger rebuild TABLE`.",
        ),
        make.words(
            Table.BEYOND,
            "Will a run ship every row?",
            5,
            Query(f"max({known('offload_late_rows_beyond_horizon', chosen=ONE)})"),
            "Yes",
            "rows came too late",
            "Rows that came after their window was shipped and after the horizon: no scheduled run looks there."
            f" {NEXT}`bin/offload reconcile TABLE` ships them.",
        ),
        make.words(
            Table.UNKNOWN,
            "Is every late row known?",
            5,
            Query(f"max({known('offload_late_unknown_windows', chosen=ONE)})"),
            "Yes",
            "windows unknown",
            "Shipped windows that lost rows in ClickHouse, of which nobody could tell whether rows that came late are"
            f" among the rest. {NEXT}`bin/offload status TABLE` says why, `bin/offload verify TABLE` compares.",
        ),
        make.words(
            Table.GUARD,
            "Do TTL merges run?",
            5,
            Query(
                f"max({known('offload_ttl_guard_stopped', chosen=ONE)}"
                f" or label_replace({known('offload_ttl_guard_refused', chosen=ONE)},"
                f' "by", "refused", "", "")) or max(offload:tables{{{ONE}}}) * 0'
            ),
            "Yes",
            "guard at work",
            "Whether `ttl_guard: stop` wants the source's TTL merges stopped so that unshipped rows stay. An alert"
            f" after {v.text('guard_stopped_for')}: nothing expires meanwhile and the disk fills; at once when"
            f" ClickHouse does not obey. {NEXT}ship what waits; the guard lets go by itself.",
        ),
        make.number(
            Table.WATERMARK,
            "Every window before this is in Iceberg",
            5,
            Query(f"max({mark}) * 1000", "", NEVER_RAN),
            "dateTimeAsIso",
            f"The watermark. Downstream may read up to here. {NEXT}when it stands still, see `How far behind?`.",
            no_value="Nothing yet",
        ),
    )


def _behind(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    share = round(v.seconds("lag_elevated") / v.seconds("lag_critical"), 4)
    last = burns(v, "freshness")[-1].long
    trough = f"offload:lag_trough_minutes{{{ONE}}} / on (table) offload:lag_objective_minutes"
    return (
        make.graph(
            Table.LAG,
            "Lag and its limit",
            16,
            (
                Query(f"offload_lag_minutes{{{ONE}}}", "lag", NEVER_RAN),
                Query(f"offload:lag_trough_minutes{{{ONE}}}", f"least of {v.text('lag_elevated_trough')}", NEVER_RAN),
                Query(f"offload:lag_objective_minutes{{{ONE}}}", "limit"),
            ),
            "m",
            "Now less settle time less watermark. A sawtooth under the limit is healthy; the alert fires when even its"
            f" lowest points are over the limit for {v.text('lag_critical_trough')}. {NEXT}the last run of the DAG:"
            " failed, slow, or not started?",
        ),
        make.graph(
            Table.PENDING,
            "Settled windows that wait",
            8,
            (Query(f"max(offload_pending_windows{{{ONE}}})", "windows"),),
            "short",
            "What the last look found unshipped, and 0 after a good run. A rising line: more arrives than is shipped."
            f" {NEXT}`bin/offload plan TABLE`; a shorter schedule, or more slots for Spark.",
        ),
        make.number(
            Table.TROUGH,
            "Least lag, of its limit",
            6,
            Query(trough, "", NEVER_RAN),
            "percentunit",
            f"The least lag of {v.text('lag_elevated_trough')} against this table's limit."
            f" {NEXT}over 100 %: the runbook of the lag alerts.",
            steps=((None, GREEN), (share, ORANGE), (1, RED)),
            no_value="Nothing yet",
        ),
        make.number(
            Table.FRESH,
            f"Minutes within the limit, {last}",
            6,
            Query(f"1 - offload:freshness_errors:{last}{{{ONE}}}", "", NEVER_RAN),
            "percentunit",
            f"The freshness objective: {v.number('freshness_objective'):.1%}. Red: its budget is overdrawn."
            f" {NEXT}the lag above shows when.",
            steps=((None, RED), (v.number("freshness_objective"), GREEN)),
            no_value="Nothing yet",
        ),
        make.words(
            Table.STANDS,
            "Does the watermark stand still?",
            6,
            Query(of_tables(c.watermark_stale(v).expr, "offload_lag_minutes"), quiet=NEVER_RAN),
            "No",
            "watermark stands still",
            f"Over the lag limit, and the watermark has not moved for {v.text('watermark_stale')}."
            f" {NEXT}the log of the last `update_watermark`.",
        ),
        make.number(
            Table.SUCCESS_AGE,
            "Last good run, ago",
            6,
            Query(f"offload:last_success_age_seconds{{{ONE}}}", "", NEVER_RAN),
            "s",
            f"Longer than its schedule means a run is missing. {NEXT}the DAG's runs in Airflow; is it paused?",
            no_value="Never",
        ),
    )


def _broke(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    within = v.text("success_rate_within")
    runbook = {
        "title": "Runbook of ${__data.fields.alertname}",
        "url": f"{v.text('runbooks')}/${{__data.fields.runbook}}",
        "targetBlank": True,
    }
    own = tuple(one for one in alerts(v) if one.dashboard == TABLE)
    return (
        make.grid(
            Table.FIRING,
            "Alerts of this table",
            8,
            {"firing": Query(firing(own, f",{ONE}"), quiet="no alert fires")},
            {"alertname": {"links": [runbook]}},
            f"What fires for this table now. {NEXT}a click on the name opens its runbook.",
            hidden=("firing", "table"),
            no_value="No alert fires",
        ),
        make.graph(
            Table.RUNS,
            "Runs by how they ended, each 15 min",
            8,
            (Query(f"sum by (status) (increase(offload_cycles_total{{{ONE}}}[$__interval]))", "{{status}}"),),
            "short",
            f"{v.number('failures'):g} failures one after the other and no success are an alert. A gap:"
            f" nothing ran. {NEXT}the log of the failed task ends with an id: `bin/offload errors ID`.",
            bars=True,
        ),
        make.graph(
            Table.ERRORS,
            "Failed tries by step, each 15 min",
            8,
            (Query(f"sum by (step) (increase(offload_errors_total{{{ONE}}}[$__interval]))", "{{step}}"),),
            "short",
            "`check_extent`: ClickHouse or the spec; `offload`: Spark, S3 or the catalog; `update_watermark`: the"
            f" catalog or the ledger. {NEXT}that task's log in Airflow.",
            bars=True,
        ),
        make.number(
            Table.SUCCESS,
            f"Runs that end well, {within}",
            12,
            Query(f"offload:success_ratio{{{ONE}}}", "", f"no run within {within}"),
            "percentunit",
            f"Under {v.number('success_rate'):.0%}, with {v.number('success_rate_least_runs'):g} runs or more, is an"
            f" alert. {NEXT}the step that fails, above.",
            steps=((None, RED), (v.number("success_rate"), GREEN)),
            no_value="No run",
        ),
        make.number(
            Table.HEALED,
            "Late rows healed, in the time shown",
            12,
            Query(f"round(sum(increase(offload_late_rows_total{{{ONE}}}[$__range])))"),
            "short",
            "Rows that reached ClickHouse after their window was shipped and were shipped by replacing it. Many of"
            f" them cost jobs. {NEXT}a longer `settle` in the spec waits for them instead.",
            named={0: ("None", GREEN)},
        ),
    )


def _cost(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    within = v.text("throughput_within")
    share = v.seconds("cycle_slow") / v.seconds("cycle_too_slow")
    rows = f"sum(increase(offload_rows_total{{{ONE}}}[{within}]))"
    files = f"sum(increase(offload_files_total{{{ONE}}}[{within}]))"
    quiet = f"no row was shipped within {within}, or only one job ran since the exporter started"
    limit = f"offload:cycle_objective_seconds{{{ONE}}}"
    least = f"{v.number('throughput_least_rows'):,.0f}"
    return (
        make.graph(
            Table.CYCLE,
            "Cycle time and its limits",
            12,
            (
                Query(f"offload:cycle_seconds{{{ONE}}}", f"mean of {v.text('cycle_within')}", "no run in that time"),
                Query(f"{limit} * {share:.4g}", "slow limit"),
                Query(limit, "too slow limit"),
            ),
            "s",
            "From the start of `check_extent` to the end of `update_watermark`. Over the schedule's interval the table"
            f" falls behind. {NEXT}the longest task of the last run in Airflow.",
        ),
        make.number(
            Table.SPEED,
            f"Rows a second of the jobs, {within}",
            6,
            Query(
                f"offload:job_rows_per_second{{{ONE}}} and on (table) offload:job_rows"
                f" > {v.number('throughput_least_rows'):.0f}",
                "",
                f"fewer than {least} rows moved within {within}",
            ),
            "suffix: rows/s",
            f"Judged only where more than {least} rows moved: the start is most of a small job."
            f" {NEXT}the runbook: partitions, slots, ClickHouse's load.",
            steps=((None, ORANGE), (v.number("throughput"), GREEN)),
            no_value="Too few rows to judge",
            height=8,
        ),
        make.number(
            Table.JOB_TIME,
            "Job time per million rows",
            6,
            Query(
                f"1e6 * (sum(increase(offload_duration_seconds_sum{{{ONE}}}[{within}])) > 0) / ({rows} > 0)", "", quiet
            ),
            "s",
            "Seconds that the Spark jobs ran, by the clock, for a million rows. CPU time is not measured."
            f" {NEXT}dear and small: a longer schedule ships the same rows in fewer jobs.",
            no_value="Too little shipped",
            height=8,
        ),
        make.number(
            Table.PARQUET,
            "Parquet per million rows",
            12,
            Query(f"1e6 * sum(increase(offload_bytes_total{{{ONE}}}[{within}])) / ({rows} > 0)", "", quiet),
            "decbytes",
            f"What a million rows take as they are written. {NEXT}after a sudden rise compare the table's columns.",
            no_value="Too little shipped",
        ),
        make.number(
            Table.FILES,
            "Mean size of a file",
            12,
            Query(f"sum(increase(offload_bytes_total{{{ONE}}}[{within}])) / ({files} > 0)", "", quiet),
            "decbytes",
            "Many small files make readers slow."
            f" {NEXT}a longer schedule, a coarser partition, or the maintenance of the Iceberg table, below.",
            no_value="Too little shipped",
        ),
        make.graph(
            Table.CARE,
            "Time since the last maintenance that ended well",
            12,
            (
                Query(
                    f"time() - max by (table) (offload_maintenance_last_success_timestamp{{{ONE}}})",
                    "last success",
                    "no maintenance since the exporter started",
                ),
                Query(
                    f"{v.number('maintenance_intervals'):g} *"
                    f" (max by (table) (offload_maintenance_interval_seconds{{{ONE}}}) > 0)",
                    "limit",
                    "the spec wants no maintenance",
                ),
            ),
            "s",
            "Beyond its limit the table is not taken care of: small files, snapshots and orphans pile up and readers"
            f" slow down. {NEXT}the DAG `maintain__…` in Airflow: is it paused, or red?",
        ),
        make.graph(
            Table.LAKE,
            "Files of the Iceberg table, before and after maintenance",
            12,
            (
                Query(
                    f"max by (when) (offload_lake_files{{{ONE}}})",
                    "files {{when}}",
                    "no maintenance since the exporter started",
                ),
                Query(
                    f"max by (when) (offload_lake_small_files{{{ONE}}})",
                    "small files {{when}}",
                    "no maintenance since the exporter started",
                ),
            ),
            "short",
            "Small files after a maintenance are those of partitions that are not settled, or too few to join."
            f" {NEXT}many after it: raise `maintenance.bytes_per_run`, or look whether it is put off.",
        ),
    )
