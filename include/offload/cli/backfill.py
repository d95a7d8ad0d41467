"""`backfill`: a range of any length in bounded plans, oldest first; typed again, it goes on where it stopped.

A plan is small enough for one run (`plan.rows` and `plan.bytes` of the spec), and the next begins where it ends. What
was shipped before is known by count and hash, so a second start passes over it. Nothing is to be remembered in between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from include.offload.cli import job, run
from include.offload.cli.common import TableArgument, load, opened, range_us, the_spec
from include.offload.cli.console import Json, err, instant, note, number, out, show, span_of_time
from include.offload.errors import PLAN_SUPERSEDED, OffloadError
from include.offload.model import Action
from include.offload.windows import Grid, Span

if TYPE_CHECKING:
    from include.offload.context import Context
    from include.offload.model import Plan
    from include.offload.spec.model import TableSpec
    from include.offload.steps import CheckResult, RunRequest

MAX_PASSED = 5
"""How often in a row other runs of the table may land first before a backfill gives up on one range."""
INTERRUPTED = 130
"""The exit code of a shell command that Ctrl-C ended."""


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What a backfill did. Instants µs UTC; the range is that of whole windows, as far as they were settled.

    plans: those that shipped something. appended, replaced: windows. left: windows that differ, or may differ, and
    were left as they are. pending: windows that changed while they were read; the next run reads them.
    """

    table: str
    from_us: int
    to_us: int
    plans: tuple[str, ...]
    rows: int
    appended: int
    replaced: int
    left: int
    pending: tuple[Span, ...]
    watermark_us: int | None
    seconds: float


def backfill(
    table: TableArgument,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="First instant, ISO 8601; without an offset it is UTC. Default: the watermark.",
            metavar="INSTANT",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="First instant that is not in the range; default: now.", metavar="INSTANT"),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Slices of a plan that are read at a time; default: slice.concurrency of the spec. Plans follow each"
            " other, whatever this says.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Ship a range in bounded plans, oldest first. Stopped by Ctrl-C or killed: type it again, and it goes on.

    Exit 1 when windows that differ were left alone, or changed while they were read and stay pending.
    """
    lo, hi = range_us(from_, to or f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    assert hi is not None  # noqa: S101 - it was given
    settings = load()
    spec = with_parallel(the_spec(settings, table), parallel)
    from include.offload.ledger.claims import claimed

    with opened(settings) as ctx, claimed(ctx.ledger, table) as claim, _interrupt_is_no_failure():
        start = _watermark(ctx, spec) if lo is None else lo
        done = ship_range(ctx, spec, Span(start, max(start, hi)), claim.sure)
    show(done, lambda: _print(done))
    if done.left or done.pending:
        raise typer.Exit(1)


def _watermark(ctx: Context, spec: TableSpec) -> int:
    """Where the ledger says that the table stands; µs UTC. A wrong call for a table without a watermark."""
    head = ctx.ledger.head(spec.identity)
    if head is None or head.watermark_us is None:
        raise typer.BadParameter("the table has no watermark yet: give --from", param_hint="--from")
    return head.watermark_us


def with_parallel(spec: TableSpec, parallel: int | None) -> TableSpec:
    """The spec with so many slices at a time, for the plans of this call only."""
    if parallel is None:
        return spec
    return spec.model_copy(update={"slice": spec.slice.model_copy(update={"concurrency": parallel})})


@contextmanager
def _interrupt_is_no_failure() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note("[yellow]stopped: what was committed stays; type the same command again to go on[/]")
        raise typer.Exit(INTERRUPTED) from None


def ship_range(ctx: Context, spec: TableSpec, asked: Span, sure: Callable[[], None]) -> BackfillReport:
    """One plan after the other until the range is through. `sure` is called before each; it raises to stop."""
    from include.offload import steps

    grid = Grid(spec.window_us)
    started, stamp = time.monotonic(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}__{os.getpid()}"
    whole = Span(grid.floor(asked.lo), grid.ceil(asked.hi))
    reports: list[run.RunReport] = []
    counts = {Action.APPEND: 0, Action.REPLACE: 0}
    left, at, number_of_plan, end = 0, whole.lo, 0, whole.lo
    with _bar(whole) as (moved, landed):
        while True:
            sure()
            number_of_plan += 1
            request = steps.RunRequest(f"cli__backfill__{stamp}__{number_of_plan}", at, whole.hi, bounded=True)
            checked, report = _not_passed(ctx, spec, request, moved)
            end = checked.plan.scan.hi
            for window in checked.plan.windows:
                counts[window.action] += 1
            left += sum(x.differs for x in checked.left)
            reports.append(report)
            landed(checked.plan, sum(r.rows for r in reports))
            if checked.cut_us is None:
                break
            at = checked.cut_us
    return BackfillReport(
        table=spec.identity,
        from_us=whole.lo,
        to_us=end,
        plans=tuple(r.plan_id for r in reports if r.status != "nothing"),
        rows=sum(r.rows for r in reports),
        appended=counts[Action.APPEND],
        replaced=counts[Action.REPLACE],
        left=left,
        pending=tuple(span for r in reports for span in r.pending),
        watermark_us=reports[-1].watermark_us,
        seconds=round(time.monotonic() - started, 3),
    )


def _not_passed(
    ctx: Context, spec: TableSpec, request: RunRequest, moved: run.Watch
) -> tuple[CheckResult, run.RunReport]:
    """One plan, made anew when another run of the table landed first (rule 1): the schedule goes on meanwhile."""
    for passed in range(1, MAX_PASSED + 1):
        try:
            return run.execute(ctx, spec, request, moved)
        except OffloadError as error:
            if error.kind is not PLAN_SUPERSEDED or passed == MAX_PASSED:
                raise
            note(f"another run of {escape(spec.identity)} landed first, planning again: {escape(error.cause)}")
    raise AssertionError("unreachable")


@contextmanager
def _bar(whole: Span) -> Iterator[tuple[run.Watch, Callable[[Plan, int], None]]]:
    """A bar over the range's time, on stderr. Yields what moves it within a plan, and what ends a plan."""
    columns = (
        SpinnerColumn(),
        TextColumn("backfill"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    before = 0
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("backfill", total=whole.hi - whole.lo, said="planning")

        def moved(made: Plan, p: job.Progress) -> None:
            share = min(1.0, p.rows / p.rows_planned) if p.rows_planned else 0.0
            at = made.scan.lo + round((made.scan.hi - made.scan.lo) * share)
            rate = p.rows / p.seconds if p.seconds > 0 else 0.0
            said = f"{number(before + p.rows)} rows, {number(round(rate))} rows/s, {instant(at)}"
            bar.update(task, completed=at - whole.lo, said=said)

        def landed(made: Plan, rows: int) -> None:
            nonlocal before
            before = rows
            bar.update(task, completed=made.scan.hi - whole.lo, said=f"{number(rows)} rows, {instant(made.scan.hi)}")
            note(f"through to {instant(made.scan.hi)}, {number(rows)} rows so far")

        yield moved, landed


def _print(done: BackfillReport) -> None:
    out.print(f"[bold]{done.table}[/]  {instant(done.from_us)} … {instant(done.to_us)}")
    out.print(f"rows       {number(done.rows)} in {len(done.plans)} plans")
    out.print(f"windows    {number(done.appended)} appended, {number(done.replaced)} replaced")
    out.print(f"watermark  {instant(done.watermark_us)}")
    out.print(f"time       {span_of_time(done.seconds)}")
    if done.left:
        out.print(
            f"[yellow]left       {number(done.left)} windows differ and were left alone:"
            f" bin/offload reconcile {done.table} --dry-run names them[/]"
        )
    if done.pending:
        first, last = done.pending[0], done.pending[-1]
        out.print(
            f"[yellow]pending    {len(done.pending)} windows changed while they were read and are not shipped,"
            f" {instant(first.lo)} … {instant(last.hi)}: the next run reads them again[/]"
        )
