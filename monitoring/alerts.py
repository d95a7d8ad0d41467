"""Every alert: what it asks Prometheus, how bad it is, what silences it, and where its reader goes next.

`symptom` is what Alertmanager inhibits by. `data` alerts (rows in danger) are never silenced by another alert.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from monitoring import conditions as c
from monitoring.panels import OVERVIEW, PIPELINE, TABLE, Overview, Pipeline, Table
from monitoring.values import Values

PREFIX = "IcebergOffload"
LAG, FAILURE = "iceberg-offload-lag.md", "iceberg-offload-failure.md"
SPEED, WATERMARK = "iceberg-offload-performance.md", "iceberg-offload-watermark-recovery.md"
SCHEDULER, DATA = "iceberg-scheduler-recovery.md", "iceberg-offload-data-at-risk.md"

RUNBOOKS: dict[str, str] = {
    "IcebergOffloadConsecutiveFailures": FAILURE,
    "IcebergOffloadSuccessRateLow": FAILURE,
    "IcebergOffloadSuccessBurnFast": FAILURE,
    "IcebergOffloadSuccessBurnSlow": FAILURE,
    "IcebergOffloadLagCritical": LAG,
    "IcebergOffloadLagElevated": LAG,
    "IcebergOffloadFallingBehind": LAG,
    "IcebergOffloadFreshnessBurnFast": LAG,
    "IcebergOffloadFreshnessBurnSlow": LAG,
    "IcebergOffloadCycleTooSlow": SPEED,
    "IcebergOffloadCycleSlow": SPEED,
    "IcebergOffloadThroughputLow": SPEED,
    "IcebergOffloadMaintenanceOverdue": SPEED,
    "IcebergOffloadWatermarkStale": WATERMARK,
    "IcebergOffloadHasNotOffloadedSinceStart": WATERMARK,
    "IcebergOffloadSchedulerDown": SCHEDULER,
    "IcebergOffloadDagProcessorDown": SCHEDULER,
    "IcebergOffloadDagImportErrors": SCHEDULER,
    "IcebergOffloadWatermarkRegressed": DATA,
    "IcebergOffloadTTLHeadroomCritical": DATA,
    "IcebergOffloadTTLHeadroomWarning": DATA,
    "IcebergOffloadRowsMismatch": DATA,
    "IcebergOffloadLateRowsUnknown": DATA,
    "IcebergOffloadTTLGuardStopped": DATA,
    "IcebergOffloadTTLGuardRefused": DATA,
    "IcebergOffloadMetricsPipelineBroken": DATA,
    "Watchdog": "README.md",
}
"""The runbook of each alert. The heading in it is the alert's own name, so its anchor is the name in lower case."""

PANELS: dict[str, IntEnum] = {
    "IcebergOffloadConsecutiveFailures": Table.RUNS,
    "IcebergOffloadSuccessRateLow": Table.SUCCESS,
    "IcebergOffloadSuccessBurnFast": Table.SUCCESS,
    "IcebergOffloadSuccessBurnSlow": Table.SUCCESS,
    "IcebergOffloadLagCritical": Table.LAG,
    "IcebergOffloadLagElevated": Table.TROUGH,
    "IcebergOffloadFallingBehind": Table.LAG,
    "IcebergOffloadFreshnessBurnFast": Table.FRESH,
    "IcebergOffloadFreshnessBurnSlow": Table.FRESH,
    "IcebergOffloadCycleTooSlow": Table.CYCLE,
    "IcebergOffloadCycleSlow": Table.CYCLE,
    "IcebergOffloadThroughputLow": Table.SPEED,
    "IcebergOffloadMaintenanceOverdue": Table.CARE,
    "IcebergOffloadWatermarkStale": Table.STANDS,
    # the table may be one that nobody knows by name
    "IcebergOffloadHasNotOffloadedSinceStart": Overview.HEARD,
    "IcebergOffloadSchedulerDown": Pipeline.SCHEDULER,
    "IcebergOffloadDagProcessorDown": Pipeline.DAG_PROCESSOR,
    "IcebergOffloadDagImportErrors": Pipeline.IMPORTS,
    "IcebergOffloadWatermarkRegressed": Table.BACK,
    "IcebergOffloadTTLHeadroomCritical": Table.EXPIRES,
    "IcebergOffloadTTLHeadroomWarning": Table.EXPIRES,
    "IcebergOffloadRowsMismatch": Table.AGREE,
    "IcebergOffloadLateRowsUnknown": Table.UNKNOWN,
    "IcebergOffloadTTLGuardStopped": Table.GUARD,
    "IcebergOffloadTTLGuardRefused": Table.GUARD,
    "IcebergOffloadMetricsPipelineBroken": Pipeline.BROKEN,
    "Watchdog": Pipeline.WATCHDOG,
}
"""The panel that shows what each alert looks at; its dashboard is the alert's link."""
DASHBOARDS: dict[type[IntEnum], str] = {Overview: OVERVIEW, Table: TABLE, Pipeline: PIPELINE}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `wait`: how long the condition must hold; `when`: the condition in words, for docs/alerts.md."""

    name: str
    severity: str
    symptom: str
    expr: str
    wait: str
    when: str
    summary: str
    description: str

    @property
    def anchor(self) -> str:
        """File and heading below docs/operations/runbooks."""
        return f"{RUNBOOKS[self.name]}#{self.name.lower()}"

    @property
    def panel(self) -> IntEnum:
        """The panel that its dashboard link opens."""
        return PANELS[self.name]

    @property
    def dashboard(self) -> str:
        """The uid of the dashboard that its link opens."""
        return DASHBOARDS[type(self.panel)]

    def rule(self, v: Values) -> dict[str, object]:
        """The rule as Prometheus reads it."""
        table = "var-table={{ $labels.table }}&" if self.dashboard == TABLE else ""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.wait,
            "labels": {"severity": self.severity, "symptom": self.symptom},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{v.text('runbooks')}/{self.anchor}",
                "dashboard_url": f"{v.text('dashboards')}/{self.dashboard}?{table}viewPanel={self.panel:d}",
            },
        }


def alerts(v: Values) -> tuple[Alert, ...]:
    """All alerts of a profile."""
    return (*_lag(v), *_failures(v), *_speed(v), *_data(v), *_platform(v))


T = "{{ $labels.table }}"
MINUTES = '{{ printf "%.0f" $value }} min'
SECONDS = "{{ humanizeDuration $value }}"
SHARE = "{{ humanizePercentage $value }}"


def _alert(name: str, severity: str, symptom: str, condition: c.Condition, summary: str, description: str) -> Alert:
    return Alert(PREFIX + name, severity, symptom, condition.expr, condition.wait, condition.when, summary, description)


def _lag(v: Values) -> tuple[Alert, ...]:
    critical, elevated = v.text("lag_critical_trough"), v.text("lag_elevated_trough")
    return (
        _alert(
            "LagCritical",
            "critical",
            "lag",
            c.lag_critical(v),
            f"{T} lags behind its source",
            f"{T} has been at least {MINUTES} behind ClickHouse for {critical}: two runs or more did not land.",
        ),
        _alert(
            "LagElevated",
            "warning",
            "lag",
            c.lag_elevated(v),
            f"{T} is late even right after its runs",
            f"{T} has been at least {MINUTES} behind ClickHouse for {elevated} and for two intervals: runs land, but"
            " too late or too seldom.",
        ),
        _alert(
            "FallingBehind",
            "warning",
            "lag",
            c.falling_behind(v),
            f"{T} falls further and further behind",
            f"The least lag of {T} is {MINUTES} and grew in each of the last two steps of"
            f" {v.text('falling_behind_step')} or two intervals: more arrives than is shipped.",
        ),
        _alert(
            "WatermarkStale",
            "critical",
            "lag",
            c.watermark_stale(v),
            f"The watermark of {T} stands still",
            f"The watermark of {T} has not moved for {v.text('watermark_stale')} and is {MINUTES} behind.",
        ),
        _alert(
            "HasNotOffloadedSinceStart",
            "critical",
            "missing",
            c.not_since_start(v),
            f"{T} has not offloaded since the metrics began",
            f"No run of {T} has ended well within {v.text('not_since_start')} since statsd_exporter started, or for two"
            " intervals while its source was empty. Paused, never unpaused, or failing from the first run on.",
        ),
        _alert(
            "FreshnessBurnFast",
            "critical",
            "lag",
            c.burn(v, "freshness", "fast"),
            f"{T} uses up its freshness budget fast",
            f"{SHARE} of the recent minutes of {T} were beyond its lag limit; {v.number('freshness_objective'):.1%}"
            " must be within it.",
        ),
        _alert(
            "FreshnessBurnSlow",
            "warning",
            "lag",
            c.burn(v, "freshness", "slow"),
            f"{T} uses up its freshness budget",
            f"{SHARE} of the minutes of the last days of {T} were beyond its lag limit;"
            f" {v.number('freshness_objective'):.1%} must be within it.",
        ),
    )


def _failures(v: Values) -> tuple[Alert, ...]:
    return (
        _alert(
            "ConsecutiveFailures",
            "critical",
            "failures",
            c.consecutive_failures(v),
            f"{T} fails run after run",
            f'{{{{ printf "%.0f" $value }}}} runs of {T} failed one after the other, none succeeded.',
        ),
        _alert(
            "SuccessRateLow",
            "warning",
            "failures",
            c.success_rate(v),
            f"Too many runs of {T} fail",
            f"{SHARE} of the runs of {T} within {v.text('success_rate_within')} ended well.",
        ),
        _alert(
            "SuccessBurnFast",
            "critical",
            "failures",
            c.burn(v, "success", "fast"),
            f"{T} uses up its success budget fast",
            f"{SHARE} of the recent runs of {T} failed; {v.number('success_objective'):.0%} must end well.",
        ),
        _alert(
            "SuccessBurnSlow",
            "warning",
            "failures",
            c.burn(v, "success", "slow"),
            f"{T} uses up its success budget",
            f"{SHARE} of the runs of the last days of {T} failed; {v.number('success_objective'):.0%} must end well.",
        ),
    )


def _speed(v: Values) -> tuple[Alert, ...]:
    cycle = f"A cycle of {T} took {SECONDS} on average within {v.text('cycle_within')}."
    return (
        _alert("CycleTooSlow", "critical", "speed", c.cycle_too_slow(v), f"Cycles of {T} are far too slow", cycle),
        _alert("CycleSlow", "warning", "speed", c.cycle_slow(v), f"Cycles of {T} are slow", cycle),
        _alert(
            "ThroughputLow",
            "warning",
            "speed",
            c.throughput(v),
            f"The jobs of {T} move few rows a second",
            f"The jobs of {T} moved {{{{ humanize $value }}}} rows a second within {v.text('throughput_within')}.",
        ),
        _alert(
            "MaintenanceOverdue",
            "warning",
            "care",
            c.maintenance_overdue(v),
            f"Nobody takes care of the Iceberg table of {T}",
            f"{{{{ if gt $value 0.0 }}}}The last maintenance of {T} that ended well was {SECONDS} ago."
            f"{{{{ else }}}}No maintenance of {T} has ended well yet.{{{{ end }}}}",
        ),
    )


def _data(v: Values) -> tuple[Alert, ...]:
    soon = f"ClickHouse deletes the first row of {T} that is not in Iceberg in {SECONDS}."
    begun = f"Rows of {T} that are not in Iceberg have begun to expire: ClickHouse may delete them now."
    headroom = f"{{{{ if gt $value 0.0 }}}}{soon}{{{{ else }}}}{begun}{{{{ end }}}}"
    return (
        _alert(
            "TTLHeadroomCritical",
            "critical",
            "data",
            c.ttl_critical(v),
            f"Rows of {T} are about to expire unshipped",
            headroom,
        ),
        _alert(
            "TTLHeadroomWarning", "warning", "data", c.ttl_warning(v), f"Unshipped rows of {T} expire soon", headroom
        ),
        _alert(
            "RowsMismatch",
            "critical",
            "data",
            c.mismatch(v),
            f"ClickHouse and Iceberg differ for {T}",
            f"{T}: {{{{ $value }}}} {{{{ $labels.what }}}} differ between ClickHouse and Iceberg and were not healed.",
        ),
        _alert(
            "LateRowsUnknown",
            "warning",
            "data",
            c.late_unknown(v),
            f"It is not known whether late rows of {T} are missing",
            f"{{{{ $value }}}} shipped windows of {T} lost rows in ClickHouse, and nobody could tell whether rows that"
            " came late are among the rest.",
        ),
        _alert(
            "TTLGuardStopped",
            "warning",
            "data",
            c.guard_stopped(v),
            f"Nothing of {T} expires: the TTL guard holds TTL merges",
            f"TTL merges of the source of {T} have been stopped for {v.text('guard_stopped_for')} so that unshipped"
            " rows stay; meanwhile its disk fills.",
        ),
        _alert(
            "TTLGuardRefused",
            "critical",
            "data",
            c.guard_refused(),
            f"ClickHouse does not stop the TTL merges of {T}",
            f"Unshipped rows of {T} are about to expire, the TTL guard told ClickHouse to stop TTL merges, and it goes"
            " on deleting rows.",
        ),
        _alert(
            "WatermarkRegressed",
            "critical",
            "data",
            c.regressed(v),
            f"The watermark of {T} went back",
            f"The watermark of {T} is {SECONDS} before where it has been; it must never go back.",
        ),
    )


def _platform(v: Values) -> tuple[Alert, ...]:
    def platform(name: str, severity: str, symptom: str, condition: c.Condition, summary: str, text: str) -> Alert:
        name = name if name == "Watchdog" else PREFIX + name
        return Alert(name, severity, symptom, condition.expr, condition.wait, condition.when, summary, text)

    return (
        platform(
            "SchedulerDown",
            "critical",
            "scheduler",
            c.scheduler_down(v),
            "Airflow's scheduler is down",
            f"Airflow's scheduler sent no heartbeat for {v.text('scheduler_heartbeat')}"
            " (up is {{ $value }}): no table is offloaded.",
        ),
        platform(
            "DagProcessorDown",
            "critical",
            "dag-processor",
            c.dag_processor_down(v),
            "Airflow's DAG processor is down",
            f"Airflow's DAG processor sent {{{{ $value }}}} heartbeats within {v.text('dag_processor_heartbeat')}:"
            " changed and new specs are not seen.",
        ),
        platform(
            "DagImportErrors",
            "warning",
            "dags",
            c.import_errors(v),
            "DAG files do not import",
            "{{ $value }} DAG files do not import; the tables of an invalid spec are not offloaded.",
        ),
        platform(
            "MetricsPipelineBroken",
            "critical",
            "metrics",
            c.pipeline_broken(v),
            "The metrics pipeline is broken",
            '{{ $labels.part }} ({{ printf "%.0f" $value }}): other alerts may be blind.',
        ),
        platform(
            "Watchdog",
            "none",
            "watchdog",
            c.watchdog(),
            "Alerts are delivered",
            "Always firing ({{ $value }}): when its receiver no longer hears it, Prometheus or Alertmanager is down.",
        ),
    )
