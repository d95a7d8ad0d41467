"""`reconcile`: heal a range, however old: late, changed and deleted rows that no scheduled run looks at any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli import run
from include.offload.cli.common import FromOption, TableArgument, ToOption, load, opened, range_us, the_spec
from include.offload.cli.console import Json, err, flags, note, number, out, show
from include.offload.errors import RANGE_REFUSED, OffloadError
from include.offload.windows import Grid, merge

if TYPE_CHECKING:
    from include.offload.context import Context
    from include.offload.steps import CheckResult

MAX_LINES = 20
"""How many refused windows are printed one by one; `--json` has all."""
BECAUSE = {
    "expiring": "its rows or columns are expiring in ClickHouse, or its TTL can't be read",
    "gone-in-source": "rows of it went with a dropped partition or a shortened TTL",
    "shrunk": "ClickHouse holds fewer rows and the spec says `deletes: keep`; if the lake is to hold no more either,"
    " --follow-deletes over its range",
    "unknown-fingerprint": "it was shipped with other columns, so the hashes can't be compared; --force ships it again",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A window that differs, or may differ, and is left as it is. Instants µs UTC."""

    error: str
    from_us: int
    to_us: int
    reason: str
    clickhouse_rows: int
    iceberg_rows: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile did, or (`run` None) would do."""

    table: str
    append: int
    replace: int
    rows: int
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]
    run: run.RunReport | None


def reconcile(
    table: TableArgument,
    from_: FromOption = None,
    to: ToOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be shipped and refused.")] = False,
    force: run.ForceOption = False,
    follow_deletes: Annotated[
        bool,
        typer.Option(
            "--follow-deletes",
            help="This once, within --from and --to: the lake gives up the rows that ClickHouse no longer holds.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Compare a range of any age (all of it by default) and ship what differs.

    Exit 1 when a window was refused, or changed while it was read and stays pending.
    """
    from include.offload import steps

    lo, hi = range_us(from_, to)
    if follow_deletes and (lo is None or hi is None):
        raise typer.BadParameter("it needs --from and --to", param_hint="--follow-deletes")
    settings = load()
    spec = the_spec(settings, table)
    with opened(settings) as ctx:
        head = ctx.ledger.head(table)
        if lo is None and head is not None:
            lo = head.origin_us
        request = steps.RunRequest(run.run_id(), lo, hi, force, follow_deletes)
        if dry_run:
            checked, report = steps.preview(ctx, spec, request), None
        else:
            checked, report = run.execute(ctx, spec, request)
            _keep(ctx, checked, report)
    done = _reconciled(checked, report)
    show(done, lambda: _print(done))
    if done.refused:
        if flags.json:
            raise typer.Exit(1)
        _print_refused(done)
        raise typer.Exit(1)
    if done.run is not None and done.run.pending:
        raise typer.Exit(1)


def _keep(ctx: Context, checked: CheckResult, report: run.RunReport) -> None:
    """Keep what stays different in the ledger: the next run looks at its own horizon alone.

    What verify found is mended where windows were shipped again: that ledger and ClickHouse agree says nothing of rows
    that somebody else changed in the lake.
    """
    from include.offload.ledger import findings
    from include.offload.ledger.findings import Finding, Kind

    made = checked.plan
    grid = Grid(made.width_us)
    head = ctx.ledger.head(made.table)
    assert head is not None  # noqa: S101 - it was planned
    pending = set(report.pending)
    shipped = merge(span for w in made.windows if (span := grid.span(w.window)) not in pending)
    found = [Finding(Kind.RECONCILE, grid.span(x.window), 1) for x in checked.left if x.differs]
    looked_at = {Kind.RECONCILE: (made.scan,), Kind.VERIFY: (*shipped, *(f.span for f in found))}
    ctx.metrics.verified(made.table, findings.compared(ctx.ledger, head.table_id, grid, looked_at, found))


def _reconciled(checked: CheckResult, report: run.RunReport | None) -> Reconciled:
    made = checked.plan
    grid = Grid(made.width_us)
    return Reconciled(
        table=made.table,
        append=sum(w.action == "append" for w in made.windows),
        replace=sum(w.action == "replace" for w in made.windows),
        rows=made.rows,
        refused=tuple(
            Refused(
                RANGE_REFUSED.id,
                grid.span(x.window).lo,
                grid.span(x.window).hi,
                str(x.reason),
                x.rows,
                x.ledger_rows,
            )
            for x in checked.left
        ),
        notes=checked.notes,
        run=report,
    )


def _print(done: Reconciled) -> None:
    if done.run is not None:
        run.print_report(done.run)
        return
    out.print(f"[bold]{done.table}[/]  would append {done.append} and replace {done.replace} windows")
    out.print(f"rows       {number(done.rows)}")
    for line in done.notes:
        out.print(f"note       {escape(line)}")


def _print_refused(done: Reconciled) -> None:
    for window in done.refused[:MAX_LINES]:
        span = Grid(window.to_us - window.from_us).span(window.from_us // (window.to_us - window.from_us))
        cause = (
            f"{span}: {BECAUSE[window.reason]} (ClickHouse {window.clickhouse_rows} rows, lake {window.iceberg_rows})"
        )
        err.print(escape(str(OffloadError(RANGE_REFUSED, cause, table=done.table))), soft_wrap=True)
    if len(done.refused) > MAX_LINES:
        note(f"… and {len(done.refused) - MAX_LINES} more windows; --json lists all")
