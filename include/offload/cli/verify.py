"""`verify`: two readers without shared code compare ClickHouse and Iceberg."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import typer
from rich.markup import escape

from include.offload.cli.common import All, FromOption, OneOrAll, ToOption, chosen, load, opened, range_us
from include.offload.cli.console import Json, err, grid, instant, number, out, plain, show
from include.offload.errors import OffloadError

if TYPE_CHECKING:
    from include.offload.verify import VerifyReport

RIGHT = ("windows", "ClickHouse rows", "Iceberg rows")


SHOWN_FINDINGS = 20


def verify(
    table: OneOrAll = None,
    all_: All = False,
    from_: FromOption = None,
    to: ToOption = None,
    json: Json = False,
) -> None:
    """Check that Iceberg holds what ClickHouse holds: per window count and content hash, and every numeric sum."""
    from include.offload.verify import verify as verify_table

    settings = load()
    specs = chosen(settings, table, all_)
    lo, hi = range_us(from_, to)
    reports: list[VerifyReport] = []
    refused: list[OffloadError] = []
    with opened(settings) as ctx:
        for spec in specs:
            try:
                with err.status(f"verifying {spec.identity} …"):
                    reports.append(verify_table(ctx, spec, lo, hi))
            except OffloadError as error:
                if not all_:
                    raise
                refused.append(error)

    def render() -> None:
        shown = grid("table", "windows", "ClickHouse rows", "Iceberg rows", "up to", "result", right=RIGHT)
        for r in reports:
            verdict = "[green]equal by both readers[/]" if r.ok else f"[red]{len(r.findings())} differ[/]"
            shown.add_row(
                r.table, number(r.windows), number(r.source_rows), number(r.pyiceberg_rows), instant(r.span.hi), verdict
            )
        out.print(shown)
        for r in reports:
            for span in r.left_out[:SHOWN_FINDINGS]:
                out.print(f"  {r.table}: not compared, ClickHouse no longer holds all of it: {escape(str(span))}")
            if len(r.left_out) > SHOWN_FINDINGS:
                out.print(f"  {r.table}: … and {len(r.left_out) - SHOWN_FINDINGS} more; --json lists all")
            for older in r.older:
                out.print(f"  {r.table}: {escape(str(older))}")
            for finding in r.findings()[:SHOWN_FINDINGS]:
                out.print(f"  {r.table}: {escape(finding)}")
        for refusal in refused:
            err.print(escape(str(refusal)))

    documents = [{"ok": r.ok, **cast("dict[str, object]", plain(r))} for r in reports]
    show({"tables": documents, "errors": [str(e) for e in refused]} if all_ else documents[0], render)
    if refused or not all(r.ok for r in reports):
        raise typer.Exit(1)
