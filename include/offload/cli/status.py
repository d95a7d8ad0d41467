"""`status`: per table the rows on both sides, the watermark, the lag, the last run; once, or again and again."""

from __future__ import annotations

import json as json_module
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from include.offload.cli.common import all_specs, load, opened, the_spec
from include.offload.cli.console import (
    Json,
    err,
    flags,
    grid,
    instant,
    number,
    out,
    plain,
    refusal_document,
    show,
    span_of_time,
)
from include.offload.errors import OffloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from include.offload.cli.overview import Overview, TableStatus
    from include.offload.spec.model import TableSpec

COLOURS = {"ok": "green", "new": "cyan", "late": "yellow", "failed": "red"}


def status(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="One table; all when left out.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=1, help="Seconds between two looks of --watch.", metavar="SECONDS")
    ] = 5,
    json: Json = False,
) -> None:
    """Show where every table stands: rows in ClickHouse and Iceberg, watermark, lag, last run.

    With --watch --json: one JSON document a line. Exit code 1 when a server could not be asked; --watch goes on and
    says so, and ends with 0 on Ctrl-C.
    """
    from include.offload.cli.overview import overview

    settings = load()
    specs = all_specs(settings) if table is None else (the_spec(settings, table),)
    with opened(settings) as ctx:
        if watch:
            _watch(lambda: overview(ctx, specs), specs, interval)
            return
        seen = overview(ctx, specs)
    show(seen, lambda: _print(seen))
    if seen.problems:
        raise typer.Exit(1)


def _print(seen: Overview) -> None:
    out.print(as_table(seen))
    for line in _notes(seen):
        out.print(line, soft_wrap=True)
    for problem in seen.problems:
        err.print(f"[yellow]{escape(problem)}[/]")


def _notes(seen: Overview) -> list[Text]:
    failed = [(row.table, "red", row.last_error) for row in seen.tables if row.last_error]
    noted = [(row.table, "yellow", line) for row in seen.tables for line in row.notes]
    return [Text.assemble((table, colour), "  ", line) for table, colour, line in (*failed, *noted)]


def _watch(look: Callable[[], Overview], specs: Sequence[TableSpec], interval: float) -> None:
    """Shows what `look` finds every `interval` seconds, until it is interrupted."""
    try:
        if flags.json:
            while True:
                _json_line(look)
                time.sleep(interval)
        if not out.is_terminal:
            while True:
                out.print(_screen(look, interval))
                time.sleep(interval)
        waiting = Text(f"asking about {len(specs)} tables …")
        with Live(waiting, console=out, auto_refresh=False, screen=True) as live:
            while True:
                live.update(_screen(look, interval), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def _json_line(look: Callable[[], Overview]) -> None:
    try:
        document = plain(look())
    except OffloadError as error:
        document = refusal_document(error)
    sys.stdout.write(json_module.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _screen(look: Callable[[], Overview], interval: float) -> Group:
    """One look as it is shown; a refusal takes the place of the tables, and the next look may do better."""
    body: list[RenderableType] = []
    try:
        seen = look()
    except OffloadError as error:
        body.append(Text(str(error), style="red"))
    else:
        body += [as_table(seen), *_notes(seen), *(Text(problem, style="yellow") for problem in seen.problems)]
    head = Text(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z, every {interval:g} s; Ctrl-C ends", style="dim")
    return Group(head, *body)


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
