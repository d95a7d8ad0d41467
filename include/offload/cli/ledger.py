"""`ledger …`, `accept-source`, `take-over`: what an operator does when the pipeline refuses to go on by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from include.offload.cli.common import TableArgument, load, opened, the_spec
from include.offload.cli.console import Json, note, out, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.offload.context import Context
    from include.offload.spec.model import TableSpec

app = typer.Typer(help="The ledger in PostgreSQL. Iceberg is the truth, the ledger follows.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def _recover(table: str, act: Callable[[Context, TableSpec], object], question: str = "", warning: str = "") -> None:
    """Do what was asked, after a yes to the question if there is one, and show what came of it."""
    settings = load()
    spec = the_spec(settings, table)
    if question:
        note(warning)
        typer.confirm(question, abort=True)
    with opened(settings) as ctx:
        done = act(ctx, spec)
    show(done, lambda: out.print(done, markup=False))


@app.command()
def rebuild(table: TableArgument, json: Json = False) -> None:
    """Restore a table's ledger from Iceberg: marker, summaries and a count of the lake per window."""
    from include.offload import recovery

    _recover(table, recovery.rebuild)


@app.command()
def forget(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Begin anew with a table whose Iceberg table was dropped on purpose (OFL-309)."""
    from include.offload import recovery

    _recover(
        table,
        recovery.forget,
        question="" if yes else f"Forget what was shipped of {table}?",
        warning="What was shipped and has expired in ClickHouse since is gone with the Iceberg table.",
    )


@app.command()
def upgrade(json: Json = False) -> None:
    """Bring the ledger's schema up to this code; safe to repeat."""
    from include.offload.ledger import migrate
    from include.offload.ledger.store import SCHEMA_REVISION

    migrate.upgrade(load().ledger())
    show({"revision": SCHEMA_REVISION}, lambda: out.print(f"the ledger is at revision {SCHEMA_REVISION}"))


def accept_source(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Go on with a source table that was dropped and made again (OFL-209)."""
    from include.offload import recovery

    _recover(
        table,
        recovery.accept_source,
        question="" if yes else f"Accept the new source of {table}?",
        warning="The lake keeps what it holds; the new ClickHouse table is offloaded from the watermark on.",
    )


def take_over(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Make this pipeline the owner of an Iceberg table that another one wrote (OFL-303)."""
    from include.offload import recovery

    _recover(
        table,
        recovery.take_over,
        question="" if yes else f"Take over the Iceberg table of {table}?",
        warning="Stop the other pipeline first: its next commit is refused, ours begins at the marker it left.",
    )
