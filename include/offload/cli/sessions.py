"""`ledger sessions`: who holds the ledger up in PostgreSQL, and an end to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli.common import load
from include.offload.cli.console import Json, grid, instant, note, out, show
from include.offload.cli.ledger import Yes
from include.offload.windows import to_us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.offload.ledger.sessions import Session


def sessions(
    end: Annotated[bool, typer.Option("--end", help="End those that are idle in a transaction.")] = False,
    idle: Annotated[float, typer.Option(min=0, help="Of these, those that have been so for so many seconds.")] = 30,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Show which sessions of PostgreSQL others wait for, and end them: what they had not committed is undone.

    Exit code 1 when --end leaves one that holds others up: it works, has just been idle, or another user owns it.
    """
    from include.offload.ledger import sessions as held
    from include.offload.ledger.store import Ledger

    ledger = Ledger(load().ledger())
    try:
        found = held.blockers(ledger)
        show(found, lambda: _print_sessions(found))
        ended = [one for one in found if one.ours and one.idle_s is not None and one.idle_s >= idle]
        if not end:
            return
        if ended and not yes:
            typer.confirm(f"End {', '.join(str(one.pid) for one in ended)}?", abort=True)
        for one in ended:
            note(f"session {one.pid} {'is ended' if held.end(ledger, one.pid) else 'had gone already'}")
    finally:
        ledger.close()
    if len(ended) < len(found):
        note("left: a session that works or was busy a moment ago, or that another user owns; its owner ends it")
        raise typer.Exit(1)


def _print_sessions(found: Sequence[Session]) -> None:
    if not found:
        out.print("no session holds the ledger up")
        return
    shown = grid("session", "user", "program", "state", "since", "waiting", "last query", right=("waiting",))
    for one in found:
        since = "-" if one.since is None else instant(to_us(one.since))
        program = f"{one.application or '-'} {one.address or ''}".strip()
        cells = (one.user or "-", program, one.state or "-", since, str(one.waiting), one.query or "-")
        shown.add_row(str(one.pid), *(escape(cell) for cell in cells))
    out.print(shown)
