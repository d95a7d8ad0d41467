"""What ClickHouse says of a table: columns, engine, keys, TTL and identity, from its system tables."""

from __future__ import annotations

import difflib
import re
from typing import Protocol

from include.offload.errors import SOURCE_TABLE_MISSING, OffloadError
from include.offload.model import SourceColumn, SourceTable
from include.offload.source import chtypes, ttl

ZERO_UUID = "00000000-0000-0000-0000-000000000000"
_NO_DATA = (
    "View",
    "MaterializedView",
    "LiveView",
    "WindowView",
    "Dictionary",
    "Null",
    "Buffer",
    "Distributed",
    "Merge",
)


class Queries(Protocol):
    """The part of a client that describing needs."""

    def query(self, sql: str, params: dict[str, object] | None = None) -> list[tuple[object, ...]]:
        """The rows of a query with server-side parameters `{name:Type}`."""


def describe(client: Queries, database: str, table: str, identity: str | None = None) -> SourceTable:
    """The table as the client's replica knows it. Raises OFL-203 when it does not exist or stores nothing itself.

    identity: of the spec that names it, for the error; `database.table` when left out.
    """
    params: dict[str, object] = {"database": database, "table": table}
    rows = client.query(
        "SELECT engine, engine_full, toString(uuid), sorting_key, partition_key, create_table_query FROM system.tables"
        " WHERE database = {database:String} AND name = {table:String}",
        params,
    )
    if not rows:
        raise OffloadError(
            SOURCE_TABLE_MISSING, _missing(client, database, table), table=identity or f"{database}.{table}"
        )
    engine, engine_full, uuid, sorting_key, partition_key, ddl = (str(v) for v in rows[0])
    if engine in _NO_DATA or not engine.endswith("MergeTree"):
        raise OffloadError(
            SOURCE_TABLE_MISSING,
            f"{database}.{table} is a {engine}, which keeps no rows with a TTL of its own; offload the table behind it",
            table=identity or f"{database}.{table}",
        )
    columns = client.query(
        "SELECT name, type, position, default_kind, default_expression FROM system.columns"
        " WHERE database = {database:String} AND table = {table:String} ORDER BY position",
        params,
    )
    clauses = ttl.read_ddl(ddl)
    return SourceTable(
        database=database,
        table=table,
        engine=engine,
        identity=_identity(client, database, table, engine, uuid),
        columns=tuple(
            SourceColumn(str(n), str(t), int(str(p)), str(kind), clauses.columns.get(str(n)), str(default))
            for n, t, p, kind, default in columns
        ),
        sorting_key=tuple(_plain(k) for k in chtypes.split(sorting_key)),
        partition_key=partition_key,
        ttl=clauses.table,
        ttl_group_by=clauses.group_by,
        do_not_merge_across_partitions_select_final=_partitionwise_final(client, engine_full),
    )


def _missing(client: Queries, database: str, table: str) -> str:
    databases = [str(r[0]) for r in client.query("SELECT name FROM system.databases")]
    if database not in databases:
        near = difflib.get_close_matches(database, databases, 1)
        return f"there is no database {database}" + (f"; did you mean {near[0]}?" if near else "")
    names = client.query("SELECT name FROM system.tables WHERE database = {database:String}", {"database": database})
    near = difflib.get_close_matches(table, [str(r[0]) for r in names], 1)
    return f"there is no table {table} in {database}" + (f"; did you mean {near[0]}?" if near else "")


def _identity(client: Queries, database: str, table: str, engine: str, uuid: str) -> str:
    """The ZooKeeper path of a replicated table (the same on each replica), else the table's UUID.

    A table of an old `Ordinary` database has no UUID: its metadata's name stands in, and a re-creation goes unseen.
    """
    if engine.startswith("Replicated"):
        rows = client.query(
            "SELECT zookeeper_path FROM system.replicas WHERE database = {database:String} AND table = {table:String}",
            {"database": database, "table": table},
        )
        if rows:
            return f"zookeeper:{rows[0][0]}"
    return f"uuid:{uuid}" if uuid != ZERO_UUID else f"name:{database}.{table}"


def _plain(key: str) -> str:
    """A sorting key item as a column name when it is one, else as written."""
    return chtypes.unescape(key[1:-1], "`") if re.fullmatch(r"`(?:[^`\\]|\\.|``)+`", key) else key


def _partitionwise_final(client: Queries, engine_full: str) -> bool:
    """Whether FINAL would merge each partition by itself, by the server's profile or the table's own settings."""
    name = "do_not_merge_across_partitions_select_final"
    if re.search(rf"{name}\s*=\s*(1|true)", engine_full):
        return True
    rows = client.query("SELECT value FROM system.settings WHERE name = {name:String}", {"name": name})
    return bool(rows) and str(rows[0][0]) in ("1", "true")
