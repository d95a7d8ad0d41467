"""What several panels ask Prometheus, made from the alerts' own conditions."""

from __future__ import annotations

from monitoring.alerts import Alert
from monitoring.records import known

SELECTED = 'table=~"$table"'
"""The tables that the variable chooses, one or many."""
DAG_OF_TABLE = '"dag", "offload__${1}__${2}", "table", "([^.]+)[.](.+)"'
"""The last arguments of a label_replace that adds the id of a table's DAG."""


def count(condition: str, among: str) -> str:
    """How many series meet a condition; 0 only where `among` says that there is something to count."""
    return f"count({condition}) or count({among}) * 0"


def of_tables(condition: str, known: str = "offload:tables") -> str:
    """How many of the chosen tables meet the condition of an alert; 0 only where `known` has a series of one."""
    # a condition may have several series of one table
    chosen = f"group by (table) (({condition}) and on (table) offload:tables{{{SELECTED}}})"
    return count(chosen, f"{known}{{{SELECTED}}}")


def not_safe(danger: str) -> str:
    """How many of the chosen tables are in danger, or were not looked at since the metrics began."""
    return of_tables(f"({danger}) or on (table) {unseen()}")


def unseen(selector: str = SELECTED) -> str:
    """Tables that were declared and of which no run has said when a row expires: nothing is known of their rows."""
    return f"(offload:tables{{{selector}}} unless on (table) offload_expiry_timestamp_seconds)"


def never_expires(selector: str, never: float) -> str:
    """`never` where the chosen tables were all looked at and no unshipped row of them expires; else nothing."""
    nothing = f"count(offload_expiry_timestamp_seconds{{{selector}}} == 0) * 0 + {never:.0f}"
    return f"({nothing} unless on () {unseen(selector)})"


def any_of(*conditions: str) -> str:
    """Tables that meet one of these conditions."""
    return " or on (table) ".join(f"({one})" for one in conditions)


def firing(chosen: tuple[Alert, ...], selector: str = "") -> str:
    """The firing alerts of `chosen`, each with the path of its runbook as a label."""
    parts = [
        f'label_replace(ALERTS{{alertstate="firing",alertname="{one.name}"{selector}}},'
        f' "runbook", "{one.anchor}", "", "")'
        for one in chosen
        if one.severity != "none"
    ]
    return " or ".join(parts)


def differing(selector: str) -> str:
    """Windows of each table that differ: as the last run, verify or the TTL left them, whichever are more."""
    seen = f'label_replace({known("offload_verify_mismatched_windows", chosen=selector)}, "by", "verify", "", "")'
    lost = f'label_replace({known("offload_windows_expired_unshipped", chosen=selector)}, "by", "ttl", "", "")'
    run = known("offload_mismatched_windows", chosen=selector)
    return f"max by (table) ({run} or {seen} or {lost})"
