"""Sum and count of every leaf of a table: by ClickHouse over the source, by PyIceberg and Arrow over the lake."""

from __future__ import annotations

import decimal
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import isclose, isnan
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from include.offload.eras import Era
from include.offload.lake.rewriting import cursor_filter
from include.offload.leaves import Into, Leaf, Step, leaves
from include.offload.model import ProjectedColumn
from include.offload.source.client import Client
from include.offload.source.icetypes import IceType
from include.offload.source.sql import spans_sql

EXACT = decimal.Context(prec=100)
"""Sums of decimals with 38 digits need more than the 28 of Python's default context."""
FLOAT_TOLERANCE = 1e-9
"""Sums of floats depend on the order of adding; relative, far above the rounding of 53 bits over billions of rows."""


@dataclass(frozen=True, slots=True)
class ColumnSum:
    """Sum and count of a leaf of a column, by ClickHouse over the source and by PyIceberg over the lake.

    column: the column's name, and the way to the leaf where it is nested. what: what is added up: `values`, `sizes` of
    lists and maps, `checksums` (CRC-32) of texts.
    """

    column: str
    source: str
    lake: str
    equal: bool
    what: str = "values"


class Sums:
    """Both sides, added up over the eras that hold a column."""

    def __init__(self, columns: Sequence[ProjectedColumn]) -> None:
        self._leaves = leaves(columns)
        self._source: dict[Leaf, tuple[Any, int]] = {leaf: (_zero(leaf), 0) for leaf in self._leaves}
        self._lake = dict(self._source)

    def add_source(self, client: Client, source: str, cursor: str, era: Era) -> None:
        """ClickHouse's sums over the source."""
        asked = [leaf for leaf in self._leaves if leaf.column in era.columns]
        if not asked:
            return
        parts = ", ".join(f"{leaf.sum_sql()}, {leaf.count_sql()}" for leaf in asked)
        (row,) = client.query(f"SELECT {parts} FROM {source} WHERE {spans_sql(cursor, era.spans)}")
        for i, leaf in enumerate(asked):
            text = row[2 * i] or "0"
            _add(self._source, leaf, float(text) if leaf.floating else Decimal(text), int(row[2 * i + 1] or 0))

    def add_lake(self, table: Table, cursor: str, era: Era) -> int:
        """PyIceberg's sums over the lake; the rows that it read."""
        asked = [leaf for leaf in self._leaves if leaf.column in era.columns]
        rows = 0
        scan = table.scan(
            row_filter=cursor_filter(table, cursor, era.spans),
            selected_fields=tuple({cursor, *(leaf.column.name for leaf in asked)}),
        )
        for batch in scan.to_arrow_batch_reader():
            rows += batch.num_rows
            for leaf in asked:
                _add(self._lake, leaf, *arrow_sum(batch.column(leaf.column.name), leaf.path, leaf.kind))
        return rows

    def compared(self) -> tuple[ColumnSum, ...]:
        """Both sides of each leaf."""
        return tuple(_compare(leaf, self._source[leaf], self._lake[leaf]) for leaf in self._leaves)


def arrow_sum(values: pa.Array, path: Sequence[Step], kind: IceType) -> tuple[Any, int]:
    """The sum of a leaf over a column of a batch, exact unless it is floating, and how many values there are."""
    for step in path:
        values = _inside(values, step)
    values = values.drop_null()
    count = len(values)
    match kind.kind:
        case "float" | "double":
            return pc.sum(values.cast(pa.float64())).as_py() or 0.0, count
        case "list" | "map":
            return _whole(pc.list_value_length(_as_list(values))), count
        case "string" | "binary" | "fixed":
            return _checksums(values), count
        case "uuid":
            return _identifiers(values), count
        case "boolean":
            return _whole(values.cast(pa.int8())), count
        case "date":
            return _whole(values.cast(pa.int32())), count
        case "timestamp" | "timestamptz":
            return _whole(values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())), count
    return _whole(values), count


def _inside(values: pa.Array, step: Step) -> pa.Array:
    if step.into is Into.FIELD:
        return pc.struct_field(values, step.name)
    if step.into is Into.ELEMENT:
        return pc.list_flatten(values)
    pairs = pc.list_flatten(_as_list(values))
    return pc.struct_field(pairs, 0 if step.into is Into.KEY else 1)


def _as_list(values: pa.Array) -> pa.Array:
    if not pa.types.is_map(values.type):
        return values
    pair = pa.struct([pa.field("key", values.type.key_type), pa.field("value", values.type.item_type)])
    return values.cast(pa.list_(pair))


def _whole(values: pa.Array) -> Decimal:
    scale = values.type.scale if pa.types.is_decimal(values.type) else 0
    return pc.sum(values.cast(pa.decimal256(76, scale))).as_py() or Decimal(0)


def _checksums(values: pa.Array) -> Decimal:
    total = 0
    for pair in pc.value_counts(values).to_pylist():
        value = pair["values"]
        total += zlib.crc32(value.encode() if isinstance(value, str) else value) * pair["counts"]
    return Decimal(total)


def _identifiers(values: pa.Array) -> Decimal:
    stored = values.storage if isinstance(values, pa.ExtensionArray) else values
    return Decimal(sum(int.from_bytes(value, "big") for value in stored.to_pylist()))


def _zero(leaf: Leaf) -> Any:
    return 0.0 if leaf.floating else Decimal(0)


def _add(totals: dict[Leaf, tuple[Any, int]], leaf: Leaf, value: Any, count: int) -> None:
    total, counted = totals[leaf]
    with localcontext(EXACT):
        totals[leaf] = (total + value, counted + count)


def _compare(leaf: Leaf, source: tuple[Any, int], lake: tuple[Any, int]) -> ColumnSum:
    ours, theirs = source[0], lake[0]
    equal = ours == theirs
    if leaf.floating:
        near = isclose(ours, theirs, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
        equal = near or (isnan(ours) and isnan(theirs))
    told = [f"{total} of {count}" for total, count in (source, lake)]
    return ColumnSum(str(leaf), told[0], told[1], equal and source[1] == lake[1], leaf.summed)
