"""Values that ClickHouse holds and Iceberg does not: found before they are written, named with the override to write.

pyarrow itself writes a decimal beyond its precision as another number, any bytes as text, and a map with a key that
stands twice, of which Spark and others show one value only.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from include.offload.source import icetypes
from include.offload.source.icetypes import MAX_DECIMAL_PRECISION, IceType
from include.offload.source.sql import quote
from include.offload.source.typemap import base_type
from include.offload.spec.fields import yaml_text

NO_UTF8 = "text that is no UTF-8"
TOO_LONG = "a decimal with more digits than its type has"
TWICE = "a map in which a key stands twice"
COMPARED_KEYS = 32
"""Maps of up to so many keys are compared pair by pair, in vectors: several times as fast as one hash table."""


class UnfitValueError(ValueError):
    """A value that Iceberg can't hold. `what`: one of NO_UTF8, TOO_LONG and TWICE, or pyarrow's words."""

    def __init__(self, column: str, what: str) -> None:
        self.column, self.what = column, what
        super().__init__(f"column {column} holds {what}")


def check(name: str, values: pa.Array) -> None:
    """Raises UnfitValueError for the first kind of value in a column that would not arrive as it is."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        text = " ".join(str(error).split())
        known = NO_UTF8 if "UTF8" in text else TOO_LONG if "precision" in text else f"a value of no use: {text}"
        raise UnfitValueError(name, known) from error
    if _holds_map(values.type) and _repeats_key(values):
        raise UnfitValueError(name, TWICE)


def _holds_map(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) or any(_holds_map(kind.field(i).type) for i in range(kind.num_fields))


def _repeats_key(values: pa.Array) -> bool:
    """Whether a map in these values, at any depth, has a key twice."""
    kind = values.type
    if not _holds_map(kind) or len(values) == 0:
        return False
    if pa.types.is_struct(kind):
        return any(_repeats_key(child) for child in values.flatten())
    if not pa.types.is_map(kind):
        return _repeats_key(values.flatten())
    first, end = values.offsets[0].as_py(), values.offsets[-1].as_py()
    keys, items = (part.slice(first, end - first) for part in (values.keys, values.items))
    # most maps have no more than one key: then there is nothing to compare
    longest = pc.max(pc.subtract(values.offsets[1:], values.offsets[:-1])).as_py()
    if longest > 1 and _twice(keys, pc.subtract(values.offsets, values.offsets[0]), longest):
        return True
    return _repeats_key(items)


def _twice(keys: pa.Array, offsets: pa.Array, longest: int) -> bool:
    plain = keys.storage if isinstance(keys, pa.ExtensionArray) else keys
    if pa.types.is_floating(plain.type):
        # readers take -0.0 for 0.0
        plain = pc.add(plain, pa.scalar(0.0, plain.type))
    encoded = plain.dictionary_encode()
    codes = encoded.indices
    rows = pc.list_parent_indices(pa.ListArray.from_arrays(offsets, codes))
    if longest <= COMPARED_KEYS:
        steps = range(1, longest)
        return any(pc.any(pc.and_(_equal(codes, n), _equal(rows, n))).as_py() for n in steps)
    pairs = pc.add(pc.multiply(rows.cast(pa.int64()), len(encoded.dictionary)), codes.cast(pa.int64()))
    return len(pairs.unique()) < len(pairs)


def _equal(values: pa.Array, step: int) -> pa.BooleanArray:
    """Whether each value is the one `step` places before it."""
    return pc.equal(values[step:], values[:-step])


def advice(error: UnfitValueError, clickhouse_type: str, iceberg_type: str) -> str:
    """The refusal as one sentence: column, type, what is wrong, and the line to write into columns.overrides."""
    return (
        f"column {error.column} of type {clickhouse_type} holds {error.what}; write into columns.overrides "
        f"{option(error.column, error.what, clickhouse_type, iceberg_type)}, or exclude the column"
    )


def option(column: str, what: str, clickhouse_type: str, iceberg_type: str) -> str:
    """The line of `columns.overrides` under which the same values can be offloaded."""
    ice = icetypes.parse(iceberg_type)
    kind, _ = base_type(clickhouse_type)
    name, expr, wanted = quote(column), quote(column), str(_wider(ice))
    if what == TWICE:
        if ice.kind != "map":
            return f"{yaml_text(column)}: {{type: string}}"
        expr = f"arrayZip(mapKeys({name}), mapValues({name}))"
        wanted = str(IceType("list", parts=(IceType("struct", parts=ice.parts, names=("key", "value")),)))
    elif what == NO_UTF8 and kind.name != "String" and not ice.nested:
        expr = f"CAST({name}, 'String')"
    elif what in (NO_UTF8, TOO_LONG) and not ice.nested:
        return f"{yaml_text(column)}: {{type: {yaml_text(wanted)}}}"
    return f"{yaml_text(column)}: {{expr: {yaml_text(expr)}, type: {yaml_text(wanted)}}}"


def _wider(ice: IceType) -> IceType:
    """The type with bytes for text and all digits for decimals."""
    if ice.kind == "string":
        return IceType("binary")
    if ice.kind == "decimal":
        return IceType("decimal", (MAX_DECIMAL_PRECISION, ice.numbers[1]))
    return replace(ice, parts=tuple(map(_wider, ice.parts)))
