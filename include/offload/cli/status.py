"""`status`: per table the rows on both sides, the watermark, the lag, the last run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from include.offload.cli.common import all_specs, load, opened, the_spec
from include.offload.cli.console import Json, err, grid, instant, number, out, show, span_of_time

if TYPE_CHECKING:
    from include.offload.cli.overview import Overview, TableStatus

COLOURS = {"ok": "green", "new": "cyan", "late": "yellow", "failed": "red"}


def status(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="One table; all when left out.")] = None,
    json: Json = False,
) -> None:
    """Show where every table stands: rows in ClickHouse and Iceberg, watermark, lag, last run."""
    from include.offload.cli.overview import overview

    settings = load()
    specs = all_specs(settings) if table is None else (the_spec(settings, table),)
    with opened(settings) as ctx:
        seen = overview(ctx, specs)

    def render() -> None:
        out.print(as_table(seen))
        for failed in (s for s in seen.tables if s.last_error):
            out.print(f"[red]{failed.table}[/]  {escape(failed.last_error or '')}")
        for row in seen.tables:
            for line in row.notes:
                out.print(f"[yellow]{row.table}[/]  {escape(line)}", soft_wrap=True)
        for problem in seen.problems:
            err.print(f"[yellow]{escape(problem)}[/]")

    show(seen, render)
    if seen.problems:
        raise typer.Exit(1)


def as_table(seen: Overview, states: dict[str, str] | None = None) -> Table:
    """The table of `status`, and of the demo. states: replaces the state of a table, e.g. by Airflow's."""
    numbers = ("ClickHouse rows", "Iceberg rows", "unshipped", "lag")
    shown = grid("table", *numbers[:3], "watermark", "lag", "last run", "state", right=numbers)
    for row in seen.tables:
        state = (states or {}).get(row.table, row.state)
        shown.add_row(
            row.table,
            number(row.clickhouse_rows),
            number(row.iceberg_rows),
            number(row.unshipped_rows),
            instant(row.watermark_us),
            span_of_time(row.lag_seconds),
            _ago(row, seen.now_us),
            f"[{COLOURS.get(state, 'white')}]{state}[/]",
        )
    return shown


def _ago(row: TableStatus, now_us: int | None) -> str:
    if row.last_run_us is None or now_us is None:
        return "-"
    return f"{span_of_time(max(0, now_us - row.last_run_us) / 1e6)} ago"
