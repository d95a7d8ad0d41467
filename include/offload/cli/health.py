"""`health`: the 30-second look at everything, for people, for cron and for programs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli.common import load
from include.offload.cli.console import Json, grid, out, plain, show

if TYPE_CHECKING:
    from include.offload.health import Report

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "not set up": "cyan"}


def health(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also start Spark, which takes 3 to 6 seconds, 21 at most.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings end with exit code 1 too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only what is not ok: for cron.")] = False,
    json: Json = False,
) -> None:
    """Check every server and table in less than 30 seconds: each line ok, warn or fail, with the next command.

    What is not configured is `not set up`: nothing is known of it, and it does not fail the check. Exit code 0:
    nothing failed (warnings count only with --strict); 1: something failed; 2: wrong usage.
    """
    from include.offload.health import CHECKS, DEEP, State, check_health

    checks = tuple(DEEP if deep and check.names == ("Spark",) else check for check in CHECKS)
    report = check_health(load(), checks)
    bad = not report.ok or (strict and report.count(State.WARN) > 0)
    document = {"ok": not bad, "seconds": report.seconds, "lines": plain(report.lines)}
    show(document, lambda: _print(report, quiet=quiet))
    if report.hung:
        # a library's own threads would be waited for
        sys.stdout.flush()
        os._exit(1)
    if bad:
        raise typer.Exit(1)


def _print(report: Report, *, quiet: bool) -> None:
    from include.offload.health import State

    shown = [line for line in report.lines if not quiet or line.state in {State.WARN, State.FAIL}]
    if quiet and not shown:
        return
    table = grid("", "what", "state")
    for line in shown:
        text = escape(line.text)
        if line.state in {State.WARN, State.FAIL}:
            text += f"\n[bold]next[/] {escape(line.next or '-')}"
            if line.runbook:
                text += f"\n[bold]more[/] {escape(line.runbook)}"
        table.add_row(f"[{COLOURS[line.state]}]{line.state}[/]", line.name, text)
    out.print(table)
    if not quiet:
        counts = ", ".join(f"{report.count(s)} {s}" for s in State)
        out.print(f"{counts}, in {report.seconds:.1f} s")
