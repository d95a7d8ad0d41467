"""`alerts`: what fires now, the worst first, each with its runbook."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli.common import load
from include.offload.cli.console import Json, err, grid, out, plain, show, span_of_time

if TYPE_CHECKING:
    from include.offload.monitor import Alert, Alerts

COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
BLIND = (
    "[bold red]Watchdog does not fire[/]: Prometheus evaluates no rules, so nobody knows what else should fire.\n"
    "[bold]next[/]  bin/offload health"
)
UNHEARD = (
    "[bold red]Alertmanager does not hear the Watchdog[/]: alerts fire, and nobody is told.\n"
    "[bold]next[/]  bin/offload health"
)


def alerts(
    pending: Annotated[bool, typer.Option("--pending", help="Also show what is about to fire.")] = False,
    json: Json = False,
) -> None:
    """Show which alerts fire now, from Prometheus: severity, table, since when, what it means, runbook.

    Exit code 0: nothing fires, and that is known; 1: something fires, Prometheus does not answer, or the Watchdog, the
    alert that always fires, does not. Silenced and inhibited alerts are shown as such and count.
    """
    from include.offload import monitor

    found = monitor.alerts(load())
    shown = (*found.firing, *(found.pending if pending else ()))
    document = {
        "ok": found.quiet,
        "watchdog": found.watchdog,
        "delivered": found.delivered,
        "problems": found.problems,
        "alerts": [plain(a) for a in shown],
    }
    show(document, lambda: _print(found, shown))
    if not found.quiet:
        raise typer.Exit(1)


def _print(found: Alerts, shown: tuple[Alert, ...]) -> None:
    if shown:
        table = grid("severity", "alert", "table", "since", "what")
        for alert in shown:
            state = "" if alert.state == "firing" else f" ({alert.state})"
            muted = f" ({alert.muted})" if alert.muted else ""
            what = escape(alert.description or alert.summary)
            if alert.runbook:
                what += f"\n[bold]runbook[/] {escape(alert.runbook)}"
            table.add_row(
                f"[{COLOURS.get(alert.severity, 'white')}]{escape(alert.severity)}[/]{state}{muted}",
                escape(alert.name),
                escape(alert.table or "-"),
                f"{alert.since:%Y-%m-%d %H:%M:%S}Z, {_ago(alert.since)}",
                what,
            )
        out.print(table)
    if not found.watchdog:
        out.print(BLIND)
    elif found.delivered is False:
        out.print(UNHEARD)
    elif not found.firing:
        out.print("no alert fires")
    for problem in found.problems:
        err.print(f"[yellow]{escape(problem)}[/]", soft_wrap=True)


def _ago(since: datetime) -> str:
    return span_of_time(max(0.0, (datetime.now(UTC) - since).total_seconds()))
