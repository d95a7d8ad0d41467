"""`spec check`: all files at once, and one spec against its ClickHouse table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from include.offload.errors import SOURCE_QUERY_FAILED, TYPE_NOT_LOSSLESS, OffloadError
from include.offload.model import PartitionColumn, Projection, SourceTable
from include.offload.source import icetypes, projection, ttl
from include.offload.source.chtypes import ChType, parse
from include.offload.source.describe import Queries, describe
from include.offload.source.expressions import confirm_expressions, expressions_of
from include.offload.source.sql import quote
from include.offload.source.typemap import base_type
from include.offload.spec import human
from include.offload.spec.headroom import short_headroom_us
from include.offload.spec.load import LoadResult, load_specs
from include.offload.spec.model import TableSpec

T = TypeVar("T")

UTF8_SAMPLE_ROWS = 100_000
"""How many rows `check_source` looks at for text that is no UTF-8."""


@dataclass(frozen=True, slots=True)
class SourceCheck:
    """A spec held against ClickHouse: what was found, every refusal, and what is allowed but worth a look."""

    spec: TableSpec
    source: SourceTable | None
    projection: Projection | None
    partition: tuple[PartitionColumn, ...]
    sort: tuple[str, ...]
    expiry: ttl.Expiry | None
    errors: tuple[OffloadError, ...]
    warnings: tuple[str, ...]


def environments(tables_dir: Path) -> tuple[str, ...]:
    """The environments that some overlay names."""
    names = (p.name.removesuffix(".yaml").partition(".")[2] for p in tables_dir.rglob("*.yaml"))
    return tuple(sorted({n for n in names if n}))


def check_files(tables_dir: Path) -> dict[str | None, LoadResult]:
    """The specs and errors of each environment, None for none: an overlay is checked before anyone deploys it."""
    return {env: load_specs(tables_dir, env) for env in (None, *environments(tables_dir))}


def check_source(client: Queries, spec: TableSpec) -> SourceCheck:
    """Hold a spec against its table without reading it, a sample for UTF-8 aside. Collects OFL-2xx, raises OFL-201."""
    errors: list[OffloadError] = []

    def attempt(step: Callable[[], T]) -> T | None:
        try:
            return step()
        except OffloadError as error:
            if error.kind.retry and error.kind is not SOURCE_QUERY_FAILED:
                raise
            errors.append(error if error.table else OffloadError(error.kind, error.cause, table=spec.identity))
            return None

    attempt(lambda: confirm_expressions(client, expressions_of(spec), spec.identity))
    if errors:
        return SourceCheck(spec, None, None, (), (), None, tuple(errors), ())
    source = attempt(lambda: describe(client, spec.source.database, spec.source.table, spec.identity))
    if source is None:
        return SourceCheck(spec, None, None, (), (), None, tuple(errors), ())
    projected = attempt(lambda: projection.project(spec, source))
    partition: tuple[PartitionColumn, ...] = ()
    sort: tuple[str, ...] = ()
    expiry = ttl.expiry_sql(source, spec)
    if projected is not None:
        partition = attempt(lambda: projection.partition_columns(spec, projected)) or ()
        sort = attempt(lambda: projection.sort_sql(spec, projected)) or ()
        attempt(lambda: confirm(client, spec, source, projected, partition, sort, expiry))
    warnings = tuple(_warnings(client, spec, source, projected, expiry)) if not errors else ()
    return SourceCheck(spec, source, projected, partition, sort, expiry, tuple(errors), warnings)


def confirm(
    client: Queries,
    spec: TableSpec,
    source: SourceTable,
    projected: Projection,
    partition: tuple[PartitionColumn, ...],
    sort: tuple[str, ...],
    expiry: ttl.Expiry,
) -> None:
    """Let ClickHouse itself type every expression, reading nothing.

    Raises OFL-207 for SQL that it refuses, OFL-205 when an expression gives another type than Iceberg will hold.
    """
    items = [c.expr for c in projected.columns] + [p.expr for p in partition]
    items += [expiry.sql] if expiry.sql else []
    columns = ", ".join(f"{e} AS __offload_{i}" for i, e in enumerate(items))
    order = f" ORDER BY {', '.join(sort)}" if sort else ""
    table = f"{quote(source.database)}.{quote(source.table)}"
    rows = client.query(f"DESCRIBE TABLE (SELECT {columns} FROM {table}{order})")
    wrong = []
    for column, row in zip(projected.columns, rows, strict=False):
        wanted = icetypes.parse(column.iceberg_type).clickhouse()
        if _shape(parse(str(row[1]))) != _shape(parse(wanted)):
            wrong.append(f"{column.name} is {' '.join(str(row[1]).split())}, {column.iceberg_type} needs {wanted}")
    if wrong:
        raise OffloadError(TYPE_NOT_LOSSLESS, "; ".join(wrong), table=spec.identity)


def _shape(kind: ChType) -> tuple[object, ...]:
    """A type without what the hash and Arrow see through: nullability, LowCardinality and time zones."""
    while kind.name in ("Nullable", "LowCardinality", "SimpleAggregateFunction"):
        kind = kind.parts[0]
    if kind.name == "DateTime64":
        return (kind.name, kind.args[0])
    if kind.parts:
        names = [n if n is not None else f"_{i + 1}" for i, n in enumerate(kind.names)]
        return (kind.name, *names, *(_shape(p) for p in kind.parts))
    return (kind.name, *kind.args)


def _warnings(
    client: Queries, spec: TableSpec, source: SourceTable, projected: Projection | None, expiry: ttl.Expiry
) -> Iterator[str]:
    merging = any(name in source.engine for name in projection.MERGING_ENGINES)
    if merging and not spec.source.final:
        yield f"{source.engine} merges rows later: without source.final the rows are offloaded as they are stored"
    if merging and spec.period_us is None and any(n in source.engine for n in ("Summing", "Aggregating")):
        yield f"{source.engine} without period: a window shorter than the span of one row ships it half-built"
    if spec.cursor not in source.sorting_key and spec.cursor not in source.partition_key:
        yield f"cursor {spec.cursor} is in neither sorting nor partition key: each look at a window reads all rows"
    if not expiry.readable:
        yield f"{expiry.why}: no window is ever replaced"
    elif expiry.sql is None:
        yield "the table has no TTL; if something else deletes old rows, write ttl: into the spec"
    keeps = _life_us(spec)
    if keeps is not None and keeps <= spec.window_us + spec.settle_us:
        yield f"rows live {human.format_duration(keeps)}, a window is offloaded after that"
    headroom = short_headroom_us(
        keeps or ttl.ttl_us(source), spec.window_us, spec.settle_us, spec.schedule, spec.alerts.ttl_headroom_s
    )
    if headroom is not None:
        yield (
            "rows live so short that TTLHeadroomWarning would fire while all is well; write"
            f" alerts: {{ttl_headroom: {human.format_duration(headroom)}}}"
        )
    yield from _not_utf8(client, spec, source, projected)


def _life_us(spec: TableSpec) -> int | None:
    if spec.ttl is None:
        return None
    try:
        return human.parse_duration(spec.ttl)
    except ValueError:
        return None


def _not_utf8(client: Queries, spec: TableSpec, source: SourceTable, projected: Projection | None) -> Iterator[str]:
    texts = [
        c.name
        for c in (projected.columns if projected else ())
        if c.iceberg_type == "string"
        and base_type(c.source_type)[0].name in ("String", "FixedString")
        and c.name not in spec.columns.overrides
    ]
    if not texts:
        return
    counts = ", ".join(f"countIf(NOT isValidUTF8(toString({quote(n)})))" for n in texts)
    names = ", ".join(quote(n) for n in texts)
    table = f"{quote(source.database)}.{quote(source.table)}"
    row = client.query(f"SELECT {counts} FROM (SELECT {names} FROM {table} LIMIT {UTF8_SAMPLE_ROWS})")[0]
    for name, bad in zip(texts, row, strict=True):
        if bad:
            yield (
                f"column {name} holds text that is no UTF-8 ({bad} of the first {UTF8_SAMPLE_ROWS} rows), which Iceberg"
                f" readers refuse; write columns.overrides: {{{name}: {{type: binary}}}}"
            )
