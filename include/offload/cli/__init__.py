"""`bin/offload`: what an operator types. Every refusal is one readable block with the next command; exit code 1."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer

from include.offload.cli import (
    accept_loss,
    adopt,
    alerts,
    backfill,
    dag,
    drill,
    health,
    ledger,
    maintain,
    reconcile,
    reference,
    repair,
    retire,
    run,
    schema,
    sessions,
    spec,
    stack,
    status,
    support,
    verify,
    view,
)
from include.offload.cli.console import flags, refuse
from include.offload.errors import OffloadError

app = typer.Typer(
    name="offload",
    help="Moves ClickHouse tables into Apache Iceberg, every row exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

TABLES = "Tables"
HEALTH = "Health"
RECOVERY = "Recovery"
SETUP = "Set-up"

app.command("status", rich_help_panel=TABLES)(status.status)
app.command("plan", rich_help_panel=TABLES)(run.plan)
app.command("run", rich_help_panel=TABLES)(run.run)
app.command("backfill", rich_help_panel=TABLES)(backfill.backfill)
app.command("reconcile", rich_help_panel=TABLES)(reconcile.reconcile)
app.command("verify", rich_help_panel=TABLES)(verify.verify)
app.command("maintain", rich_help_panel=TABLES)(maintain.maintain)
app.command("view", rich_help_panel=TABLES)(view.view)
app.command("health", rich_help_panel=HEALTH)(health.health)
app.command("alerts", rich_help_panel=HEALTH)(alerts.alerts)
app.add_typer(dag.app, name="dag", rich_help_panel=HEALTH)
app.command("support-bundle", rich_help_panel=HEALTH)(support.support_bundle)
ledger.app.command("sessions")(sessions.sessions)
app.add_typer(ledger.app, name="ledger", rich_help_panel=RECOVERY)
app.add_typer(schema.app, name="schema", rich_help_panel=RECOVERY)
app.command("accept-source", rich_help_panel=RECOVERY)(ledger.accept_source)
app.command("accept-loss", rich_help_panel=RECOVERY)(accept_loss.accept_loss)
app.command("take-over", rich_help_panel=RECOVERY)(ledger.take_over)
app.command("restore-main", rich_help_panel=RECOVERY)(ledger.restore_main)
app.command("repair", rich_help_panel=RECOVERY)(repair.repair)
app.command("adopt", rich_help_panel=RECOVERY)(adopt.adopt)
app.command("retire", rich_help_panel=RECOVERY)(retire.retire)
app.command("errors", rich_help_panel=RECOVERY)(reference.errors)
app.add_typer(spec.app, name="spec", rich_help_panel=SETUP)
app.add_typer(stack.app, name="stack", rich_help_panel=SETUP)
app.add_typer(drill.app, name="drill", rich_help_panel=SETUP)
app.command("metrics", rich_help_panel=SETUP)(reference.metrics)


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log of the libraries.")] = False,
) -> None:
    flags.debug = debug
    level = logging.DEBUG if debug else logging.ERROR
    handler = logging.StreamHandler()
    # on the handler: a library that sets its own logger's level would pass a level on the root
    handler.setLevel(level)
    logging.basicConfig(level=level, handlers=[handler], format="%(levelname)s %(name)s: %(message)s")


def without_flag_types(command: Any) -> Any:
    """The command and all below it; the help of a flag names no type, since a flag takes no value."""
    for option in (*command.params, command.get_help_option(typer.Context(command))):
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for below in getattr(command, "commands", {}).values():
        without_flag_types(below)
    return command


def main() -> None:
    """The entry point. A refusal ends as one block and exit code 1; anything else keeps its traceback."""
    try:
        without_flag_types(typer.main.get_command(app))(prog_name="offload")
    except OffloadError as error:
        if flags.debug:
            raise
        refuse(error)
        sys.exit(1)
