"""The ledger in one file, and back: for the minute before somebody changes it by hand, and for one that is damaged.

The file is a zip of PostgreSQL's own COPY text, one entry a table, and a manifest. It is written from one snapshot of
the database and read back in one transaction: a restore that fails leaves the ledger as it was. It holds no row of a
table that is offloaded and no secret, but names of tables and columns.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from include.offload.errors import LEDGER_OUTDATED, LEDGER_UNREACHABLE, OffloadError
from include.offload.ledger import migrate
from include.offload.ledger.store import SCHEMA_REVISION, engine_for, first_line

MANIFEST = "manifest.json"
FORM = "offload-ledger-1"
SUFFIX = ".ledger.zip"
VERSIONS = "alembic_version"
CHUNK = 1 << 16


class NotABackupError(ValueError):
    """A file that is no whole backup of a ledger; the message says why."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds. `made_at`: ISO 8601, UTC; `revision`: its schema's, None for a ledger without one."""

    path: Path
    made_at: str
    revision: str | None
    rows: dict[str, int]

    def __str__(self) -> str:
        return f"{self.path}: {sum(self.rows.values())} rows of {len(self.rows)} tables, revision {self.revision}"


def save(uri: str, path: Path) -> Backup:
    """Write all tables of the ledger that are there into a new file, readable by its owner alone.

    A table that is missing is left out, so that what is left of a damaged ledger can be kept and looked into; such a
    file can not be restored. Raises OFL-501, FileExistsError.
    """
    with _begin(uri, "REPEATABLE READ, READ ONLY") as c:
        columns = _columns(c)
        revision = _revision(c) if VERSIONS in columns else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        rows: dict[str, int] = {}
        try:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
                for table, names in columns.items():
                    if table == VERSIONS:
                        continue
                    with file.open(table, "w", force_zip64=True) as entry:
                        rows[table] = _copy_out(c, table, names, entry)
                made = Backup(path, datetime.now(UTC).isoformat(timespec="seconds"), revision, rows)
                file.writestr(MANIFEST, json.dumps({"form": FORM, "columns": columns} | asdict(made), default=str))
        except BaseException:
            path.unlink()
            raise
    return made


def look(path: Path) -> Backup:
    """What a file holds. Raises NotABackupError, and OFL-502 for a backup that this code is too old for."""
    return _known(path)[0]


def _known(path: Path) -> tuple[Backup, dict[str, list[str]]]:
    """A backup that this code can read, and the columns of its tables."""
    found, columns = _manifest(path)
    if found.revision is None or found.revision > SCHEMA_REVISION:
        raise OffloadError(
            LEDGER_OUTDATED, f"{path} is of revision {found.revision}, this code knows {SCHEMA_REVISION} and older"
        )
    return found, columns


def restore(uri: str, path: Path) -> Backup:
    """Make the ledger what it was: all of its tables are dropped, made at the backup's revision, filled, upgraded.

    One transaction; who reads or writes the ledger meanwhile waits. Raises NotABackupError, also for what was left of
    a damaged ledger: a head without its windows would ship the horizon a second time. Raises OFL-501, OFL-502.
    """
    found, columns = _known(path)
    with _begin(uri) as c, zipfile.ZipFile(path) as file:
        _drop(c)
        migrate.upgrade_on(c, str(found.revision))
        if missing := sorted(_columns(c).keys() - found.rows.keys() - {VERSIONS}):
            raise NotABackupError(
                f"{path} is what was left of a damaged ledger, without {', '.join(missing)}."
                " Next: bin/offload ledger recreate, then bin/offload ledger rebuild TABLE for each table"
            )
        # its one row is made by the migration
        c.execute(text("DELETE FROM offload.pipeline"))
        for table in _parents_first(found.rows):
            with file.open(table) as entry:
                came = _copy_in(c, table, columns[table], entry)
            if came != found.rows[table]:
                raise NotABackupError(f"{path}: {table} holds {came} rows, its manifest says {found.rows[table]}")
        c.execute(
            text(
                "SELECT setval(pg_get_serial_sequence('offload.tables', 'table_id'),"
                " (SELECT coalesce(max(table_id), 0) + 1 FROM offload.tables), false)"
            )
        )
        migrate.upgrade_on(c, "head")
    return found


@dataclass(frozen=True, slots=True)
class Recreated:
    """An empty ledger. `guarded`: source tables whose TTL merges the old one had stopped; nobody starts them again."""

    revision: str
    guarded: tuple[str, ...]


def recreate(uri: str) -> Recreated:
    """Make the ledger anew and empty, whatever is left of it; `rebuild` then fills it from Iceberg.

    The identity of the installation stays where it can be read: the Iceberg tables name it as their owner. Raises
    OFL-501, OFL-502 when the tables are in use.
    """
    with _begin(uri) as c:
        there = _columns(c)
        ours = c.execute(text("SELECT * FROM offload.pipeline")).mappings().all() if "pipeline" in there else []
        guarded: list[str] = []
        if {"ttl_guard", "tables"} <= there.keys():
            asked = "SELECT identity FROM offload.ttl_guard JOIN offload.tables USING (table_id) ORDER BY identity"
            guarded = [str(name) for (name,) in c.execute(text(asked))]
        _drop(c)
        migrate.upgrade_on(c, "head")
        if ours:
            # its one row is made by the migration
            c.execute(text("DELETE FROM offload.pipeline"))
        for row in ours:
            names = ", ".join(map(str, row))
            c.execute(
                text(f"INSERT INTO offload.pipeline ({names}) VALUES ({', '.join(f':{n}' for n in row)})"), [dict(row)]
            )
    return Recreated(SCHEMA_REVISION, tuple(guarded))


@contextmanager
def _begin(uri: str, level: str = "READ COMMITTED") -> Iterator[Connection]:
    engine = engine_for(uri)
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
            connection.execute(text(f"SET LOCAL lock_timeout = {round(migrate.LOCK_S * 1000)}"))
            yield connection
    except (OperationalError, psycopg.OperationalError) as error:
        if migrate.was_busy(error):
            busy = (
                f"its tables were in use for {migrate.LOCK_S:g} s, nothing was changed; `ledger sessions` says by whom"
            )
            raise OffloadError(LEDGER_OUTDATED, busy) from error
        raise OffloadError(LEDGER_UNREACHABLE, first_line(error)) from error
    finally:
        engine.dispose()


def _columns(c: Connection) -> dict[str, list[str]]:
    """The columns of every table of the ledger that is there, parents first; PostgreSQL makes generated ones itself."""
    found = c.execute(
        text(
            "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns"
            " WHERE table_schema = 'offload' AND is_generated = 'NEVER' GROUP BY table_name"
        )
    )
    columns = {str(name): [str(one) for one in names] for name, names in found}
    return {name: columns[name] for name in _parents_first(columns)}


def _parents_first(tables: Sequence[str] | dict[str, Any]) -> list[str]:
    """A table after those that it refers to."""
    order = {"pipeline": 0, "tables": 1, "plans": 2}
    return sorted(tables, key=lambda name: (order.get(name, len(order)), name))


def _revision(c: Connection) -> str | None:
    found = c.execute(text("SELECT version_num FROM offload.alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)


def _drop(c: Connection) -> None:
    """Every table of the schema; the schema itself belongs to whoever set PostgreSQL up."""
    for (name,) in c.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'offload'")).all():
        c.execute(text(f'DROP TABLE offload."{name}" CASCADE'))


def _driver(c: Connection) -> psycopg.Connection[Any]:
    found = c.connection.driver_connection
    assert isinstance(found, psycopg.Connection)  # noqa: S101 - engine_for asks for psycopg
    return found


def _statement(table: str, names: Sequence[str], way: str) -> sql.Composed:
    return sql.SQL("COPY offload.{} ({}) {}").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(way)
    )


def _copy_out(c: Connection, table: str, names: Sequence[str], entry: IO[bytes]) -> int:
    cursor = _driver(c).cursor()
    with cursor.copy(_statement(table, names, "TO STDOUT")) as copy:
        for block in copy:
            entry.write(block)
    return cursor.rowcount


def _copy_in(c: Connection, table: str, names: Sequence[str], entry: IO[bytes]) -> int:
    cursor = _driver(c).cursor()
    try:
        with cursor.copy(_statement(table, names, "FROM STDIN")) as copy:
            while block := entry.read(CHUNK):
                copy.write(block)
    except (
        psycopg.DataError,
        psycopg.errors.IntegrityError,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedTable,
        zipfile.BadZipFile,
    ) as error:
        raise NotABackupError(f"{table}: {str(error).splitlines()[0]}") from error
    return cursor.rowcount


def _manifest(path: Path) -> tuple[Backup, dict[str, list[str]]]:
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
            said = json.loads(file.read(MANIFEST))
            there = set(file.namelist())
        if broken is not None:
            raise NotABackupError(f"{path}: {broken} in it is damaged")
        if said["form"] != FORM or not set(said["rows"]) <= there:
            raise NotABackupError(f"{path} is no whole backup of a ledger")
        return Backup(path, said["made_at"], said["revision"], said["rows"]), said["columns"]
    except (zipfile.BadZipFile, KeyError, TypeError, json.JSONDecodeError) as error:
        raise NotABackupError(f"{path} is no backup of a ledger: {error}") from error
