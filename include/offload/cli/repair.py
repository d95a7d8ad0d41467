"""`repair`: replace exactly one window that verify named, from ClickHouse, and look at it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli import run
from include.offload.cli.common import TableArgument, instant_us, load, opened, the_spec
from include.offload.cli.console import Json, err, note, out, show
from include.offload.cli.ledger import Yes
from include.offload.cli.reconcile import BECAUSE
from include.offload.errors import RANGE_REFUSED, VERIFY_FAILED, OffloadError
from include.offload.windows import Span, from_us

if TYPE_CHECKING:
    from include.offload.context import Context
    from include.offload.spec.model import TableSpec
    from include.offload.steps import CheckResult


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did. found: what differed before, one sentence each; run: None when nothing did.

    differing: windows of the table that are known to differ still.
    """

    table: str
    window: Span
    found: tuple[str, ...]
    run: run.RunReport | None
    differing: int


def repair(
    table: TableArgument,
    window: Annotated[
        str,
        typer.Argument(
            metavar="WINDOW",
            help="An instant of the window, such as the beginning that `verify` prints; without an offset it is UTC.",
        ),
    ],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Replace one window in Iceberg by what ClickHouse holds of it, when both readers find that they differ.

    Never a window that ClickHouse expires, and none that holds fewer rows than were shipped.
    """
    moment_us = instant_us(window, "WINDOW")
    assert moment_us is not None  # noqa: S101 - an argument that must be given
    settings = load()
    spec = the_spec(settings, table)
    with opened(settings) as ctx:
        done = _repair(ctx, spec, moment_us, yes=yes)
    show(done, lambda: _print(done))


def _repair(ctx: Context, spec: TableSpec, moment_us: int, *, yes: bool) -> Repaired:
    """Look, ask, replace, look again. Raises OFL-407 for a window that must not be replaced, OFL-409 when it still
    differs."""
    from include.offload import steps
    from include.offload.ledger import findings
    from include.offload.repairing import recount, window_at
    from include.offload.verify import verify

    span = window_at(ctx, spec, moment_us)
    with err.status(f"looking at {span} …"):
        before = verify(ctx, spec, span.lo, span.hi)
    found = tuple(before.findings())
    report = None
    if not before.ok:
        # unchanged for the ledger, when it was the lake that somebody changed: only a forced run replaces it then
        request = steps.RunRequest(run.run_id(), span.lo, span.hi, force=True)
        _refuse(steps.preview(ctx, spec, request), span)
        for line in found:
            note(escape(line))
        if not yes:
            note("All that Iceberg holds of this window goes, whoever wrote it; the snapshot before stays readable.")
            typer.confirm(f"Replace {span} of {spec.identity} by what ClickHouse holds?", abort=True, err=True)
        checked, report = run.execute(ctx, spec, request)
        _refuse(checked, span)
        if report.pending:
            cause = f"{span} changed while it was read and is as it was; the next run or repair reads it again"
            raise OffloadError(VERIFY_FAILED, cause, table=spec.identity)
        with err.status(f"looking at {span} again …"):
            after = verify(ctx, spec, span.lo, span.hi)
        if not after.ok:
            raise OffloadError(VERIFY_FAILED, "; ".join(after.findings()), table=spec.identity)
    recount(ctx, spec)
    head = ctx.ledger.head(spec.identity)
    assert head is not None  # noqa: S101 - the window was offloaded
    return Repaired(spec.identity, span, found, report, findings.differing(ctx.ledger, head.table_id))


def _refuse(checked: CheckResult, span: Span) -> None:
    """Raises OFL-407 when the plan leaves the window as it is."""
    if checked.plan.windows:
        return
    table = checked.plan.table
    if not checked.left:
        cause = (
            f"{span}: ClickHouse held nothing there when it was offloaded, and holds nothing now; rows that somebody"
            " else wrote there into Iceberg are theirs to delete"
        )
        raise OffloadError(RANGE_REFUSED, cause, table=table)
    (left,) = checked.left
    cause = f"{span}: {BECAUSE[left.reason.value]} (ClickHouse {left.rows} rows, lake {left.ledger_rows})"
    if left.reason == "shrunk":
        lo, hi = (f"{from_us(us):%Y-%m-%dT%H:%M:%SZ}" for us in (span.lo, span.hi))
        cause += f": bin/offload reconcile {table} --from {lo} --to {hi} --follow-deletes"
    raise OffloadError(RANGE_REFUSED, cause, table=table)


def _print(done: Repaired) -> None:
    if done.run is None:
        out.print(f"{done.table}: {done.window} is equal by both readers, nothing to repair", soft_wrap=True)
    else:
        run.print_report(done.run)
        out.print(f"{done.table}: {done.window} was replaced and is equal by both readers", soft_wrap=True)
    if done.differing:
        out.print(f"[yellow]{done.differing} windows still differ; bin/offload verify {done.table} names them[/]")
