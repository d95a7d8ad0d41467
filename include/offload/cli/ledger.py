"""`ledger …`, `accept-source`, `take-over`: what an operator does when the pipeline refuses to go on by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from include.offload.cli.common import TableArgument, load, opened, the_spec
from include.offload.cli.console import Json, note, out, show

app = typer.Typer(help="The ledger in PostgreSQL. Iceberg is the truth, the ledger follows.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def rebuild(table: TableArgument, json: Json = False) -> None:
    """Restore a table's ledger from Iceberg: marker, summaries and a count of the lake per window."""
    from include.offload import recovery

    settings = load()
    with opened(settings) as ctx:
        done = recovery.rebuild(ctx, the_spec(settings, table))
    show(done, lambda: out.print(done, markup=False))


@app.command()
def forget(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Begin anew with a table whose Iceberg table was dropped on purpose (OFL-309)."""
    from include.offload import recovery

    settings = load()
    spec = the_spec(settings, table)
    if not yes:
        note("What was shipped and has expired in ClickHouse since is gone with the Iceberg table.")
        typer.confirm(f"Forget what was shipped of {table}?", abort=True)
    with opened(settings) as ctx:
        done = recovery.forget(ctx, spec)
    show(done, lambda: out.print(done, markup=False))


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

    settings = load()
    spec = the_spec(settings, table)
    if not yes:
        note("The lake keeps what it holds; the new ClickHouse table is offloaded from the watermark on.")
        typer.confirm(f"Accept the new source of {table}?", abort=True)
    with opened(settings) as ctx:
        done = recovery.accept_source(ctx, spec)
    show(done, lambda: out.print(done, markup=False))


def take_over(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Make this pipeline the owner of an Iceberg table that another one wrote (OFL-303)."""
    from include.offload import recovery

    settings = load()
    spec = the_spec(settings, table)
    if not yes:
        note("Stop the other pipeline first: its next commit is refused, ours begins at the marker it left.")
        typer.confirm(f"Take over the Iceberg table of {table}?", abort=True)
    with opened(settings) as ctx:
        done = recovery.take_over(ctx, spec)
    show(done, lambda: out.print(done, markup=False))
