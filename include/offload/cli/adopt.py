"""`adopt`: what an Iceberg table of another program holds, and with `--yes` going on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli.common import TableArgument, instant_us, load, opened, the_spec
from include.offload.cli.console import Json, grid, instant, note, number, out, show

if TYPE_CHECKING:
    from include.offload.adoption import Adoption
    from include.offload.settings import Settings
    from include.offload.spec.model import TableSpec

Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="INSTANT",
        help="The history is complete before this, ISO 8601; left out: before the end of its last window.",
    ),
]
WatermarkFrom = Annotated[
    str | None,
    typer.Option(
        "--watermark-from",
        metavar="TABLE.COLUMN",
        help="Instead of --until: another pipeline's watermark, in the PostgreSQL of OFFLOAD_WATERMARK_URI.",
    ),
]
WatermarkWhere = Annotated[
    str | None,
    typer.Option(
        "--watermark-where", metavar="COLUMN=VALUE", help="Its row; table_name=<the source table> if left out."
    ),
]


def adopt(
    table: TableArgument,
    until: Until = None,
    watermark_from: WatermarkFrom = None,
    watermark_where: WatermarkWhere = None,
    yes: Annotated[bool, typer.Option("--yes", help="Adopt it; without, only what it holds is shown.")] = False,
    json: Json = False,
) -> None:
    """Take over an Iceberg table that holds history of another program (OFL-304). Shows what it holds; --yes does it.

    Windows that equal ClickHouse's count as shipped; the next run ships what differs, as far as the horizon reaches.
    """
    from include.offload import adoption

    settings = load()
    spec = the_spec(settings, table)
    until_us = instant_us(until, "--until")
    if watermark_from is not None:
        if until is not None:
            raise typer.BadParameter("give one of --until and --watermark-from", param_hint="--watermark-from")
        until_us = _imported(settings, spec, watermark_from, watermark_where)
    with opened(settings) as ctx:
        found = adoption.adopt(ctx, spec, until_us, apply=yes)
    show(found, lambda: _print(found, yes))


def _imported(settings: Settings, spec: TableSpec, column: str, where: str | None) -> int:
    from include.offload.ledger.foreign import complete_until_us

    key, equals, value = (where or f"table_name={spec.source.table}").partition("=")
    if not (key and equals and value):
        raise typer.BadParameter(f"{where!r} is not COLUMN=VALUE", param_hint="--watermark-where")
    until_us = complete_until_us(settings.watermark(), column, key, value, table=spec.identity)
    note(f"watermark  {escape(column)} says {instant(until_us - 1)}")
    return until_us


def _print(found: Adoption, yes: bool) -> None:
    if found.already:
        out.print(f"{found.table}: it is this pipeline's already, generation {found.generation}; nothing to do")
        return
    out.print(f"[bold]{found.table}[/]  {number(found.rows)} rows in {number(found.windows)} windows of Iceberg")
    out.print(f"border     {instant(found.border_us)}: the next run appends from here on")
    numbers = ("windows", "rows in Iceberg", "rows in ClickHouse")
    shown = grid("found", *numbers, "from", "to", right=numbers)
    for f in found.found:
        counts = (number(f.windows), number(f.lake_rows), number(f.source_rows))
        shown.add_row(f.group.value, *counts, instant(f.from_us), instant(f.to_us))
    out.print(shown)
    for line in found.notes:
        out.print(f"note       {escape(line)}", soft_wrap=True)
    if yes:
        out.print(f"adopted    snapshot {found.snapshot_id}, generation {found.generation}; the next run goes on")
    else:
        out.print("nothing was changed; --yes adopts it")
