"""`offload-pipeline`: Airflow, and the way that the metrics take. When it is red, the other two show the past."""

from __future__ import annotations

from monitoring import conditions as c
from monitoring.alerts import alerts
from monitoring.dashboards.expressions import firing
from monitoring.dashboards.parts import GREEN, NEXT, RED, Maker, Page, Panel, Query, Row
from monitoring.panels import PIPELINE, Pipeline
from monitoring.values import Values


def pipeline(v: Values) -> Page:
    """The dashboard of Airflow and the metrics pipeline."""
    make = Maker(v, PIPELINE)
    rows = (
        Row("Can the other pages be believed?", (*_airflow(make), *_metrics(make))),
        Row("Does Airflow keep up?", _keeps_up(make)),
        Row("What broke?", _broke(make)),
        Row("What do the metrics cost?", _cost(make)),
    )
    about = "Airflow's parts, and the way of the metrics: StatsD, statsd_exporter, Prometheus, Alertmanager."
    return make.page(PIPELINE, "Offload: Airflow and metrics", about, (), rows)


def _airflow(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    beats = v.text("dag_processor_heartbeat")
    return (
        make.number(
            Pipeline.SCHEDULER,
            "Airflow's scheduler",
            8,
            Query('up{job="iceberg-scheduler"}'),
            "short",
            f"Whether it sent a heartbeat within {v.text('scheduler_heartbeat')}. Down: no table is offloaded."
            f" {NEXT}`bin/offload stack status`, then start it again; the plans go on where they were.",
            steps=((None, RED), (1, GREEN)),
            named={0: ("DOWN", RED), 1: ("Runs", GREEN)},
        ),
        make.number(
            Pipeline.DAG_PROCESSOR,
            "Airflow's DAG processor",
            8,
            Query(f"sum(increase(airflow_dag_processor_heartbeat_total[{beats}])) > bool 0"),
            "short",
            f"Whether it sent a heartbeat within {beats}. Down: changed and new specs are not seen."
            f" {NEXT}`bin/offload stack status`, then its log.",
            steps=((None, RED), (1, GREEN)),
            named={0: ("DOWN", RED), 1: ("Runs", GREEN)},
        ),
        make.words(
            Pipeline.IMPORTS,
            "Do all DAG files import?",
            8,
            Query("max(airflow_dag_import_errors)"),
            "Yes",
            "files do not",
            "An invalid spec is one import error; its table is not offloaded, the others go on."
            f" {NEXT}`bin/offload spec check` lists every mistake with its line.",
        ),
    )


def _metrics(make: Maker) -> tuple[Panel, ...]:
    broken = (
        'sum(absent(up{job="statsd-exporter"} == 1))',
        'sum(absent(up{job="alertmanager"} == 1))',
        'sum(absent(up{job="prometheus"} == 1))',
    )
    parts = " or ".join(f'label_replace({one}, "part", "{i}", "", "")' for i, one in enumerate(broken))
    return (
        make.words(
            Pipeline.BROKEN,
            "Are exporter, Prometheus and Alertmanager up?",
            8,
            Query(f"count({parts}) or vector(0)"),
            "Yes",
            "can not be scraped",
            f"What cannot be scraped is down, or its address changed. {NEXT}Prometheus' page `Targets` names it.",
        ),
        make.words(
            Pipeline.REPORTING,
            "Does every configured table report?",
            8,
            Query("clamp_min(max(offload_tables_configured) - count(offload:tables), 0)"),
            "Yes",
            "tables do not",
            "Specs that parsed, less the tables that sent anything since statsd_exporter started."
            f" {NEXT}wait for one run of each after a restart, then `bin/offload status`.",
        ),
        make.number(
            Pipeline.WATCHDOG,
            "Does the watchdog reach Alertmanager?",
            8,
            Query('sum(alertmanager_alerts{state="active"}) > bool 0 and on () ALERTS{alertname="Watchdog"}'),
            "short",
            "The watchdog always fires, so Alertmanager must hold an alert; whether its receiver hears it, only the"
            f" receiver can say. {NEXT}`Dropped or refused` below, and the log of Alertmanager.",
            steps=((None, RED), (1, GREEN)),
            named={0: ("No", RED), 1: ("Yes", GREEN)},
        ),
    )


def _keeps_up(make: Maker) -> tuple[Panel, ...]:
    def p95(metric: str, legend: str) -> Query:
        within = f"histogram_quantile(0.95, sum by (le) (rate({metric}_bucket[1h])))"
        return Query(within, legend, "Airflow sends a histogram with its first event, and it takes two to have a rate")

    return (
        make.graph(
            Pipeline.DELAY,
            "Waiting: runs for their start, tasks for a slot (95 % within)",
            12,
            (
                p95("airflow_dagrun_schedule_delay_seconds", "run, after its planned start"),
                p95("airflow_task_queued_duration_seconds", "task, in the queue"),
            ),
            "s",
            "Minutes mean that Airflow is the bottleneck, not ClickHouse or Spark."
            f" {NEXT}open slots beside: none left asks for more slots or fewer tables at a time.",
        ),
        make.graph(
            Pipeline.SLOTS,
            "Slots of the executor and of the pool for Spark",
            12,
            (
                Query("sum(airflow_executor_running_tasks)", "executor: running"),
                Query("sum(airflow_executor_open_slots)", "executor: open"),
                Query('sum(airflow_pool_running_slots{pool_name="offload_spark"})', "Spark: running"),
                Query('sum(airflow_pool_queued_slots{pool_name="offload_spark"})', "Spark: queued"),
                Query('sum(airflow_pool_open_slots{pool_name="offload_spark"})', "Spark: open"),
            ),
            "short",
            "Tasks that run and wait. `Spark: queued` for long means too few slots for the number of tables."
            f" {NEXT}more slots in Airflow's pool `offload_spark`, if the machine has room for more jobs.",
        ),
        make.number(
            Pipeline.LOOP,
            "One loop of the scheduler, mean of 5 min",
            8,
            Query(
                "sum(rate(airflow_scheduler_loop_duration_seconds_sum[5m]))"
                " / sum(rate(airflow_scheduler_loop_duration_seconds_count[5m]))"
            ),
            "s",
            f"Several seconds: too many DAGs for one scheduler, or a slow PostgreSQL. {NEXT}PostgreSQL's load.",
        ),
        make.number(
            Pipeline.PARSE,
            "All DAG files parsed in",
            8,
            Query("max(airflow_dag_processing_parse_seconds)"),
            "s",
            "It grows with the number of specs. Near the time between two rounds, changes are seen late."
            f" {NEXT}a longer `min_file_process_interval`.",
        ),
        make.number(
            Pipeline.QUEUED,
            "Tasks that wait in the executor",
            8,
            Query("sum(airflow_executor_queued_tasks)"),
            "short",
            f"Zero most of the time. {NEXT}when it stays up, `parallelism` is too low or tasks hang.",
        ),
    )


def _broke(make: Maker) -> tuple[Panel, ...]:
    v = make.v
    runbook = {
        "title": "Runbook of ${__data.fields.alertname}",
        "url": f"{v.text('runbooks')}/${{__data.fields.runbook}}",
        "targetBlank": True,
    }
    own = tuple(one for one in alerts(v) if one.dashboard == PIPELINE)
    killed = (
        "airflow_scheduler_tasks_killed_externally_total",
        "airflow_task_instances_without_heartbeats_killed_total",
    )
    return (
        make.grid(
            Pipeline.FIRING,
            "Alerts of Airflow and the metrics",
            8,
            {"firing": Query(firing(own), quiet="no alert fires")},
            {"alertname": {"links": [runbook]}},
            f"What fires beside the tables' own alerts. {NEXT}a click on the name opens its runbook.",
            hidden=("firing",),
            no_value="No alert fires",
        ),
        make.graph(
            Pipeline.TASKS,
            "Task instances by end, each 15 min",
            8,
            (Query('sum by (state) (increase(airflow_ti_finish_total{state!=""}[$__interval]))', "{{state}}"),),
            "short",
            f"Of all DAGs of this Airflow. {NEXT}many `failed` at once point to a server that they share.",
            bars=True,
        ),
        make.graph(
            Pipeline.KILLED,
            "Tasks killed and deadlines missed, each 15 min",
            8,
            (
                *(
                    Query(f"sum(increase({name}[$__interval]))", legend, "Airflow sends it with the first such task")
                    for name, legend in zip(killed, ("died by itself", "no heartbeat"), strict=True)
                ),
                Query(
                    "sum(increase(airflow_deadline_missed_total[$__interval]))",
                    "deadline missed",
                    "Airflow sends it with the first missed deadline",
                ),
            ),
            "short",
            "A task that dies by itself is most often out of memory; its run tries again and commits nothing twice."
            f" {NEXT}the machine's memory, and how many Spark jobs run at once.",
            bars=True,
        ),
        make.words(
            Pipeline.STARVING,
            "Does a task starve for a slot?",
            24,
            Query("max(airflow_scheduler_tasks_starving)"),
            "No",
            "tasks starve",
            f"Tasks that are ready and find no slot in their pool. {NEXT}more slots in the pool `offload_spark`.",
            height=3,
        ),
    )


def _cost(make: Maker) -> tuple[Panel, ...]:
    refused = " + ".join(
        (
            c.refused_lines("1h"),
            "sum(increase(prometheus_rule_evaluation_failures_total[1h]))",
            "sum(increase(prometheus_notifications_dropped_total[1h]))",
        )
    )
    return (
        make.words(
            Pipeline.REFUSED,
            "Dropped or refused, 1 h",
            6,
            Query(f"round({refused})"),
            "Nothing",
            "times",
            "Lines that statsd_exporter refused, rules that failed, notifications that were dropped."
            f" {NEXT}the log of the part that did it.",
        ),
        make.number(
            Pipeline.EVENTS,
            "Events through statsd_exporter",
            6,
            Query("sum(rate(statsd_exporter_events_total[5m]))"),
            "suffix: /s",
            f"What Airflow and the tables send. {NEXT}zero with a running scheduler: StatsD's address is wrong.",
        ),
        make.number(
            Pipeline.SERIES,
            "Series in Prometheus",
            6,
            Query("prometheus_tsdb_head_series"),
            "short",
            "`docs/metrics.md` states the number for 1,000 tables; no run, plan or host is a label."
            f" {NEXT}far more than that: a label that grows. Prometheus' page `TSDB status` names it.",
        ),
        make.number(
            Pipeline.RULES,
            "All rules evaluated in",
            6,
            Query("sum(prometheus_rule_group_last_duration_seconds)"),
            "s",
            f"Near the evaluation interval, alerts come late. {NEXT}a longer interval, or a larger machine.",
        ),
    )
