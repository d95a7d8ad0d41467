"""`plan` and `run`: what the next run of a table would do, and the three steps without Airflow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from include.offload.cli import job
from include.offload.cli.common import FromOption, TableArgument, ToOption, load, opened, range_us, the_spec
from include.offload.cli.console import Json, err, flags, grid, instant, note, number, out, show, size, span_of_time
from include.offload.errors import OffloadError
from include.offload.model import Plan
from include.offload.slicing import place
from include.offload.windows import Grid, Span

if TYPE_CHECKING:
    from include.offload.context import Context
    from include.offload.jobwords import Place
    from include.offload.spec.model import TableSpec
    from include.offload.steps import CheckResult, RunRequest

Watch = Callable[[Plan, job.Progress], None]
ForceOption = Annotated[bool, typer.Option("--force", help="Ship the range again even where nothing changed.")]


@dataclass(frozen=True, slots=True)
class RunReport:
    """What `run` did. `status`: the job's, `nothing` when the plan had no rows.

    pending: windows that changed while they were read, µs UTC; nothing of them was shipped, the next run reads them.
    """

    table: str
    plan_id: str
    generation: int
    status: str
    rows: int
    windows: int
    bytes: int
    files: int
    snapshot_id: int | None
    watermark_us: int | None
    seconds: float
    job_seconds: float
    rows_per_second: float | None
    pending: tuple[Span, ...] = ()


def plan(
    table: TableArgument,
    from_: FromOption = None,
    to: ToOption = None,
    force: ForceOption = False,
    sql: Annotated[bool, typer.Option("--sql/--no-sql", help="Show each slice's query.")] = True,
    json: Json = False,
) -> None:
    """Show what the next run would ship, without freezing a plan: windows, slices and their SQL."""
    from include.offload import steps

    settings = load()
    spec = the_spec(settings, table)
    request = steps.RunRequest(run_id(), *range_us(from_, to), force)
    with opened(settings) as ctx:
        result = steps.preview(ctx, spec, request)
    made = result.plan
    queries = [steps.slice_sql(made, s) for s in made.slices]
    document = {
        "table": table,
        "generation": made.generation,
        "predecessor": made.predecessor,
        "rows": made.rows,
        "watermark_before_us": made.watermark_before,
        "watermark_after_us": made.watermark_after,
        "windows": made.windows,
        "slices": [
            {"number": s.number, "partition": s.partition, "spans": s.spans, "rows": s.rows, "sql": q}
            for s, q in zip(made.slices, queries, strict=True)
        ],
        "notes": result.notes,
    }
    show(document, lambda: _print_plan(made, result.notes, queries if sql else []))


def _print_plan(made: Plan, notes: Any, queries: list[str]) -> None:
    widths = Grid(made.width_us)
    out.print(f"[bold]{made.table}[/]  generation {made.generation}, after {made.predecessor or 'nothing'}")
    out.print(f"source     {made.source_identity} on {made.replica}")
    out.print(f"watermark  {instant(made.watermark_before)} → {instant(made.watermark_after)}")
    if not made.windows:
        out.print("nothing to ship")
    for action in ("append", "replace"):
        chosen = [w for w in made.windows if w.action == action]
        if chosen:
            first, last = widths.span(chosen[0].window), widths.span(chosen[-1].window)
            rows = number(sum(w.rows for w in chosen))
            out.print(f"{action:<10} {len(chosen)} windows, {rows} rows, {instant(first.lo)} … {instant(last.hi)}")
    for line in notes:
        out.print(f"note       {escape(str(line))}")
    if made.slices:
        shown = grid("slice", "partition", "rows", "from", "to", right=("slice", "rows"))
        for s in made.slices:
            partition = ", ".join(str(v) for v in s.partition) or "-"
            shown.add_row(str(s.number), partition, number(s.rows), instant(s.spans[0].lo), instant(s.spans[-1].hi))
        out.print(shown)
    for i, query in enumerate(queries):
        out.print(f"\n-- slice {i}", markup=False)
        out.print(query, markup=False, soft_wrap=True)


def run(
    table: TableArgument,
    from_: FromOption = None,
    to: ToOption = None,
    force: ForceOption = False,
    json: Json = False,
) -> None:
    """Run the three steps for a table without Airflow: plan, Spark job, watermark; exit 1 when windows stay pending."""
    from include.offload import steps

    settings = load()
    spec = the_spec(settings, table)
    request = steps.RunRequest(run_id(), *range_us(from_, to), force)
    with opened(settings) as ctx:
        _, report = execute(ctx, spec, request)
    show(report, lambda: print_report(report))
    if report.pending:
        raise typer.Exit(1)


def execute(
    ctx: Context, spec: TableSpec, request: RunRequest, watch: Watch | None = None
) -> tuple[CheckResult, RunReport]:
    """The three steps, with progress on stderr; what was planned and what was done. Raises OFL-…

    watch: is told how far the job is, instead of a bar of its own.
    """
    from include.offload import steps

    table = spec.identity
    started = time.monotonic()
    outcome: dict[str, Any] = {}
    with _step(ctx, table, "check_extent", shown=watch is None):
        checked = steps.check_extent(ctx, spec, request)
    made = checked.plan
    for line in checked.notes:
        note(f"note: {escape(str(line))}")
    note(f"plan {made.plan_id}: {number(made.rows)} rows, {len(made.windows)} windows, {len(made.slices)} slices")
    if made.touches_lake:
        with _reported(ctx, table, "offload"):
            who = place(made.rows, spec.plan.driver_rows)
            outcome = _ship(made, who) if watch is None else _submit(made, who, lambda p: watch(made, p))
    with _step(ctx, table, "update_watermark", shown=watch is None):
        moved = steps.update_watermark(ctx, spec, made.plan_id)
    seconds, job_seconds = time.monotonic() - started, float(outcome.get("seconds") or 0)
    return checked, RunReport(
        table=table,
        plan_id=str(made.plan_id),
        generation=moved.generation,
        status=str(outcome.get("status", "nothing")),
        rows=int(outcome.get("rows", 0)),
        windows=len(made.windows),
        bytes=int(outcome.get("bytes", 0)),
        files=int(outcome.get("files", 0)),
        snapshot_id=moved.snapshot_id,
        watermark_us=moved.watermark_us,
        seconds=round(seconds, 3),
        job_seconds=round(job_seconds, 3),
        rows_per_second=round(outcome["rows"] / job_seconds) if outcome.get("rows") and job_seconds else None,
        pending=tuple(Grid(made.width_us).span(int(n)) for n in outcome.get("pending_windows", ())),
    )


@contextmanager
def _reported(ctx: Context, table: str, step: str) -> Iterator[None]:
    """A failure of the step goes into the metrics and the ledger, as it does under Airflow; then it goes on."""
    try:
        yield
    except OffloadError as error:
        ctx.metrics.failure(table, step, error.id, final=True)
        # a ledger that is away is most likely the very failure
        with suppress(OffloadError):
            ctx.ledger.failed(table, str(error))
        raise


@contextmanager
def _step(ctx: Context, table: str, step: str, *, shown: bool) -> Iterator[None]:
    # rich has one moving display at a time
    with err.status(f"{step} …") if shown else nullcontext(), _reported(ctx, table, step):
        yield


def _submit(made: Plan, who: Place, moved: Callable[[job.Progress], None]) -> dict[str, Any]:
    """The Spark job of a plan."""
    argv = job.command(made.plan_id, who)
    if flags.debug:
        note(" ".join(argv))
    return job.run_job(argv, job.environment(), made.table, moved)


def _ship(made: Plan, who: Place) -> dict[str, Any]:
    """The Spark job of a plan, behind a progress bar."""
    columns = (
        SpinnerColumn(),
        TextColumn("offload"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("offload", total=made.rows or None, rows="starting Spark", rate="")

        def moved(p: job.Progress) -> None:
            rate = p.rows / p.seconds if p.seconds > 0 else 0.0
            left = (
                f", {span_of_time((p.rows_planned - p.rows) / rate)} left" if rate and p.rows < p.rows_planned else ""
            )
            rows = (
                f"{number(p.rows)} of {number(p.rows_planned)} rows, slice {p.slices_done}/{p.slices}, {size(p.bytes)}"
            )
            bar.update(task, completed=min(p.rows, p.rows_planned), rows=rows, rate=f"{number(int(rate))} rows/s{left}")

        return _submit(made, who, moved)


def print_report(report: RunReport) -> None:
    """What a run did, for people."""
    if report.status == "nothing":
        out.print(f"{report.table}: nothing to ship; watermark {instant(report.watermark_us)}")
        return
    out.print(f"[bold]{report.table}[/]  {report.status}")
    out.print(
        f"rows       {number(report.rows)} in {report.windows} windows, {report.files} files, {size(report.bytes)}"
    )
    out.print(f"snapshot   {report.snapshot_id}, generation {report.generation}")
    out.print(f"watermark  {instant(report.watermark_us)}")
    rate = f", {number(int(report.rows_per_second))} rows/s in the job" if report.rows_per_second else ""
    out.print(f"time       {span_of_time(report.seconds)}{rate}")
    if report.pending:
        first, last = report.pending[0], report.pending[-1]
        out.print(
            f"[yellow]pending    {len(report.pending)} windows changed while they were read and are not shipped,"
            f" {instant(first.lo)} … {instant(last.hi)}: the next run reads them again[/]"
        )


def run_id() -> str:
    """A run id that says that a person ran it: `cli__2026-01-31T12:00:00Z__4711`."""
    return f"cli__{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}__{os.getpid()}"
