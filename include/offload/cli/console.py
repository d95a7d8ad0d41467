"""How the command line speaks: tables for people, one JSON document for programs, one block for a refusal."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from include.offload.errors import OffloadError
from include.offload.windows import from_us

PIPE_WIDTH = 180
"""Columns where there is no terminal: a table in a log file must not be folded at 80."""


def _width(stream: TextIO) -> int | None:
    return None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH


out = Console(highlight=False, width=_width(sys.stdout))
err = Console(stderr=True, highlight=False, width=_width(sys.stderr))


@dataclass
class Flags:
    """What the user asked of every command."""

    debug: bool = False
    json: bool = False


flags = Flags()


def _set_json(value: bool) -> bool:
    flags.json = value
    return value


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text.", callback=_set_json, is_eager=True)
]


def plain(value: object) -> object:
    """`value` as what `json` can write: dataclasses as objects, instants as ISO 8601, UUIDs as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, uuid.UUID | Decimal | Path):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return value


def show(value: object, render: Callable[[], object]) -> None:
    """Prints `value` as JSON when `--json` was given, else what `render` returns (None: it printed itself)."""
    if flags.json:
        sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")
        return
    shown = render()
    if shown is not None:
        out.print(shown)


def note(text: str) -> None:
    """A line about what goes on, on stderr, so that stdout stays one JSON document."""
    err.print(text)


def refusal_document(error: OffloadError) -> dict[str, object]:
    """A refusal as a program reads it."""
    return {
        "error": {
            "id": error.id,
            "title": error.kind.title,
            "table": error.table,
            "cause": error.cause,
            "next": error.next_step,
            "retry": error.kind.retry,
        }
    }


def refuse(error: OffloadError) -> None:
    """The readable block of a refusal, on stderr: id, table, cause, next command."""
    if flags.json:
        sys.stdout.write(json.dumps(refusal_document(error), indent=2, ensure_ascii=False) + "\n")
        return
    err.print(f"[bold red]{error.id}[/]  {escape(error.kind.title)}")
    if error.table:
        err.print(f"table    {escape(error.table)}")
    err.print(f"cause    {escape(error.cause)}", soft_wrap=True)
    err.print(f"next     [bold]{escape(error.next_step)}[/]", soft_wrap=True)


def grid(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table with these headings; those in `right` are numbers. The name of a table is never folded."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == "table")
    return table


def number(value: int | None) -> str:
    """`1 234 567`, and `-` for what is not known."""
    return "-" if value is None else f"{value:,}".replace(",", " ")


def size(value: int | None) -> str:
    """Bytes for people."""
    if value is None:
        return "-"
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def instant(us: int | None) -> str:
    """An instant of µs since the epoch, UTC, to the second."""
    return "-" if us is None else f"{from_us(us):%Y-%m-%d %H:%M:%S}Z"


def short_instant(us: int | None) -> str:
    """The same without year and seconds: `01-31 12:00Z`."""
    return "-" if us is None else f"{from_us(us):%m-%d %H:%M}Z"


def span_of_time(seconds: float | None) -> str:
    """`42 s`, `3 min 20 s`, `5 h 10 min`, `3 d 4 h`."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    for big, big_name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {big_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{whole} s"
