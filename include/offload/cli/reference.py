"""`errors` and `metrics`: the two registries, printed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from include.offload import metrics as metrics_module
from include.offload.cli.common import load
from include.offload.cli.console import Json, grid, note, out, show
from include.offload.error_notes import note as explanation
from include.offload.errors import REGISTRY, SETTING_MISSING, ErrorKind, OffloadError
from include.offload.runbooks import link, path_of


def errors(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One error id, e.g. OFL-203 or 203.")] = None,
    json: Json = False,
) -> None:
    """Explain an error id, or list all of them."""
    if id is not None:
        wanted = id.upper() if id.upper().startswith("OFL-") else f"OFL-{id}"
        if wanted not in REGISTRY:
            raise typer.BadParameter(f"{id!r} is no error id; `bin/offload errors` lists them", param_hint="ID")
        kind = REGISTRY[wanted]
        show(asdict(kind) | {"note": explanation(kind.id)}, lambda: _one(kind))
        return

    def render() -> object:
        table = grid("id", "what happened", "retry", "next")
        for kind in REGISTRY.values():
            table.add_row(kind.id, escape(kind.title), "yes" if kind.retry else "", escape(example(kind)))
        return table

    show(list(REGISTRY.values()), render)


def example(kind: ErrorKind) -> str:
    """The next step, for no table in particular."""
    return kind.next_step.replace("{table}", "DB.TABLE")


def _one(kind: ErrorKind) -> None:
    out.print(f"[bold]{kind.id}[/]  {escape(kind.title)}")
    if text := explanation(kind.id):
        out.print(f"\n{escape(text)}\n")
    again = "the same task may succeed when run again" if kind.retry else "running again changes nothing"
    out.print(f"retry    {again}")
    out.print(f"next     {escape(example(kind))}")
    out.print(f"runbook  {escape(link(path_of(kind.id), load().runbooks_url))}", soft_wrap=True)


def _retire(table: str) -> None:
    settings = load()
    database, dot, name = table.partition(".")
    if not (database and dot and name):
        raise typer.BadParameter(f"{table!r} is not DB.TABLE", param_hint="--retire")
    spec = settings.tables / database / f"{name}.yaml"
    if spec.exists():
        # a spec that is there and broken is a table in danger
        raise typer.BadParameter(f"{table} has a spec, {spec}; remove it first", param_hint="--retire")
    if settings.statsd_port is None:
        raise OffloadError(SETTING_MISSING, "OFFLOAD_STATSD_PORT is not set: there is nobody to tell")
    emitter = metrics_module.Metrics(settings)
    emitter.retire(table)
    emitter.close()
    note(f"told {settings.statsd_host}:{settings.statsd_port} that {table} is gone; its alerts end within 15 minutes")


def metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of the docs.")] = False,
    declare: Annotated[bool, typer.Option("--declare", help="Send every counter of every table as 0.")] = False,
    retire: Annotated[
        str | None,
        typer.Option("--retire", metavar="TABLE", help="End the alerts on a table without a spec."),
    ] = None,
    json: Json = False,
) -> None:
    """List what the pipeline reports of itself, start every counter at 0, or end the alerts on a table that is gone."""
    if retire is not None:
        _retire(retire)
        return
    if declare:
        from include.offload.cli.common import all_specs

        settings = load()
        specs = all_specs(settings)
        emitter = metrics_module.Metrics(settings)
        emitter.announce(specs, configured=len(specs))
        emitter.close()
        note(f"declared the metrics of {len(specs)} tables to {settings.statsd_host}:{settings.statsd_port}")
        return
    if markdown:
        out.print(metrics_module.markdown(), end="", markup=False, soft_wrap=True)
        return

    def render() -> object:
        table = grid("metric", "type", "unit", "labels", "meaning")
        for m in metrics_module.REGISTRY.values():
            table.add_row(m.name, m.kind.value, m.unit, ", ".join(m.labels), m.meaning)
        return table

    show(list(metrics_module.REGISTRY.values()), render)
