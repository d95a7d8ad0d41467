"""`accept-loss`: a person's word that what is recorded as lost, or as different, is known and stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from include.offload.cli.common import TableArgument, load, opened, the_spec
from include.offload.cli.console import Json, note, out, show
from include.offload.cli.ledger import Yes
from include.offload.windows import ALL_TIME

if TYPE_CHECKING:
    from include.offload.ledger.findings import Finding

WORDS = {
    "lost": "rows expired in ClickHouse before they were shipped",
    "verify": "verify saw that ClickHouse and Iceberg differ",
    "reconcile": "reconcile left it different",
    "total": "rows that no window accounts for",
}


def accept_loss(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Stop saying what is recorded as lost or different of a table: rows that expired unshipped never come back.

    Nothing is changed in ClickHouse or Iceberg. Windows that differ are recorded again when they are compared again.
    """
    from include.offload.ledger import findings

    settings = load()
    with opened(settings) as ctx:
        head = ctx.ledger.head(table)
        if head is None:
            # a name that nobody knows is refused; of one that never ran nothing is recorded
            the_spec(settings, table)
        found = [] if head is None else findings.of(ctx.ledger, head.table_id)
        for one in found:
            note(escape(_line(one)))
        if found and not yes:
            typer.confirm(f"Whoever reads {table} knows of it?", abort=True)
        accepted = [] if head is None else findings.accept(ctx.ledger, head.table_id)
        if head is not None:
            ctx.metrics.verified(table, 0)
            ctx.metrics.lost(table, 0)

    def render() -> None:
        windows = sum(one.windows for one in accepted)
        said = f"accepted, {windows} windows" if accepted else "nothing is recorded as lost or different"
        out.print(f"{table}: {said}", markup=False, soft_wrap=True)

    show({"table": table, "accepted": accepted}, render)


def _line(one: Finding) -> str:
    where = "the whole table" if one.span == ALL_TIME else f"{one.span}, {one.windows} windows"
    rows = f", {one.rows} rows at least" if one.rows else ""
    return f"{where}: {WORDS[one.kind.value]}{rows}"
