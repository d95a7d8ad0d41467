"""`status`: per table the rows on both sides, the watermark, the lag, the last run; once, or again and again."""

from __future__ import annotations

import json as json_module
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
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
    short_instant,
    show,
    span_of_time,
)
from include.offload.errors import OffloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from include.offload.cli.overview import Overview, TableStatus
    from include.offload.spec.model import TableSpec

COLOURS = {"ok": "green", "new": "cyan", "late": "yellow", "failed": "red", "retired": "dim"}
NUMBERS = ("rows", "unshipped", "lag")
UNLIMITED = 10_000
"""Columns, to measure what a table would take."""


@dataclass(frozen=True, slots=True)
class Form:
    """How much room a table takes: short instants and ages or not, and the columns that are left out."""

    short: bool
    without: tuple[str, ...] = ()


FORMS = (
    Form(short=False),
    Form(short=True),
    Form(short=True, without=("last run",)),
    Form(short=True, without=("last run", "watermark")),
    Form(short=True, without=("last run", "rows")),
    Form(short=True, without=("last run", "watermark", "rows")),
)
"""From wide to narrow. When the last run was matters least; the lag says what the watermark says."""


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


def as_table(seen: Overview, states: dict[str, str] | None = None, width: int | None = None) -> Table:
    """The table of `status`, and of the demo. states: replaces the state of a table, e.g. by Airflow's.

    Made for `width` columns, default: the terminal's. Where it is narrow instants and ages are short, then what the
    others say too is left out; the name of a table is never folded.
    """
    width = out.width if width is None else width
    for form in FORMS:
        shown = _table_of(form, seen, states or {})
        if Measurement.get(out, out.options.update(max_width=UNLIMITED), shown).maximum <= width:
            break
    return shown


def _table_of(form: Form, seen: Overview, states: dict[str, str]) -> Table:
    at, span = (short_instant, _short_span) if form.short else (instant, span_of_time)
    rows = "\nrows" if form.short else " rows"
    columns: list[tuple[str, str, Callable[[TableStatus], str]]] = [
        ("table", "table", lambda row: row.table),
        ("rows", f"ClickHouse{rows}", lambda row: number(row.clickhouse_rows)),
        ("rows", f"Iceberg{rows}", lambda row: number(row.iceberg_rows)),
        ("unshipped", "unshipped", lambda row: number(row.unshipped_rows)),
        ("watermark", "watermark", lambda row: at(row.watermark_us)),
        ("lag", "lag", lambda row: span(row.lag_seconds)),
        ("last run", "last run", lambda row: _ago(row, seen.now_us, span)),
        ("state", "state", lambda row: _coloured(states.get(row.table, row.state))),
    ]
    chosen = [column for column in columns if column[0] not in form.without]
    shown = grid(*(heading for _, heading, _ in chosen), right=tuple(h for k, h, _ in chosen if k in NUMBERS))
    for row in seen.tables:
        shown.add_row(*(cell(row) for _, _, cell in chosen))
    return shown


def _coloured(state: str) -> str:
    return f"[{COLOURS.get(state, 'white')}]{state}[/]"


def _short_span(seconds: float | None) -> str:
    """`3 h 20 m` for `3 h 20 min`."""
    return span_of_time(seconds).replace("min", "m")


def _ago(row: TableStatus, now_us: int | None, span: Callable[[float | None], str]) -> str:
    if row.last_run_us is None or now_us is None:
        return "-"
    return f"{span(max(0, now_us - row.last_run_us) / 1e6)} ago"
