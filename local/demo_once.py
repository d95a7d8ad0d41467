"""`make demo ONCE=1`: offload what was settled at the start, prove it with both readers, say so with the exit code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from include.offload.airflow_rest import AirflowRest, DagRun
from include.offload.cli.common import any_replica
from include.offload.cli.console import instant, number
from include.offload.cli.overview import Overview, overview
from include.offload.context import Context
from include.offload.errors import OffloadError
from include.offload.spec.model import TableSpec
from include.offload.verify import VerifyReport, verify
from include.offload.windows import Grid

POLL_S = 2.0
SAY_EVERY_S = 30.0
"""How often it says what goes on where there is no terminal, seconds."""


HINT = "The data stays, and `make demo ONCE=1` goes on from here. Logs: bin/offload stack status --json, and .run/logs."


class DemoError(Exception):
    """The demo did not do what it promises; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What was settled in a table when the demo began. `until_us`: the watermark must reach it; µs UTC."""

    spec: TableSpec
    until_us: int


def goals(ctx: Context, specs: Sequence[TableSpec]) -> list[Goal]:
    """The settled extent of every table now, by ClickHouse's clock."""
    with any_replica(ctx.settings, "offload demo") as client:
        now = client.now_us()
    return [Goal(s, Grid(s.window_us).settled_until(now, s.settle_us)) for s in specs]


def trigger_all(airflow: AirflowRest, specs: Sequence[TableSpec]) -> dict[str, DagRun]:
    """Starts one run of every DAG, by identity."""
    for spec in specs:
        airflow.pause(spec.dag_id, False)
    return {s.identity: airflow.trigger(s.dag_id) for s in specs}


def reached(goal: Goal, seen: Overview) -> bool:
    """Whether the table's watermark covers its goal; a table that never held a settled row has nothing to reach."""
    row = next(t for t in seen.tables if t.table == goal.spec.identity)
    if row.watermark_us is None:
        return row.unshipped_rows == 0 and row.last_success_us is not None
    return row.watermark_us >= goal.until_us


def wait(
    ctx: Context,
    airflow: AirflowRest,
    wanted: Sequence[Goal],
    runs: Mapping[str, DagRun],
    console: Console,
    limit_s: float,
) -> None:
    """Waits until every watermark covers its goal.

    Raises DemoError when a run failed for good, or when nothing went on in Airflow for `limit_s` seconds; it names
    the tables and their errors.
    """
    specs = [g.spec for g in wanted]
    left = list(wanted)
    changed = said = time.monotonic()
    before: object = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("tables offloaded", total=len(wanted), detail="")
        while True:
            seen = overview(ctx, specs)
            missing = [g for g in left if not reached(g, seen)]
            for goal in (g for g in left if g not in missing):
                # unpausing may have started the schedule's own run too: one run a table is enough here
                airflow.pause(goal.spec.dag_id, True)
                if not console.is_terminal:
                    console.print(f"           {goal.spec.identity} offloaded")
            left = missing
            if not left:
                return
            states = airflow.states()
            detail = ", ".join(f"{g.spec.table_name} {states.get(g.spec.dag_id, 'waiting')}" for g in left[:4])
            progress.update(bar, completed=len(wanted) - len(left), detail=detail)
            broken = [g.spec.identity for g in left if airflow.run(runs[g.spec.identity]).state == "failed"]
            if broken:
                raise DemoError(_why(seen, broken, "the run failed"))
            now = time.monotonic()
            if (activity := airflow.activity()) != before:
                before, changed = activity, now
            if now - changed > limit_s:
                raise DemoError(_why(seen, [g.spec.identity for g in left], f"nothing went on for {limit_s:.0f} s"))
            if not console.is_terminal and now - said > SAY_EVERY_S:
                console.print(f"           {len(left)} to go: {detail}", soft_wrap=True)
                said = now
            time.sleep(POLL_S)


def _why(seen: Overview, tables: Sequence[str], what: str) -> str:
    errors = {t.table: t.last_error for t in seen.tables}
    lines = [f"{table}: {what}" + (f": {errors[table]}" if errors.get(table) else "") for table in tables]
    return "\n".join([*lines, *seen.problems, HINT])


def verify_all(ctx: Context, wanted: Sequence[Goal], console: Console) -> list[VerifyReport]:
    """Both readers on every table, up to its goal. Raises DemoError that names the differences."""
    reports: list[VerifyReport] = []
    wrong: list[str] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("tables verified", total=len(wanted), detail="")
        for goal in wanted:
            progress.update(bar, detail=goal.spec.identity)
            try:
                report = verify(ctx, goal.spec, None, goal.until_us)
            except OffloadError as error:
                wrong.append(str(error))
                continue
            reports.append(report)
            wrong += [f"{report.table}: {what}" for what in report.findings()]
            progress.advance(bar)
    if wrong:
        raise DemoError("\n".join(["ClickHouse and Iceberg differ:", *wrong[:20]]))
    return reports


def result_table(reports: Sequence[VerifyReport], seen: Overview) -> Table:
    """What `make demo ONCE=1` prints at its end."""
    rows = {t.table: t for t in seen.tables}
    shown = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("table", "ClickHouse rows", "Iceberg rows", "verified rows", "windows", "watermark", "verdict"):
        shown.add_column(name, justify="right" if name.endswith("rows") or name == "windows" else "left")
    for report in reports:
        row = rows[report.table]
        shown.add_row(
            escape(report.table),
            number(row.clickhouse_rows),
            number(row.iceberg_rows),
            number(report.source_rows),
            number(report.windows),
            instant(row.watermark_us),
            "[green]equal by both readers[/]" if report.ok else "[red]differs[/]",
        )
    return shown
