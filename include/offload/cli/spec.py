"""`spec check` and `spec new`: the YAML files that describe tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli.common import any_replica, load
from include.offload.cli.console import Json, err, flags, note, out, show
from include.offload.errors import SPEC_INVALID, OffloadError
from include.offload.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.offload.spec.check import SourceCheck
    from include.offload.spec.model import TableSpec

app = typer.Typer(help="Table specs: one YAML file, one table, one DAG.", no_args_is_help=True)


@app.command()
def check(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="One table; all when left out.")] = None,
    source: Annotated[bool, typer.Option("--source", help="Also hold the specs against ClickHouse.")] = False,
    json: Json = False,
) -> None:
    """Check the specs: fields and rules, and with --source the columns, types and TTL of the real tables."""
    from include.offload.spec.load import load_specs, no_spec

    settings = load()
    result = load_specs(settings.tables, settings.env)
    specs = [s for s in result.specs if table in (None, s.identity)]
    seen = _against_source(settings, specs) if source else []
    refused = [e for check in seen for e in check.errors]
    if table is not None and not specs and not result.errors:
        raise no_spec(table, settings.tables)
    document = {
        "tables": [s.identity for s in specs],
        "errors": [_as_dict(e) for e in result.errors],
        "source_errors": [{"table": e.table, "id": e.id, "cause": e.cause, "next": e.next_step} for e in refused],
        "warnings": [{"table": c.spec.identity, "text": w} for c in seen for w in c.warnings],
    }

    def render() -> None:
        for error in result.errors:
            err.print(escape(str(error)), soft_wrap=True)
        for refusal in refused:
            err.print(escape(str(refusal)), soft_wrap=True)
        for check in seen:
            for warning in check.warnings:
                err.print(f"[yellow]{escape(check.spec.identity)}[/]  {escape(warning)}", soft_wrap=True)
        good = len(specs) - sum(bool(check.errors) for check in seen)
        files = len(specs) + len({e.path for e in result.errors})
        out.print(f"{good} of {files} specs are good in {settings.tables}", soft_wrap=True)

    show(document, render)
    if result.errors or refused:
        raise typer.Exit(1)


def _as_dict(error: object) -> dict[str, object]:
    import dataclasses

    if dataclasses.is_dataclass(error) and not isinstance(error, type):
        return {f.name: getattr(error, f.name) for f in dataclasses.fields(error)}
    return {"message": str(error)}


def _against_source(settings: Settings, specs: Sequence[TableSpec]) -> list[SourceCheck]:
    from include.offload.spec.check import check_source

    with any_replica(settings, "offload spec check") as client:
        return [check_source(client, spec) for spec in specs]


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="DB.TABLE", help="The ClickHouse table to describe.")],
    write: Annotated[bool, typer.Option("--write", help="Write the file instead of printing it.")] = False,
    json: Json = False,
) -> None:
    """Draft the YAML of a table from what ClickHouse says of it: cursor, partition and TTL guessed and explained."""
    from include.offload.source.describe import describe
    from include.offload.spec.draft import draft, gather, identity_of

    database, dot, table = name.partition(".")
    if not (database and dot and table):
        raise typer.BadParameter(f"{name!r} is not DB.TABLE", param_hint="DB.TABLE")
    settings = load()
    with any_replica(settings, "offload spec new") as client:
        described = describe(client, database, table)
        text = draft(described, gather(client, described))
    identity = identity_of(described)
    folder, _, file = identity.partition(".")
    path = settings.tables / folder / f"{file}.yaml"
    if write:
        if path.exists():
            raise OffloadError(SPEC_INVALID, f"{path} is there already; remove it first or edit it", table=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    document = {"table": identity, "path": str(path), "written": write, "yaml": text}
    if write and not flags.json:
        note(f"wrote {path}. Next: bin/offload spec check --source {identity}, then unpause offload__{folder}__{file}")
        return
    show(document, lambda: out.print(text, end="", markup=False, soft_wrap=True))
