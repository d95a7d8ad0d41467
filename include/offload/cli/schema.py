"""`schema diff`, `schema accept`: columns, types and partition fields that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from include.offload.cli.common import TableArgument, load, opened, the_spec
from include.offload.cli.console import Json, grid, out, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.offload.model import SchemaChange

app = typer.Typer(help="The Iceberg table's columns against those of ClickHouse and the spec.", no_args_is_help=True)

Rename = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="A dropped and an added column are one, renamed; repeatable."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def diff(table: TableArgument, rename: Rename = None, json: Json = False) -> None:
    """Show how Iceberg differs from ClickHouse and the spec, and what happens with each difference."""
    from include.offload.accepting import schema_diff

    pairs = _pairs(rename)
    settings = load()
    with opened(settings) as ctx:
        changes = schema_diff(ctx, the_spec(settings, table), pairs)
    show({"table": table, "changes": changes}, lambda: _print(table, changes))


@app.command()
def accept(table: TableArgument, rename: Rename = None, yes: Yes = False, json: Json = False) -> None:
    """Accept dropped, renamed and narrowed columns, another partition spec or sort order (OFL-310)."""
    from include.offload.accepting import schema_accept, schema_diff

    pairs = _pairs(rename)
    settings = load()
    spec = the_spec(settings, table)
    with opened(settings) as ctx:
        if not yes:
            _print(table, schema_diff(ctx, spec, pairs))
            typer.confirm(f"Change the Iceberg table of {table} like this?", abort=True)
        done = schema_accept(ctx, spec, pairs)
    show(done, lambda: out.print(str(done), markup=False, soft_wrap=True))


def _pairs(rename: list[str] | None) -> list[tuple[str, str]]:
    pairs = []
    for text in rename or ():
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise typer.BadParameter(f"{text!r} is no OLD=NEW", param_hint="--rename")
        pairs.append((old, new))
    return pairs


def _print(table: str, changes: Sequence[SchemaChange]) -> None:
    if not changes:
        out.print(f"{table}: Iceberg agrees with ClickHouse and the spec", markup=False)
        return
    shown = grid("column", "change", "ClickHouse", "Iceberg now", "Iceberg then", "verdict", "what happens")
    for c in changes:
        cells = (c.column, c.kind, c.source or "-", c.iceberg or "-", c.wanted or "-", c.verdict, c.what)
        shown.add_row(*(Text(str(cell)) for cell in cells))
    out.print(shown)
