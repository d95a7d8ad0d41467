"""`view`: one query over the MergeTree and Iceberg."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from include.offload.cli.common import TableArgument, load, opened, the_spec
from include.offload.cli.console import Json, err, instant, out, plain, show

Lake = Annotated[
    str,
    typer.Option("--lake-database", metavar="DB", help="ClickHouse's database of the engine DataLakeCatalog."),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="VIEW", help="The view, in the source's database; TABLE_hot_and_cold if left out."),
]
Apply = Annotated[
    bool, typer.Option("--apply", help="Create or replace it, as the user of OFFLOAD_CLICKHOUSE_VIEW_URI.")
]


def view(
    table: TableArgument, lake_database: Lake = "lake", name: Name = None, apply: Apply = False, json: Json = False
) -> None:
    """Print a ClickHouse view over both: rows from the watermark on of the MergeTree, older ones of Iceberg."""
    from include.offload import hotcold

    settings = load()
    spec = the_spec(settings, table)
    with opened(settings) as ctx:
        made = hotcold.hot_cold_view(ctx, spec, lake_database, name)
        if apply:
            hotcold.apply(ctx, made)

    def render() -> None:
        out.print(f"{made.statement};", markup=False, highlight=False, soft_wrap=True)
        notes = [f"{'applied' if apply else 'border'}: {made.name}, {instant(made.border_us)}"]
        if made.expires_us is not None:
            notes.append(f"apply it again before {instant(made.expires_us)}: then rows after this border may expire")
        if made.as_in_lake:
            notes.append(f"in the form of the lake (columns.overrides): {', '.join(made.as_in_lake)}")
        if made.left_out:
            notes.append(f"not in the lake, so not in the view: {', '.join(made.left_out)}")
        if not apply:
            notes += ["whoever creates it needs:", *(f"  {g};" for g in made.grants)]
        for note in notes:
            err.print(f"-- {note}", markup=False, highlight=False, soft_wrap=True)

    document = cast("dict[str, object]", plain(made))
    show({"applied": apply, **document}, render)
