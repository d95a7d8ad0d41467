"""`dag`: a table's DAG in a running Airflow, by the table's name: runs, logs, pause, trigger, clear."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

import typer
from rich.markup import escape

from include.offload.cli.common import (
    All,
    FromOption,
    OneOrAll,
    TableArgument,
    ToOption,
    chosen,
    instant_us,
    load,
    the_spec,
)
from include.offload.cli.console import Json, grid, out, show
from include.offload.errors import MONITORING_UNREACHABLE, SETTING_MISSING, OffloadError
from include.offload.monitor import address

if TYPE_CHECKING:
    from include.offload.airflow_rest import AirflowRest, DagRun

app = typer.Typer(help="A table's DAG in Airflow, through Airflow's REST API.", no_args_is_help=True)

Maintenance = Annotated[
    bool, typer.Option("--maintenance", help="The DAG that takes care of the Iceberg table, which expires snapshots.")
]
Run = Annotated[str | None, typer.Option("--run", help="The run's id; the newest one that fits by default.")]


@contextmanager
def _session() -> Iterator[AirflowRest]:
    """Raises OFL-102 without an address and login, OFL-505 when Airflow does not answer or refuses."""
    from include.offload.airflow_rest import AirflowRest, AirflowRestError

    url = load().required_server("airflow")
    parts = urlsplit(url)
    if not parts.username or parts.password is None:
        raise OffloadError(SETTING_MISSING, "OFFLOAD_AIRFLOW_URL holds no login: http://USER:PASSWORD@HOST:PORT")
    with closing(AirflowRest(address(url), unquote(parts.username), unquote(parts.password))) as airflow:
        try:
            yield airflow
        except AirflowRestError as error:
            raise OffloadError(MONITORING_UNREACHABLE, str(error)) from None


def _dag_id(table: str) -> str:
    """Raises OFL-101 for a table without a spec."""
    return the_spec(load(), table).dag_id


@app.command()
def runs(
    table: TableArgument, limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 5, json: Json = False
) -> None:
    """Show the newest runs and what each task came to."""
    with _session() as airflow:
        found = [(run, airflow.tasks(run)) for run in airflow.runs(_dag_id(table), limit)]
        paused = airflow.dags().get(_dag_id(table))

    def render() -> None:
        shown = grid("started", "state", "seconds", "tasks", "run")
        for run, tasks in found:
            states = ", ".join(f"{name} {state}" for name, (state, _) in sorted(tasks.items()))
            shown.add_row(
                (run.started or "-")[:19],
                run.state,
                "-" if run.seconds is None else f"{run.seconds:.0f}",
                states,
                run.run_id,
            )
        out.print(shown)
        good = sum(run.state == "success" for run, _ in found)
        out.print(f"{'all' if good == len(found) else f'{good} of'} {len(found)} ended well")
        out.print(f"the DAG is {'paused' if paused else 'active' if paused is False else 'unknown to Airflow'}")

    show({"paused": paused, "runs": [{"run": r, "tasks": t} for r, t in found]}, render)


@app.command()
def log(
    table: TableArgument,
    run: Run = None,
    task: Annotated[str | None, typer.Option(help="The task; the one that failed by default.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="The last so many lines.")] = 40,
) -> None:
    """Print the log of the newest failed task, or of the named one."""
    with _session() as airflow:
        for one in _of(airflow, table, run):
            tasks = airflow.tasks(one)
            wanted = [task] if task else [name for name, (state, _) in tasks.items() if state == "failed"]
            for name in wanted:
                if name in tasks and tasks[name][1]:
                    text = airflow.task_log(one, name, tasks[name][1])
                    out.print(f"{one.run_id} {name}, try {tasks[name][1]}")
                    out.print(escape("\n".join(text.splitlines()[-lines:])), soft_wrap=True)
                    return
    out.print("no failed task among the newest runs" if task is None else f"no run with a log of {task}")


@app.command()
def pause(
    table: OneOrAll = None,
    all_: All = False,
    maintenance: Maintenance = False,
    wait: Annotated[float, typer.Option(help="Also wait so many seconds for the task that is under way.")] = 0,
) -> None:
    """Let the scheduler start no new task; the one that runs goes on. Exit code 1 when it is waited for and runs on."""
    dags = _pause(_dags(table, all_, maintenance), True)
    if not wait:
        return
    # the task, not its run: Airflow starts no further task of a run whose DAG is paused, so the run may never end
    end = time.monotonic() + wait
    with _session() as airflow:
        late = [dag_id for dag_id in dags if not airflow.idle(dag_id, max(0.0, end - time.monotonic()))]
    for dag_id in late:
        out.print(f"a task of {dag_id} still runs after {wait:.0f} s")
    if late:
        raise typer.Exit(1)


@app.command()
def unpause(table: OneOrAll = None, all_: All = False, maintenance: Maintenance = False) -> None:
    """Let the scheduler start runs again; what was missed is made good by the next run."""
    _pause(_dags(table, all_, maintenance), False)


@app.command()
def trigger(
    table: TableArgument,
    from_: FromOption = None,
    to: ToOption = None,
    force: Annotated[bool, typer.Option(help="Ship windows again that are equal already.")] = False,
    wait: Annotated[float, typer.Option(help="Wait so many seconds for its end; 0: do not wait.")] = 0,
) -> None:
    """Start a run now, as the button in Airflow does. Exit code 1 when it was waited for and did not end well."""
    for text, option in ((from_, "--from"), (to, "--to")):
        instant_us(text, option)
    conf = {k: v for k, v in (("from", from_), ("to", to), ("force", force)) if v}
    with _session() as airflow:
        made = airflow.trigger(_dag_id(table), conf)
        if wait:
            made = airflow.ended(made, wait)
    out.print(f"{made.run_id} {made.state}")
    if wait and made.state != "success":
        raise typer.Exit(1)


@app.command()
def clear(table: TableArgument, run: Run = None) -> None:
    """Have the tasks that failed in the newest failed run, and what follows them, run again. Safe to repeat."""
    with _session() as airflow:
        for one in _of(airflow, table, run):
            failed = [name for name, (state, _) in airflow.tasks(one).items() if state == "failed"]
            if failed:
                airflow.clear(one, failed)
                out.print(f"{one.run_id}: cleared {', '.join(failed)} and what follows")
                return
    out.print("no failed task to clear")


@app.command()
def pool(
    table: TableArgument,
    slots: Annotated[int | None, typer.Option(min=0, help="Give it so many slots; 0: no job starts any more.")] = None,
    json: Json = False,
) -> None:
    """Show the slots that the table's jobs share with those of other tables, or change how many there are."""
    name = the_spec(load(), table).pool
    with _session() as airflow:
        if slots is not None:
            airflow.resize(name, slots)
        found = airflow.pool(name)
    told = ", ".join(f"{number} {kind}" for kind, number in found.items() if kind != "slots")
    show({"pool": name, **found}, lambda: out.print(f"{name} has {found['slots']} slots: {told}"))


@app.command("errors")
def errors_(json: Json = False) -> None:
    """Show the DAG files that Airflow can not import. Exit code 1 when there is one."""
    with _session() as airflow:
        found = airflow.import_errors()
    show(
        found, lambda: out.print("\n\n".join(escape(one) for one in found) or "every DAG file imports", soft_wrap=True)
    )
    if found:
        raise typer.Exit(1)


@app.command()
def connections(
    table: TableArgument,
    reset: Annotated[
        str | None,
        typer.Option("--reset", metavar="CONNECTION", help="Give this one of Airflow's the command line's address."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Show where Airflow's connections of a table lead, beside what the command line uses.

    They may differ on purpose, where the two stand in different networks; login and password are not compared.
    """
    from include.offload.cli.addresses import used_here

    settings, spec = load(), the_spec(load(), table)
    wanted = used_here(settings, spec)
    if reset is not None and reset not in {one.connection for one in wanted}:
        known = ", ".join(one.connection for one in wanted)
        raise typer.BadParameter(f"{reset!r} is no connection of {table}; there are {known}", param_hint="--reset")
    with _session() as airflow:
        found = {one.connection: airflow.connection(one.connection) for one in wanted}
        rows = [one.beside(found[one.connection]) for one in wanted]

        def render() -> None:
            shown = grid("connection", "Airflow", "command line", "")
            for row in rows:
                shown.add_row(row.connection, row.airflow or "-", row.here, row.verdict)
            out.print(shown)

        show(rows, render)
        movable = [(one, row) for one, row in zip(wanted, rows, strict=True) if row.movable and row.connection == reset]
        if not movable:
            return
        if not yes:
            typer.confirm(f"Change {', '.join(row.connection for _, row in movable)} in Airflow?", abort=True)
        for one, row in movable:
            airflow.move_connection(one.connection, str((found[one.connection] or {})["conn_type"]), one.host, one.port)
            out.print(f"{row.connection} leads to {row.here}; it led to {row.airflow}")


def _dags(table: str | None, every: bool, maintenance: bool) -> tuple[str, ...]:
    """The DAGs of one table's offload, or of all. Raises OFL-101, OFL-104."""
    specs = chosen(load(), table, every)
    return tuple(spec.maintenance_dag_id if maintenance else spec.dag_id for spec in specs)


def _pause(dag_ids: tuple[str, ...], paused: bool) -> tuple[str, ...]:
    """Those of the DAGs that Airflow has; all are, or one is missing and that is an error when it was named alone."""
    with _session() as airflow:
        before = airflow.dags()
        known = dag_ids if len(dag_ids) == 1 else tuple(one for one in dag_ids if one in before)
        for dag_id in known:
            airflow.pause(dag_id, paused)
            was = " already" if len(dag_ids) > 1 and before.get(dag_id) is paused else ""
            out.print(f"{dag_id} is {'paused' if paused else 'active'}{was}")
    for dag_id in dag_ids:
        if dag_id not in known:
            out.print(f"{dag_id} is not known to Airflow")
    return known


def _of(airflow: AirflowRest, table: str, run: str | None) -> list[DagRun]:
    found = airflow.runs(_dag_id(table), 25)
    return [one for one in found if run is None or one.run_id == run]
