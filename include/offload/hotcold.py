"""One query over hot and cold: a ClickHouse view of the MergeTree from the border on and of Iceberg before it.

The border is a constant in the view's definition, the watermark when it was made. A query has one definition, so both
sides of it have one border; the watermark never goes back and moves after the Iceberg commit, so every snapshot that a
query may find holds all that lies before its border. docs/adr/0012-constant-border.md says why no other border is
exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyiceberg.schema import Schema

from include.offload.context import Context
from include.offload.errors import (
    RANGE_REFUSED,
    SETTING_MISSING,
    SOURCE_UNREACHABLE,
    TARGET_MISSING,
    TLS_UNTRUSTED,
    VIEW_REFUSED,
    OffloadError,
)
from include.offload.lake import marker as markers
from include.offload.lake.catalog import find_table
from include.offload.lake.evolution import project_onto
from include.offload.model import ProjectedColumn, SourceTable
from include.offload.source import ttl
from include.offload.source.chtypes import ChType, parse
from include.offload.source.client import Client, parse_uri
from include.offload.source.describe import describe
from include.offload.source.sql import instant_sql, literal, quote
from include.offload.source.typemap import NoMappingError, base_type, map_type
from include.offload.spec.model import TableSpec

SUFFIX = "_hot_and_cold"
NOT_NULLABLE = ("Array", "Map", "Tuple", "Nested", "QBit", "Point", "Ring", "LineString", "MultiPoint",
                "MultiLineString", "Polygon", "MultiPolygon")  # fmt: skip
_BOTH_ERRORS = (SOURCE_UNREACHABLE, TLS_UNTRUSTED, SETTING_MISSING)


@dataclass(frozen=True, slots=True)
class HotColdView:
    """The view of one table. `border_us`: µs UTC; `expires_us`: when the first row at or after it may expire, or None.

    `as_in_lake`: columns that both sides give in the form of the lake, since the spec overrides them; `left_out`:
    columns of the source that the lake does not have (yet). `grants`: what the user that creates it needs.
    """

    table: str
    name: str
    border_us: int
    expires_us: int | None
    statement: str
    as_in_lake: tuple[str, ...]
    left_out: tuple[str, ...]
    grants: tuple[str, ...]


def hot_cold_view(ctx: Context, spec: TableSpec, database: str, name: str | None = None) -> HotColdView:
    """The view's definition with the border of now; reads only.

    database: a ClickHouse database of the engine DataLakeCatalog, which asks the Iceberg catalog for the table; name:
    of the view in the source's database. Raises OFL-309 without an Iceberg table, OFL-407 before anything is offloaded,
    OFL-3xx for a table that is not ours or was rolled back.
    """
    head = ctx.ledger.head(spec.identity)
    if head is None or head.watermark_us is None:
        raise OffloadError(RANGE_REFUSED, "nothing was offloaded yet, so there is no border", table=spec.identity)
    # after the watermark was read: what the catalog shows now is at least as new
    table = find_table(ctx.catalog, (spec.target.namespace, spec.target.table), spec.identity)
    if table is None:
        raise OffloadError(TARGET_MISSING, f"{spec.target.namespace}.{spec.target.table}", table=spec.identity)
    markers.read(table, spec.identity, ctx.pipeline)
    with ctx.connect(spec, f"offload view {spec.identity}") as client:
        source = describe(client, spec.source.database, spec.source.table, spec.identity)
        expires = _expires(client, spec, source, head.watermark_us)
    columns = project_onto(spec, source, table).columns
    schema = table.schema()
    there = [c for c in columns if _required(schema, c.name) is not None]
    full_name = f"{quote(spec.source.database)}.{quote(name or spec.source.table + SUFFIX)}"
    lake = f"{quote(database)}.{quote(f'{spec.target.namespace}.{spec.target.table}')}"
    return HotColdView(
        table=spec.identity,
        name=full_name,
        border_us=head.watermark_us,
        expires_us=expires,
        statement=statement(spec, there, schema, full_name, lake, head.watermark_us),
        as_in_lake=tuple(c.name for c in there if not _goes_back(c)),
        left_out=tuple(c.name for c in source.columns if c.name not in {t.name for t in there}),
        grants=grants(full_name, spec, database),
    )


def grants(view: str, spec: TableSpec, database: str) -> tuple[str, ...]:
    """What the user that creates the view needs; one that reads it needs the SELECTs, and SELECT on the view."""
    return (
        f"GRANT CREATE VIEW, DROP VIEW ON {view} TO …",
        f"GRANT SELECT ON {quote(spec.source.database)}.{quote(spec.source.table)} TO …",
        f"GRANT SELECT ON {quote(database)}.* TO …",
    )


def statement(
    spec: TableSpec, columns: list[ProjectedColumn], schema: Schema, view: str, lake: str, border_us: int
) -> str:
    """`CREATE OR REPLACE VIEW …`: one atomic change, so that a query has the old border or the new one."""
    hot = [_hot(c, bool(_required(schema, c.name))) for c in columns]
    cold = [f"{_cold(c, bool(_required(schema, c.name)))} AS {quote(c.name)}" for c in columns]
    cursor, border = quote(spec.cursor), instant_sql(border_us)
    source = f"{quote(spec.source.database)}.{quote(spec.source.table)}"
    final = " FINAL" if spec.source.final else ""
    # Names of their own inside, and qualified ones: in the place of a column that an `expr` or WHERE reads, ClickHouse
    # would put an alias of that name.
    inner = ", ".join(f"{x} AS __offload_{i}" for i, x in enumerate(hot))
    outer = [f"__offload_{i} AS {quote(c.name)}" for i, c in enumerate(columns)]
    return (
        f"CREATE OR REPLACE VIEW {view} AS\n"
        f"SELECT\n    {_list(outer)}\nFROM (\n    SELECT {inner}\n"
        f"    FROM {source} AS hot{final} WHERE hot.{cursor} >= {border}\n)\n"
        f"UNION ALL\n"
        f"SELECT\n    {_list(cold)}\nFROM {lake} AS cold\nWHERE cold.{cursor} < {border}"
    )


def apply(ctx: Context, view: HotColdView) -> None:
    """Create the view, or replace it, as the user of `OFFLOAD_CLICKHOUSE_VIEW_URI`, on every server that it names.

    Raises OFL-102 without that login, OFL-201, OFL-213 when ClickHouse refuses the statement.
    """
    for uri in ctx.settings.view_uris():
        endpoint = parse_uri(uri)
        try:
            with Client(endpoint, settings={}, comment=f"offload view {view.table}", table=view.table) as client:
                client.command(view.statement)
        except OffloadError as error:
            if error.kind in _BOTH_ERRORS:
                raise
            needs = "; ".join(view.grants)
            cause = f"user {endpoint.user} on {endpoint.name}: {error.cause}; it needs {needs}"
            raise OffloadError(VIEW_REFUSED, cause, table=view.table) from error


def _expires(client: Client, spec: TableSpec, source: SourceTable, border_us: int) -> int | None:
    """When the first row at or after the border may expire, µs UTC: from then on an old border loses rows."""
    expiry = ttl.expiry_sql(source, spec)
    if expiry.sql is None:
        return None
    table = f"{quote(spec.source.database)}.{quote(spec.source.table)}"
    ((us, rows),) = client.query(
        f"SELECT toUnixTimestamp64Micro(min({expiry.sql})), count() FROM {table}"
        f" WHERE {quote(spec.cursor)} >= {instant_sql(border_us)}"
    )
    return int(us) if rows and us is not None else None


def _list(items: list[str]) -> str:
    return ",\n    ".join(items)


def _required(schema: Schema, name: str) -> bool | None:
    """Whether the lake's column is required; None: it has none."""
    return next((f.required for f in schema.fields if f.name == name), None)


def _goes_back(column: ProjectedColumn) -> bool:
    """Whether the lake's value is the source's by the lossless mapping, so that a CAST gives it back."""
    try:
        mapping = map_type(column.source_type)
    except NoMappingError:
        return False
    return (mapping.expr(quote(column.name)), mapping.iceberg_type) == (column.expr, column.iceberg_type)


def _hot(column: ProjectedColumn, required: bool) -> str:
    if not _goes_back(column):
        return column.expr
    wanted = view_type(column.source_type, required)
    here = f"hot.{quote(column.name)}"
    return here if wanted == column.source_type else f"CAST({here}, {literal(wanted)})"


def _cold(column: ProjectedColumn, required: bool) -> str:
    there = f"cold.{quote(column.name)}"
    return f"CAST({there}, {literal(view_type(column.source_type, required))})" if _goes_back(column) else there


def view_type(source_type: str, required: bool) -> str:
    """The source's type; Nullable where the lake may hold NULL: rows from before a column was added.

    SimpleAggregateFunction becomes the type of its values: in a view there is nothing to merge.
    """
    kind, nullable = base_type(source_type)
    outer = _without_aggregate(parse(source_type))
    if nullable or required or kind.name in NOT_NULLABLE:
        return str(outer)
    return f"LowCardinality(Nullable({kind}))" if outer.name == "LowCardinality" else f"Nullable({kind})"


def _without_aggregate(kind: ChType) -> ChType:
    return _without_aggregate(kind.parts[0]) if kind.name == "SimpleAggregateFunction" else kind
