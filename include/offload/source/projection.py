"""From spec and source to the columns of the lake: expressions, types, partition and sort SQL.

The expressions name source columns only: a query must not give a column its own name as alias, or its WHERE and
ORDER BY see the converted value.
"""

from __future__ import annotations

import decimal
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from include.offload.errors import (
    CURSOR_UNFIT,
    FINAL_UNSAFE,
    SOURCE_COLUMN_MISSING,
    SPEC_INVALID,
    TYPE_NOT_LOSSLESS,
    OffloadError,
)
from include.offload.model import (
    PartitionColumn,
    PartitionValue,
    ProjectedColumn,
    Projection,
    SourceColumn,
    SourceTable,
)
from include.offload.source import icetypes
from include.offload.source.expressions import columns_read
from include.offload.source.sql import quote
from include.offload.source.typemap import Mapping, NoMappingError, base_type, declared, map_override, map_type
from include.offload.spec.fields import quote_if_needed, split_transform, yaml_text
from include.offload.spec.human import DAY_US
from include.offload.spec.model import TableSpec

FINGERPRINT_VERSION = 1
MAX_NARROW_DECIMAL = 18
"""Digits of a Decimal that ClickHouse keeps in 64 bits."""

MERGING_ENGINES = ("Replacing", "Summing", "Aggregating", "Collapsing", "VersionedCollapsing", "Coalescing", "Graphite")
TIME_TYPES = ("Date", "Date32", "DateTime", "DateTime32", "DateTime64")


def project(spec: TableSpec, source: SourceTable) -> Projection:
    """The columns of the lake. Raises OFL-204, OFL-205 (all columns at once), OFL-206 or OFL-211."""
    check_cursor(spec, source)
    check_final(spec, source)
    chosen = _choose(spec, source)
    columns: list[ProjectedColumn] = []
    refused: list[str] = []
    for column in chosen:
        try:
            mapping = _mapping(spec, column)
        except NoMappingError as error:
            refused.append(_explain(column, error))
            continue
        override = spec.columns.overrides.get(column.name)
        x = override.expr if override is not None and override.expr is not None else quote(column.name)
        columns.append(
            ProjectedColumn(column.name, column.type, mapping.expr(x), mapping.iceberg_type, mapping.required)
        )
    if refused:
        raise OffloadError(TYPE_NOT_LOSSLESS, "; ".join(refused), table=spec.identity)
    return Projection(tuple(columns), fingerprint(columns))


def fingerprint(columns: list[ProjectedColumn], returned: Sequence[tuple[int, int]] = ()) -> str:
    """SHA-256 over names, expressions and types: equal fingerprints, comparable hashes (rule 10).

    returned: field ids of dropped columns that came back, and how often: their old values are only in the lake.
    """
    facts: list[object] = [FINGERPRINT_VERSION, [[c.name, c.expr, c.iceberg_type] for c in columns]]
    facts += [list(returned)] if returned else []
    return hashlib.sha256(json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _mapping(spec: TableSpec, column: SourceColumn) -> Mapping:
    override = spec.columns.overrides.get(column.name)
    if override is None or override.type is None:
        return map_type(column.type)
    if override.expr is None:
        return map_override(column.type, override.type)
    return declared(override.expr, override.type)


def _explain(column: SourceColumn, error: NoMappingError) -> str:
    options = [*options_for(column, error), f"exclude: [{quote_if_needed(column.name)}]"]
    how = f"write into columns.overrides {', or '.join(options[:-1])}, or" if options[:-1] else "write"
    return f"column {column.name} of type {column.type}: {error.why}; {how} into columns {options[-1]}"


def options_for(column: SourceColumn, error: NoMappingError) -> list[str]:
    """The lines of `columns.overrides` that would settle a refusal."""
    quoted = quote(column.name).replace("\\", "\\\\").replace('"', '\\"')
    return [o.replace("{c}", yaml_text(column.name)).replace("{q}", quoted) for o in error.options]


def _choose(spec: TableSpec, source: SourceTable) -> list[SourceColumn]:
    by_name = {c.name: c for c in source.columns}
    named: list[tuple[str, str]] = [(n, "columns.include") for n in spec.columns.include or ()]
    named += [(n, "columns.exclude") for n in spec.columns.exclude]
    named += [(n, "columns.overrides") for n in spec.columns.overrides]
    named += [(f.column, "target.partition") for f in spec.target.partition]
    named += [(f.column, "target.sort") for f in spec.target.sort]
    named += [(spec.sequence, "sequence")] if spec.sequence else []
    missing = [f"{name} ({where})" for name, where in dict.fromkeys(named) if name not in by_name]
    if missing:
        raise OffloadError(
            SOURCE_COLUMN_MISSING,
            f"{source.database}.{source.table} has no column {', '.join(missing)}; it has {', '.join(by_name)}",
            table=spec.identity,
        )
    if spec.columns.include is not None:
        chosen = [by_name[n] for n in spec.columns.include]
    else:
        chosen = [c for c in source.columns if c.name not in spec.columns.exclude and c.default_kind != "ALIAS"]
        chosen = [c for c in chosen if c.default_kind != "EPHEMERAL"]
    ephemeral = [c.name for c in chosen if c.default_kind == "EPHEMERAL"]
    if ephemeral:
        raise OffloadError(
            SOURCE_COLUMN_MISSING,
            f"{', '.join(ephemeral)} of {source.database}.{source.table} is EPHEMERAL: ClickHouse never stores it",
            table=spec.identity,
        )
    names = {c.name for c in chosen}
    gone = [f"{n} ({w})" for n, w in dict.fromkeys(named) if n not in names and w not in ("columns.exclude",)]
    if gone:
        raise OffloadError(
            SOURCE_COLUMN_MISSING, f"{', '.join(gone)} is not among the offloaded columns", table=spec.identity
        )
    _check_names(spec, chosen)
    return chosen


def _check_names(spec: TableSpec, columns: list[SourceColumn]) -> None:
    """Iceberg readers compare names without case."""
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(column.name.lower(), column.name)
        if other != column.name:
            raise OffloadError(
                TYPE_NOT_LOSSLESS,
                f"columns {other} and {column.name} differ only in case, which Spark and others ignore; exclude one",
                table=spec.identity,
            )


def check_cursor(spec: TableSpec, source: SourceTable) -> None:
    """Raises OFL-204 when the cursor is missing, OFL-206 when it can't order rows in time."""
    column = next((c for c in source.columns if c.name == spec.cursor), None)
    times = [c.name for c in source.columns if _is_time(c.type)]
    hint = f"; columns that can: {', '.join(times)}" if times else "; no column of the table can"
    if column is None:
        raise OffloadError(
            SOURCE_COLUMN_MISSING,
            f"{source.database}.{source.table} has no column {spec.cursor} (cursor){hint}",
            table=spec.identity,
        )
    kind, nullable = base_type(column.type)
    if nullable or kind.name not in TIME_TYPES:
        why = "may be NULL" if nullable else "is no time"
        raise OffloadError(CURSOR_UNFIT, f"cursor {column.name} of type {column.type} {why}{hint}", table=spec.identity)
    if column.default_kind in ("ALIAS", "EPHEMERAL"):
        raise OffloadError(
            CURSOR_UNFIT, f"cursor {column.name} is {column.default_kind}, not stored{hint}", table=spec.identity
        )
    if kind.name in ("Date", "Date32") and spec.window_us % DAY_US:
        raise OffloadError(
            CURSOR_UNFIT,
            f"cursor {column.name} is a {kind.name}: the rows of a day share one value; write window: 1d",
            table=spec.identity,
        )


def _is_time(clickhouse_type: str) -> bool:
    kind, nullable = base_type(clickhouse_type)
    return kind.name in TIME_TYPES and not nullable


def check_final(spec: TableSpec, source: SourceTable) -> None:
    """Raises OFL-211 when FINAL can't be read window by window (rule 9)."""
    if not spec.source.final:
        return
    if not any(name in source.engine for name in MERGING_ENGINES):
        raise OffloadError(
            FINAL_UNSAFE, f"engine {source.engine} merges no rows; write source.final: false", table=spec.identity
        )
    if spec.cursor not in source.sorting_key:
        raise OffloadError(
            FINAL_UNSAFE,
            f"cursor {spec.cursor} is not in the sorting key ({', '.join(source.sorting_key)}): "
            "a merge could move a row into another window",
            table=spec.identity,
        )
    moving = sorted({f.column for f in spec.target.partition if not _reads_only(spec, f.column, source.sorting_key)})
    if moving:
        raise OffloadError(
            FINAL_UNSAFE,
            f"target.partition names {', '.join(moving)}, which the sorting key ({', '.join(source.sorting_key)}) does"
            " not hold: a newer version of a row could lie in another partition, and both be read",
            table=spec.identity,
        )
    if source.do_not_merge_across_partitions_select_final:
        raise OffloadError(
            FINAL_UNSAFE,
            "do_not_merge_across_partitions_select_final is set: FINAL could return a row twice",
            table=spec.identity,
        )


def _reads_only(spec: TableSpec, name: str, columns: Sequence[str]) -> bool:
    """Whether a column of the lake is made of these columns of the source alone."""
    override = spec.columns.overrides.get(name)
    read = {name} if override is None or override.expr is None else columns_read(override.expr)
    return read <= set(columns)


_TIMES = ("timestamp", "timestamptz")
_TRANSFORM_TYPES = {
    # Neither PyIceberg nor ClickHouse reads a table whose partitions are single UUIDs.
    "identity": ("boolean", "int", "long", "decimal", "date", *_TIMES, "string", "fixed", "binary"),
    "year": ("date", *_TIMES),
    "month": ("date", *_TIMES),
    "day": ("date", *_TIMES),
    "hour": _TIMES,
    "bucket": ("int", "long", "decimal", "date", *_TIMES, "string", "uuid", "fixed", "binary"),
    # PyIceberg can not truncate bytes; ClickHouse no decimal above 64 bits, not even when it reads the table.
    "truncate": ("int", "long", "decimal", "string"),
}


def partition_columns(spec: TableSpec, projection: Projection) -> tuple[PartitionColumn, ...]:
    """The Iceberg partition fields and the SQL of their values. Raises OFL-101 for a transform that does not fit.

    Decimals and bytes (as hexadecimal) come as text: `record_value` turns them into what PyIceberg stores.
    """
    by_name = {c.name: c for c in projection.columns}
    out: list[PartitionColumn] = []
    for field in spec.target.partition:
        column = by_name[field.column]
        kind, size = split_transform(field.transform)
        ice = icetypes.parse(column.iceberg_type)
        fits = _TRANSFORM_TYPES.get(kind)
        wide = kind == "truncate" and ice.kind == "decimal" and ice.numbers[0] > MAX_NARROW_DECIMAL
        if wide or (fits is not None and ice.kind not in fits):
            takes = f"decimals up to {MAX_NARROW_DECIMAL} digits" if wide else ", ".join(fits or ())
            raise OffloadError(
                SPEC_INVALID,
                f"target.partition: {field} does not fit the Iceberg type {column.iceberg_type}; {kind} takes {takes}",
                table=spec.identity,
            )
        if field.name in by_name and (kind != "identity" or field.name != field.column):
            raise OffloadError(
                SPEC_INVALID,
                f"target.partition: the field {field.name} of {field} has the name of a column; "
                f"write {field} as {field.name}_part",
                table=spec.identity,
            )
        if kind == "void" and column.required:
            raise OffloadError(
                SPEC_INVALID,
                f"target.partition: {field} always gives NULL, which PyIceberg can not write for a required column",
                table=spec.identity,
            )
        sql = transform_sql(column.expr, ice, kind, size)
        out.append(PartitionColumn(field.column, field.transform, field.name, sql))
    return tuple(out)


def transform_sql(x: str, ice: icetypes.IceType, kind: str, size: int | None) -> str:
    """Iceberg's internal value of a transform as ClickHouse SQL over `x`, a value of the Iceberg type `ice`."""
    if kind == "void":
        return "NULL"
    if kind == "identity":
        return _identity_sql(x, ice.kind)
    if kind == "bucket":
        return f"toInt64(icebergBucket({size}, {x}))"
    if kind == "truncate":
        assert size is not None  # noqa: S101
        return _truncate_sql(x, ice, size)
    if kind == "year":
        return f"(toInt64(toYear({x})) - 1970)"
    if kind == "month":
        return f"((toInt64(toYear({x})) - 1970) * 12 + toInt64(toMonth({x})) - 1)"
    if kind == "day":
        return f"toInt64(toInt32({x}))" if ice.kind == "date" else _floor_div(_micros(x), DAY_US)
    if kind == "hour":
        return _floor_div(_micros(x), DAY_US // 24)
    raise AssertionError(f"no SQL for the transform {kind}")


def _micros(x: str) -> str:
    return f"toUnixTimestamp64Micro({x})"


def _floor_div(us: str, size: int) -> str:
    # intDiv truncates towards zero, which is one too much before 1970.
    return f"intDiv({us} - positiveModulo({us}, {size}), {size})"


def _identity_sql(x: str, ice: str) -> str:
    if ice in _TIMES:
        return _micros(x)
    if ice in ("int", "long"):
        return f"toInt64({x})"
    if ice == "date":
        return f"toInt64(toInt32({x}))"
    if ice in ("binary", "fixed"):
        return f"hex({x})"
    return f"toString({x})" if ice == "decimal" else x


def _truncate_sql(x: str, ice: icetypes.IceType, size: int) -> str:
    if ice.kind in ("int", "long"):
        return f"toInt64(icebergTruncate({size}, {x}))"
    if ice.kind == "decimal":
        return f"toString(icebergTruncate({size}, {x}))"
    return f"icebergTruncate({size}, {x})"


def record_value(column: PartitionColumn, iceberg_type: str, value: PartitionValue) -> Any:
    """What PyIceberg keeps in a partition record for a value that `column.expr` gave.

    iceberg_type: of the source column. Integers for times, Decimal and bytes for those types.
    """
    kind, _ = split_transform(column.transform)
    if value is None or kind not in ("identity", "truncate") or not isinstance(value, str):
        return value
    ice = icetypes.parse(iceberg_type)
    if ice.kind == "decimal":
        return decimal.Decimal(value).quantize(
            decimal.Decimal(1).scaleb(-ice.numbers[1]), context=decimal.Context(prec=38)
        )
    return bytes.fromhex(value) if ice.kind in ("binary", "fixed") else value


def reader_properties(projection: Projection) -> dict[str, str]:
    """Table properties that keep readers from wrong answers.

    ClickHouse 26.9 compares the bounds of a UUID column in another order than Iceberg writes them, prunes the file and
    finds no row for `WHERE id = …`; without bounds it does.
    """
    uuids = [c.name for c in projection.columns if c.iceberg_type == "uuid"]
    return {f"write.metadata.metrics.column.{name}": "counts" for name in uuids}


def sort_sql(spec: TableSpec, projection: Projection) -> tuple[str, ...]:
    """ClickHouse `ORDER BY` items in Iceberg's order of the written values.

    A column that sorts the same before and after its conversion is named bare, so that ClickHouse can read in the
    order of its primary key. Raises OFL-101 for a nested column.
    """
    by_name = {c.name: c for c in projection.columns}
    out: list[str] = []
    for field in spec.target.sort:
        column = by_name[field.column]
        if icetypes.parse(column.iceberg_type).nested:
            raise OffloadError(
                SPEC_INVALID,
                f"target.sort: {field.column} is {column.iceberg_type}, which has no order",
                table=spec.identity,
            )
        item = _sort_value(spec, column) + (" DESC" if field.descending else " ASC")
        if not column.required:
            item += " NULLS LAST" if field.nulls_last else " NULLS FIRST"
        out.append(item)
    return tuple(out)


def _sort_value(spec: TableSpec, column: ProjectedColumn) -> str:
    if column.name in spec.columns.overrides:
        return column.expr
    if column.iceberg_type == "uuid":
        # ClickHouse orders the halves of a UUID as it stores them, Iceberg its text.
        return f"toString({column.expr})"
    kind, _ = base_type(column.source_type)
    return column.expr if column.iceberg_type == "string" and kind.name != "String" else quote(column.name)
