"""`ledger …`, `accept-source`, `take-over`, `restore-main`: when the pipeline refuses to go on by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.offload.cli.common import All, OneOrAll, TableArgument, chosen, load, opened, the_spec
from include.offload.cli.console import Json, err, grid, instant, note, number, out, show
from include.offload.errors import TARGET_MISSING, OffloadError
from include.offload.settings import home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from include.offload.context import Context
    from include.offload.ledger.backup import Backup
    from include.offload.ledger.history import PastPlan
    from include.offload.settings import Settings
    from include.offload.spec.model import TableSpec

app = typer.Typer(help="The ledger in PostgreSQL. Iceberg is the truth, the ledger follows.", no_args_is_help=True)

HISTORY_NUMBERS = ("generation", "windows", "rows")

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def _recover(
    table: str,
    act: Callable[[Context, TableSpec], object],
    question: str = "",
    warning: str = "",
    *,
    keeps: bool = False,
) -> None:
    """Do what was asked, after a yes to the question if there is one, and show what came of it.

    keeps: with a backup of the ledger first.
    """
    settings = load()
    spec = the_spec(settings, table)
    if question:
        note(warning)
        typer.confirm(question, abort=True)
    if keeps:
        note(f"kept the ledger as it is: {_back_up(settings, None)}")
    with opened(settings) as ctx:
        done = act(ctx, spec)
    show(done, lambda: out.print(str(done), markup=False, soft_wrap=True))


@app.command()
def rebuild(table: OneOrAll = None, all_: All = False, json: Json = False) -> None:
    """Restore a table's ledger from Iceberg: marker, summaries and a count of the lake per window.

    With `--all` one table that is refused leaves the others alone; the exit code is 1 then. A table that has no Iceberg
    table has nothing to rebuild, and is named.
    """
    from include.offload import recovery

    settings = load()
    specs = chosen(settings, table, all_)
    done: list[recovery.Rebuilt] = []
    refused: list[OffloadError] = []
    empty: list[str] = []
    with opened(settings) as ctx:
        for spec in specs:
            try:
                with err.status(f"rebuilding {spec.identity} …"):
                    done.append(recovery.rebuild(ctx, spec))
            except OffloadError as error:
                if not all_:
                    raise
                if error.kind is TARGET_MISSING:
                    empty.append(spec.identity)
                else:
                    refused.append(error)

    def render() -> None:
        for one in done:
            out.print(str(one), markup=False, soft_wrap=True)
        for identity in empty:
            out.print(f"{identity}: there is no Iceberg table; its next run begins anew", markup=False, soft_wrap=True)
        for error in refused:
            err.print(str(error), markup=False, soft_wrap=True)

    document = {"tables": done, "without_iceberg_table": empty, "errors": [str(e) for e in refused]}
    show(document if all_ else done[0], render)
    if refused:
        raise typer.Exit(1)


@app.command()
def forget(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Begin anew with a table whose Iceberg table was dropped on purpose (OFL-309)."""
    from include.offload import recovery

    _recover(
        table,
        recovery.forget,
        question="" if yes else f"Forget what was shipped of {table}?",
        warning="What was shipped and has expired in ClickHouse since is gone with the Iceberg table.",
        keeps=True,
    )


@app.command()
def history(
    table: TableArgument,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    json: Json = False,
) -> None:
    """Show the newest plans of a table: which run made each, what it moved, and what came of it."""
    from include.offload.ledger.history import past_plans

    settings = load()
    with opened(settings) as ctx:
        found = past_plans(ctx.ledger, the_spec(settings, table).identity, limit)

    def render() -> None:
        shown = grid("made", "generation", "status", "windows", "rows", "watermark", "run", right=HISTORY_NUMBERS)
        for p in found:
            made = f"{p.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
            numbers = (number(p.windows), number(p.rows))
            shown.add_row(made, str(p.generation), p.status, *numbers, instant(p.watermark_us), escape(p.run_id))
        out.print(shown)
        for text in _back(found):
            out.print(text, markup=False, soft_wrap=True)

    show({"table": table, "plans": found}, render)


def _back(found: Sequence[PastPlan]) -> list[str]:
    """One line for each plan, of those that landed, whose watermark is before that of the one before it."""
    landed = [(p.run_id, p.watermark_us) for p in found if p.status == "committed" and p.watermark_us is not None]
    return [
        f"the watermark went back with {run_id}, from {instant(before)} to {instant(now)}"
        for (run_id, now), (_, before) in zip(landed, landed[1:], strict=False)
        if now < before
    ]


@app.command()
def upgrade(json: Json = False) -> None:
    """Bring the ledger's schema up to this code; safe to repeat. Says when tables are missing (OFL-507)."""
    from include.offload.ledger import migrate
    from include.offload.ledger.store import SCHEMA_REVISION

    settings = load()
    migrate.upgrade(settings.ledger())
    migrate.check_whole(settings.ledger())
    show({"revision": SCHEMA_REVISION}, lambda: out.print(f"the ledger is at revision {SCHEMA_REVISION}"))


@app.command()
def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="The one of the older code, e.g. 0004.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take the ledger's schema back for older code, after a backup. What the older schema has no place for is lost.

    Pause the DAGs first. `upgrade` with the newer code brings the schema up again.
    """
    from include.offload.ledger import migrate

    settings = load()
    if revision not in (known := migrate.revisions()):
        raise typer.BadParameter(f"{revision!r} is none of {', '.join(known)}", param_hint="REVISION")
    note(f"Only code of revision {revision} can use the ledger then.")
    if not yes:
        typer.confirm(f"Take the ledger back to revision {revision}?", abort=True)
    kept = _back_up(settings, None)
    note(f"kept the ledger as it is: {kept}")
    migrate.downgrade(settings.ledger(), revision)
    show({"revision": revision, "kept": kept}, lambda: out.print(f"the ledger is at revision {revision}"))


@app.command()
def check(json: Json = False) -> None:
    """Look whether the ledger's schema is that of this code (OFL-502) and no table is missing (OFL-507)."""
    from include.offload.ledger import migrate
    from include.offload.ledger.store import SCHEMA_REVISION, Ledger

    uri = load().ledger()
    ledger = Ledger(uri)
    try:
        ledger.check_schema()
    finally:
        ledger.close()
    migrate.check_whole(uri)
    show({"revision": SCHEMA_REVISION}, lambda: out.print(f"the ledger is whole, at revision {SCHEMA_REVISION}"))


@app.command()
def backup(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The file to write; it must not exist. OFFLOAD_HOME/backups by default."),
    ] = None,
    json: Json = False,
) -> None:
    """Write the whole ledger into one file; safe at any time. Also what is left of a damaged one."""
    made = _back_up(load(), file)
    show(made, lambda: out.print(f"wrote {made}", markup=False, soft_wrap=True))


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup of the whole ledger.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make the ledger what it was when a backup was made, all of it or nothing. Keeps a backup of what it replaces.

    Runs that landed since are refused with OFL-405 until `ledger rebuild TABLE`. Pause the DAGs first.
    """
    from include.offload.ledger import backup as backups

    settings = load()
    try:
        found = backups.look(file)
        note(f"{found}, made at {found.made_at}")
        note("Everything that the ledger holds now is replaced; what landed since is refused until `ledger rebuild`.")
        if not yes:
            typer.confirm("Replace the ledger by this backup?", abort=True)
        kept = _back_up(settings, None)
        note(f"kept what was there: {kept}")
        done = backups.restore(settings.ledger(), file)
    except (backups.NotABackupError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from None
    show({"restored": done, "kept": kept}, lambda: out.print(f"restored {done}", markup=False, soft_wrap=True))


@app.command()
def recreate(yes: Yes = False, json: Json = False) -> None:
    """Make a damaged ledger anew and empty, after a backup of what is left. `ledger rebuild TABLE` then fills it.

    For a ledger of which tables or columns are missing and that has no backup: `upgrade` does not bring those back.
    """
    from include.offload.ledger import backup as backups

    settings = load()
    note("Every table of the ledger is dropped and made again, empty. Iceberg and ClickHouse are not touched.")
    if not yes:
        typer.confirm("Make the ledger anew?", abort=True)
    kept = _back_up(settings, None)
    note(f"kept what was there: {kept}")
    made = backups.recreate(settings.ledger())
    for name in made.guarded:
        note(f"{name}: its TTL merges are stopped, and stay so. Next, in ClickHouse: SYSTEM START TTL MERGES {name}")
    text = f"the ledger is empty, at revision {made.revision}. Next: bin/offload ledger rebuild TABLE, for each table"
    show(
        {"revision": made.revision, "guarded": made.guarded, "kept": kept},
        lambda: out.print(text, markup=False, soft_wrap=True),
    )


def _folder() -> Path:
    return home() / "backups"


def _back_up(settings: Settings, file: Path | None) -> Backup:
    from include.offload.ledger import backup as backups

    path = file or _folder() / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}{backups.SUFFIX}"
    try:
        return backups.save(settings.ledger(), path)
    except FileExistsError:
        raise typer.BadParameter(f"{path} is there already", param_hint="FILE") from None


def accept_source(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Go on with a source table that was dropped and made again (OFL-209)."""
    from include.offload import recovery

    _recover(
        table,
        recovery.accept_source,
        question="" if yes else f"Accept the new source of {table}?",
        warning="The lake keeps what it holds; the new ClickHouse table is offloaded from the watermark on.",
    )


def take_over(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Make this pipeline the owner of an Iceberg table that another one wrote (OFL-303)."""
    from include.offload import recovery

    _recover(
        table,
        recovery.take_over,
        question="" if yes else f"Take over the Iceberg table of {table}?",
        warning="Stop the other pipeline first: its next commit is refused, ours begins at the marker it left.",
        keeps=True,
    )


def restore_main(table: TableArgument, yes: Yes = False, json: Json = False) -> None:
    """Set the Iceberg table back to the offload's last commit: undoes a roll-back or a delete (OFL-305, OFL-311).

    Shows what leaves the branch main and asks; it stays readable by a tag. Nothing in the ledger changes.
    """
    from include.offload import recovery

    settings = load()
    spec = the_spec(settings, table)
    with opened(settings) as ctx:
        seen = recovery.to_undo(ctx, spec)
        if not seen.nothing:
            note(str(seen))
            if not yes:
                typer.confirm(f"Set main of {table} to snapshot {seen.then}?", abort=True)
        done = recovery.restore_main(ctx, spec, seen)
    text = str(done) if done.nothing else f"{table}: main is at snapshot {done.then}; the next run goes on from there"
    show(
        {"table": table, "before": done.now, "snapshot": done.then, "tag": done.tag},
        lambda: out.print(text, markup=False, soft_wrap=True),
    )
