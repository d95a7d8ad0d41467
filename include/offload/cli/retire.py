"""`retire`: a table ends, and says so in the lake and in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from include.offload.cli.common import TableArgument, load, opened, the_spec
from include.offload.cli.console import Json, instant, note, number, out, show
from include.offload.cli.ledger import Yes

if TYPE_CHECKING:
    from include.offload.retiring import Retired


def retire(
    table: TableArgument,
    leave: Annotated[
        int, typer.Option("--leave", min=0, metavar="ROWS", help="So many settled rows stay in ClickHouse alone.")
    ] = 0,
    undo: Annotated[bool, typer.Option("--undo", help="Let a retired table go on where it ended.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End a table: no run plans it any more, the lake keeps its rows. Refused while settled rows are unshipped.

    Pause its DAG first; afterwards remove its spec file and end its alerts: bin/offload metrics --retire TABLE.
    """
    from include.offload import retiring

    settings = load()
    spec = the_spec(settings, table)
    if not undo and not yes:
        note("Rows that come later are offloaded no more; what the lake holds stays.")
        typer.confirm(f"Retire {table}?", abort=True)
    with opened(settings) as ctx:
        done = retiring.undo(ctx, spec) if undo else retiring.retire(ctx, spec, leave)

    def render() -> None:
        for line in _lines(done):
            out.print(line, markup=False, soft_wrap=True)

    show(done, render)


def _lines(done: Retired) -> list[str]:
    if not done.retired:
        return [f"{done.table}: {'it goes on' if done.changed else 'it was not retired'}, watermark {_at(done)}"]
    left = f", {number(done.left)} settled rows stay in ClickHouse alone" if done.left else ""
    was = "" if done.changed else " already"
    return [
        f"{done.table}: retired{was}, watermark {_at(done)}{left}",
        f"next: remove its spec file and its DAG, then bin/offload metrics --retire {done.table}",
    ]


def _at(done: Retired) -> str:
    return instant(done.watermark_us)
