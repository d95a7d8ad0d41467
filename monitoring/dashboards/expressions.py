"""What several panels ask Prometheus, made from the alerts' own conditions."""

from __future__ import annotations

from monitoring.alerts import Alert

SELECTED = 'table=~"$table"'
"""The tables that the variable chooses, one or many."""
DAG_OF_TABLE = '"dag", "offload__${1}__${2}", "table", "([^.]+)[.](.+)"'
"""The last arguments of a label_replace that adds the id of a table's DAG."""


def count(condition: str, among: str) -> str:
    """How many series meet a condition; 0 only where `among` says that there is something to count."""
    return f"count({condition}) or count({among}) * 0"


def of_tables(condition: str) -> str:
    """How many of the chosen tables meet the condition of an alert."""
    # a condition may have several series of one table
    chosen = f"group by (table) (({condition}) and on (table) offload:tables{{{SELECTED}}})"
    return count(chosen, f"offload:tables{{{SELECTED}}}")


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
    """Windows of each table that differ: as the last run or the last verify left them, whichever are more."""
    seen = f'label_replace(offload_verify_mismatched_windows{{{selector}}}, "by", "verify", "", "")'
    return f"max by (table) (offload_mismatched_windows{{{selector}}} or {seen})"
