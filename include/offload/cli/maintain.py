"""`maintain`: care for one Iceberg table now, as its maintenance DAG does."""

from __future__ import annotations

import json as jsonlib
import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli import job
from include.offload.cli.common import TableArgument, load, opened, the_spec
from include.offload.cli.console import Json, err, flags, grid, note, number, out, show, size
from include.offload.errors import OffloadError
from include.offload.settings import ROOT, Settings

if TYPE_CHECKING:
    from include.offload.maintenance.model import LakeState, MaintenancePlan, MaintenanceResult

DRIVER_MEMORY = "1g"
"""On one machine the driver writes the compacted files itself."""


def maintain(
    table: TableArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Work beside a running offload of the table too.")] = False,
    json: Json = False,
) -> None:
    """Compact files, rewrite manifests, expire snapshots and remove orphans of a table, as far as it needs it."""
    from include.offload.maintenance.model import RESULT
    from include.offload.maintenance.planning import plan_maintenance
    from include.offload.maintenance.reporting import now_us, report, report_rest

    settings = load()
    spec = the_spec(settings, table)
    with opened(settings) as ctx:
        with err.status("reading the table's metadata …"):
            plan = plan_maintenance(ctx, spec, now_us())
        if dry_run:
            show(jsonlib.loads(plan.to_json()), lambda: _print_plan(plan))
            return
        if not plan.steps:
            report_rest(ctx, plan)
            show({"table": table, "steps": []}, lambda: _print_plan(plan))
            return
        argv = command(plan, settings, no_wait=no_wait)
        if flags.debug:
            note(" ".join(argv))
        try:
            with err.status(f"maintaining {table} …"):
                said = job.run_job(argv, job.environment(), table, lambda _: None)
        except OffloadError:
            ctx.metrics.maintained(table, success=False)
            raise
        result = RESULT.validate_python(said)
        report(ctx, result)
    show(said, lambda: _print_result(plan, result))


def command(plan: MaintenancePlan, settings: Settings, *, no_wait: bool = False) -> list[str]:
    """The spark-submit call of a plan. No secret is in it: the job reads its settings itself."""
    master = os.environ.get("OFFLOAD_SPARK_MASTER")
    options = ["--master", master] if master else []
    options += ["--name", f"maintain-{plan.table}", "--driver-memory", DRIVER_MEMORY]
    if settings.jars():
        options += ["--jars", ",".join(settings.jars())]
    arguments = ["--plan", plan.to_json(), *(["--no-wait"] if no_wait else [])]
    return ["spark-submit", *options, str(ROOT / "spark_jobs" / "maintain.py"), *arguments]


def _print_plan(plan: MaintenancePlan) -> None:
    _print_state(plan.table, now=plan.before)
    for step in plan.steps:
        out.print(f"  {step.care:<18} {escape(step.why)}")
    for skipped in plan.skipped:
        out.print(f"  [dim]{skipped.care:<18} nothing: {escape(skipped.why)}[/]")


def _print_result(plan: MaintenancePlan, result: MaintenanceResult) -> None:
    _print_state(result.table, before=result.before, after=result.after)
    for step in result.steps:
        figures = ", ".join(f"{name.replace('_', ' ')} {number(n)}" for name, n in step.figures.items() if n)
        said = escape(step.why or figures or "nothing changed")
        out.print(f"  {step.care:<18} {step.status}, {step.seconds:.1f} s: {said}")
    for skipped in plan.skipped:
        out.print(f"  [dim]{skipped.care:<18} nothing: {escape(skipped.why)}[/]")


def _print_state(table: str, **states: LakeState) -> None:
    columns = ("files", "small", "average", "with deletes", "snapshots", "manifests", "metadata")
    shown = grid(table, *columns, right=columns)
    for name, s in states.items():
        shown.add_row(
            name,
            number(s.files),
            number(s.small_files),
            size(s.average_bytes),
            number(s.delete_files),
            number(s.snapshots),
            number(s.manifests),
            size(s.metadata_bytes),
        )
    out.print(shown)
