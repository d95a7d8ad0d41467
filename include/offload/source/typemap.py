"""From ClickHouse types to Iceberg types without loss, or a refusal that says what to write instead.

The expression of a mapping yields exactly the ClickHouse type as which ClickHouse reads the Iceberg column back, so
that `cityHash64(tuple(…))` is the same number on both sides. Seen on ClickHouse 26.9 with PyIceberg 0.12, each by a
round trip through Parquet and `icebergLocal` (tests/unit/test_typemap_roundtrip.py repeats them):

- `required` makes ClickHouse read T, optional makes it read Nullable(T); the hash is the same either way, also of
  elements inside Array, Map and Tuple. So elements, values and struct fields are always optional in Iceberg.
- The hash of an integer does not depend on its width, so equal hashes do not prove equal types. The types are therefore
  written out, and `spec check --source` lets ClickHouse confirm each.
- DateTime comes through Arrow as uint32 and Enum as int8: both need their expression. UUID comes as `arrow.uuid` in
  canonical byte order and needs no fix-up.
- A String with invalid UTF-8 reaches Arrow as `string` unchecked and Parquet too; ClickHouse reads the same bytes back,
  but other readers fail or replace them. `RecordBatch.validate(full=True)` finds it; `type: binary` keeps the bytes.
- A struct field named `1` comes back as NULL inside a list, so unnamed tuple elements become `_1`, `_2`, as in Spark.
- Iceberg `time` comes back as Int64 of another scale: it is not used.
- A Map with duplicate keys keeps them, in order; Spark reads the last one only: the writer refuses them (lake/fit.py).
- CAST of a text to Nullable(T) gives NULL for a text that is no T, where CAST to T fails: `_or_fail` makes it fail.
- The text of a time is in the zone of its column, or of the server, and one text names two hours in autumn: texts are
  made of the same time in UTC.
- CAST of FixedString to String cuts trailing zero bytes, so FixedString becomes `fixed[n]`.
- A Decimal(5, 2) column may hold 99999.99: ClickHouse checks the width of the storage (9, 18, 38 digits), not the
  declared precision. pyarrow writes such a value to Parquet as another number, without an error: the writer has to call
  `RecordBatch.validate(full=True)`, which refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from include.offload.source import chtypes
from include.offload.source.chtypes import ChType
from include.offload.source.icetypes import MAX_DECIMAL_PRECISION, IceType
from include.offload.source.icetypes import parse as parse_iceberg
from include.offload.source.sql import literal, quote


class NoMappingError(ValueError):
    """A type without a lossless mapping: `why`, and the lines to choose from for `columns.overrides`.

    In `options`, `{c}` stands for the column's name and `{q}` for the name as quoted in SQL.
    """

    def __init__(self, clickhouse_type: str, why: str, *options: str) -> None:
        self.clickhouse_type, self.why, self.options = clickhouse_type, why, options
        super().__init__(f"{clickhouse_type}: {why}")


_X = "\0"
"""Stands for the value in the SQL of a mapping: no name and no type can hold it."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """How a ClickHouse type is written: `expr(x)` yields `result_type`, stored as `iceberg_type`."""

    clickhouse_type: str
    iceberg_type: str
    result_type: str
    required: bool
    sql: str = _X

    def expr(self, x: str) -> str:
        """The SQL of the value, `x` being the quoted column or another expression."""
        return self.sql.replace(_X, x)


@dataclass(frozen=True, slots=True)
class _Plain:
    """A mapping without its outermost nullability."""

    ice: IceType
    result: str
    same: bool
    """Whether the ClickHouse type already is `result`."""
    nullable: bool = False


_INTEGERS = {
    "Int8": "int", "Int16": "int", "Int32": "int", "Int64": "long", "UInt8": "int", "UInt16": "int", "UInt32": "long",
}  # fmt: skip
_DIGITS = {
    "Int8": 3, "UInt8": 3, "Int16": 5, "UInt16": 5, "Int32": 10, "UInt32": 10, "Int64": 19, "UInt64": 20, "Bool": 1,
    "Int128": 39, "UInt128": 39, "Int256": 77, "UInt256": 78,
}  # fmt: skip
_BIG_INTEGERS = ("Int128", "Int256", "UInt128", "UInt256")
_NARROW_DECIMALS = {"Decimal32": 9, "Decimal64": 18, "Decimal128": 38, "Decimal256": 76}
_SIMPLE = {
    "Bool": "boolean", "Float32": "float", "Float64": "double", "BFloat16": "float", "String": "string", "UUID": "uuid",
    "Date": "date", "Date32": "date", "DateTime": "timestamptz", "DateTime32": "timestamptz", "IPv4": "string",
    "IPv6": "string", "Time": "int", "UInt64": "decimal(20, 0)",
}  # fmt: skip
_GEO = {
    "Point": "Tuple(x Float64, y Float64)", "Ring": "Array(Point)", "LineString": "Array(Point)",
    "MultiPoint": "Array(Point)", "MultiLineString": "Array(LineString)",
    "Polygon": "Array(Ring)", "MultiPolygon": "Array(Polygon)",
}  # fmt: skip


def map_type(clickhouse_type: str) -> Mapping:
    """The lossless mapping of a type. Raises NoMappingError with the reason and the override to write."""
    plain = _map(chtypes.parse(clickhouse_type))
    result = f"Nullable({plain.result})" if plain.nullable else plain.result
    return Mapping(clickhouse_type, str(plain.ice), result, not plain.nullable, _X if plain.same else _cast(_X, result))


def base_type(clickhouse_type: str) -> tuple[ChType, bool]:
    """The type inside Nullable, LowCardinality and SimpleAggregateFunction, and whether it may be NULL."""
    kind, nullable = chtypes.parse(clickhouse_type), False
    while kind.name in ("Nullable", "LowCardinality", "SimpleAggregateFunction"):
        nullable = nullable or kind.name == "Nullable"
        kind = kind.parts[0]
    return kind, nullable


def _map(kind: ChType) -> _Plain:
    if kind.name == "Nullable":
        inner = _map(kind.parts[0])
        if inner.ice.nested:
            raise NoMappingError(
                str(kind), "a nested value that is NULL comes back as an empty one", "{c}: {type: string}"
            )
        return _Plain(inner.ice, inner.result, inner.same, nullable=True)
    if kind.name in ("LowCardinality", "SimpleAggregateFunction"):
        # Arrow and the hash see through both wrappers.
        return _map(kind.parts[0])
    if kind.name in ("Array", "Map", "Tuple", "Nested"):
        return _container(kind)
    if kind.name in _GEO:
        inner = _map(chtypes.parse(_GEO[kind.name]))
        return _Plain(inner.ice, inner.result, same=False)
    return _scalar(kind)


def _scalar(kind: ChType) -> _Plain:
    name = kind.name
    if name in _INTEGERS or name in _SIMPLE:
        ice = parse_iceberg(_INTEGERS.get(name) or _SIMPLE[name])
        return _Plain(ice, ice.clickhouse(), same=str(kind) == ice.clickhouse())
    if name in _BIG_INTEGERS or name in ("Enum", "Enum8", "Enum16"):
        return _Plain(IceType("string"), "String", same=False)
    if name == "Decimal" or name in _NARROW_DECIMALS:
        return _decimal(kind)
    if name == "FixedString":
        ice = IceType("fixed", (int(kind.args[0]),))
        return _Plain(ice, ice.clickhouse(), same=True)
    if name == "DateTime64":
        digits = int(kind.args[0])
        if digits > 6:
            raise NoMappingError(
                str(kind),
                f"Iceberg holds microseconds (6 digits), this column {digits}",
                "{c}: {expr: \"toUnixTimestamp64Nano(toDateTime64({q}, 9, 'UTC'))\", type: long}",
                "{c}: {expr: \"toDateTime64({q}, 6, 'UTC')\", type: timestamptz}  # cut at microseconds",
            )
        return _Plain(IceType("timestamptz"), "DateTime64(6, 'UTC')", same=kind.args == ("6", "'UTC'"))
    if name.startswith("Interval"):
        return _Plain(IceType("long"), "Int64", same=False)
    if name == "QBit":
        element = _scalar(ChType(kind.args[0])).ice
        ice = IceType("list", parts=(element,))
        return _Plain(ice, ice.clickhouse(), same=False)
    raise _refusal(kind)


def _decimal(kind: ChType) -> _Plain:
    precision, scale = _decimal_shape(kind)
    if precision > MAX_DECIMAL_PRECISION:
        narrow = f'{{c}}: {{type: "decimal(38, {scale})"}}  # fails on a larger value'
        raise NoMappingError(
            str(kind),
            f"Iceberg decimals have at most 38 digits, this column {precision}",
            "{c}: {type: string}",
            *([narrow] if scale <= MAX_DECIMAL_PRECISION else []),
        )
    ice = IceType("decimal", (precision, scale))
    return _Plain(ice, ice.clickhouse(), same=True)


def _decimal_shape(kind: ChType) -> tuple[int, int]:
    if kind.name in _NARROW_DECIMALS:
        return _NARROW_DECIMALS[kind.name], int(kind.args[0])
    return int(kind.args[0]) if kind.args else 10, int(kind.args[1]) if len(kind.args) > 1 else 0


def _container(kind: ChType) -> _Plain:
    """Array, Map, Tuple and Nested: the same nesting with every part mapped, converted by one CAST of the whole."""
    try:
        parts = [_map(p) for p in kind.parts]
    except NoMappingError as error:
        raise NoMappingError(
            str(kind), f"{error.clickhouse_type}: {error.why}", "{c}: {type: string}  # its text"
        ) from None
    results = [f"Nullable({p.result})" if p.nullable else p.result for p in parts]
    same = all(p.same for p in parts)
    ices = tuple(p.ice for p in parts)
    if kind.name == "Array":
        return _Plain(IceType("list", parts=ices), f"Array({results[0]})", same)
    if kind.name == "Map":
        if ices[0].nested:
            raise NoMappingError(str(kind), "the keys of the map are nested", "{c}: {type: string}")
        return _Plain(IceType("map", parts=ices), f"Map({', '.join(results)})", same)
    if not parts:
        raise NoMappingError(str(kind), "Iceberg has no empty struct", "{c}: {type: string}")
    if any(n is not None and n.isdigit() for n in kind.names):
        raise NoMappingError(
            str(kind), "ClickHouse reads struct fields named by a number back as NULL", "{c}: {type: string}"
        )
    same = same and None not in kind.names
    names = tuple(n if n is not None else f"_{i + 1}" for i, n in enumerate(kind.names))
    if len({n.lower() for n in names}) < len(names):
        raise NoMappingError(
            str(kind), "two fields of the tuple differ only in case, which readers ignore", "{c}: {type: string}"
        )
    fields = ", ".join(f"{quote(n)} {r}" for n, r in zip(names, results, strict=True))
    ice, tuple_type = IceType("struct", parts=ices, names=names), f"Tuple({fields})"
    if kind.name == "Nested":
        return _Plain(IceType("list", parts=(ice,)), f"Array({tuple_type})", same)
    return _Plain(ice, tuple_type, same)


def _refusal(kind: ChType) -> NoMappingError:
    name = kind.name
    if name == "AggregateFunction":
        return NoMappingError(
            str(kind), "a state of an aggregate function means nothing outside ClickHouse",
            '{c}: {expr: "toString(finalizeAggregation({q}))", type: string}  # its result',
            "{c}: {expr: \"CAST({q}, 'String')\", type: binary}  # the state, for ClickHouse alone",
        )  # fmt: skip
    if name in ("JSON", "Object", "Variant", "Dynamic", "Geometry"):
        return NoMappingError(
            str(kind), f"Iceberg has no type that holds every {name} value", "{c}: {type: string}  # its text"
        )
    if name == "Time64":
        digits, unit = (6, "microseconds") if int(kind.args[0]) <= 6 else (9, "nanoseconds")
        return NoMappingError(
            str(kind), "Iceberg `time` holds no negative times and none from 24 hours",
            f"{{c}}: {{expr: \"toInt64(CAST({{q}}, 'Decimal(38, {digits})') * {10**digits})\", type: long}}  # {unit}",
            "{c}: {type: string}",
        )  # fmt: skip
    if name == "Nothing":
        return NoMappingError(str(kind), "the column can hold no value")
    return NoMappingError(
        str(kind), "this version knows no lossless mapping", '{c}: {expr: "toString({q})", type: string}  # its text'
    )


def map_override(clickhouse_type: str, wanted: str) -> Mapping:
    """The conversion to an Iceberg type that a spec asks for: lossless, or failing loudly on a value that does not fit.

    Raises NoMappingError when a value could change silently.
    """
    target = parse_iceberg(wanted)
    kind, nullable = base_type(clickhouse_type)
    try:
        default = map_type(clickhouse_type)
        if default.iceberg_type == str(target):
            return default
    except NoMappingError:
        default = None
    convert = _conversion(chtypes.parse(clickhouse_type), kind, target)
    if convert is None:
        raise NoMappingError(
            clickhouse_type, f"a value could change on its way to {target}",
            f"{{c}}: {{expr: …, type: \"{target}\"}}  # the ClickHouse expression that you mean",
        )  # fmt: skip
    nullable = nullable or kind.name in ("Variant", "Dynamic", "Geometry")
    result = target.clickhouse_element() if nullable else target.clickhouse()
    sql = convert(_X, result)
    if nullable and convert is _by_text:
        sql = _or_fail(_X, sql, str(target))
    return Mapping(clickhouse_type, str(target), result, not nullable, sql)


_Convert = Callable[[str, str], str]
"""From the SQL of a value and the wanted ClickHouse type to the SQL of the converted value."""


def _cast(x: str, result: str) -> str:
    return f"CAST({x}, {literal(result)})"


def _checked(x: str, result: str) -> str:
    # accurateCast raises where CAST would wrap around.
    return f"accurateCast({x}, {literal(result)})"


def _by_text(x: str, result: str) -> str:
    # Parsing the text checks the number of digits; a direct conversion does not.
    return f"CAST(toString({x}), {literal(result)})"


def _or_fail(x: str, converted: str, wanted: str) -> str:
    """`converted`, failing where it is NULL and `x` is not: a text that could not be read."""
    why = literal(f"a value does not fit {wanted}")
    return f"if(throwIf(isNull({converted}) AND isNotNull({x}), {why}), NULL, {converted})"


def _integer(name: str) -> bool:
    return name in _INTEGERS or name in _BIG_INTEGERS or name == "UInt64"


def _in_utc(kind: ChType) -> str:
    """The type with every time in UTC, so that no two values have one text."""
    if kind.name in ("DateTime", "DateTime32"):
        return "DateTime('UTC')"
    if kind.name == "DateTime64":
        return f"DateTime64({kind.args[0]}, 'UTC')"
    if kind.name == "SimpleAggregateFunction":
        return _in_utc(kind.parts[0])
    if kind.name in ("Tuple", "Nested"):
        fields = zip(kind.names, kind.parts, strict=True)
        inner = ", ".join(f"{quote(n)} {_in_utc(p)}" if n is not None else _in_utc(p) for n, p in fields)
        return f"Tuple({inner})" if kind.name == "Tuple" else f"Array(Tuple({inner}))"
    return f"{kind.name}({', '.join(map(_in_utc, kind.parts))})" if kind.parts else str(kind)


def _has_time(kind: ChType) -> bool:
    return kind.name in ("DateTime", "DateTime32", "DateTime64") or any(map(_has_time, kind.parts))


def _conversion(whole: ChType, kind: ChType, target: IceType) -> _Convert | None:
    """How a column of type `whole`, `kind` without its wrappers, becomes `target`; None: not without an expr."""
    name, wanted = kind.name, target.kind
    if wanted == "string":
        if name in ("AggregateFunction", "Nothing"):
            return None
        return (lambda x, r: _cast(_cast(x, _in_utc(whole)), r)) if _has_time(whole) else _cast
    if wanted == "binary" and name in ("String", "FixedString"):
        # concat keeps the trailing zero bytes of a FixedString, CAST cuts them.
        return (lambda x, _: f"concat({x}, '')") if name == "FixedString" else (lambda x, _: x)
    if wanted in ("int", "long") and (_integer(name) or name in ("Bool", "Time")):
        return _checked
    if wanted == "decimal":
        return _to_decimal(kind, target)
    if wanted == "double" and name in ("Float32", "BFloat16", "Int8", "Int16", "Int32", "UInt8", "UInt16", "UInt32"):
        return _cast
    if wanted == "timestamp" and (
        name in ("DateTime", "DateTime32") or (name == "DateTime64" and int(kind.args[0]) <= 6)
    ):
        return lambda x, r: _cast(x, r.replace("DateTime64(6)", "DateTime64(6, 'UTC')"))
    if wanted == "timestamptz" and name in ("Date", "Date32"):
        return _cast
    return None


def _to_decimal(kind: ChType, target: IceType) -> _Convert | None:
    """Allowed when every value fits by its type, or at 38 digits, where ClickHouse checks; below 38 it does not."""
    precision, scale = target.numbers
    if kind.name in _DIGITS:
        digits, own = _DIGITS[kind.name], 0
    elif kind.name == "Decimal" or kind.name in _NARROW_DECIMALS:
        width, own = _decimal_shape(kind)
        digits = width - own
    else:
        return None
    fits = scale >= own and (precision == MAX_DECIMAL_PRECISION or digits <= precision - scale)
    return _by_text if fits else None


def declared(expr: str, wanted: str) -> Mapping:
    """The mapping of an `expr` that the spec writes together with its Iceberg type; always optional.

    What `expr` gives is the user's choice, but a text in it that is no value of the Iceberg type fails the query.
    """
    target = parse_iceberg(wanted)
    result = target.clickhouse_element()
    x = f"({_X})"
    sql = _strict(x, target) if _parses(target) else _cast(x, result)
    if target.nested and _parses(target):
        sql = _cast(sql, result)
    return Mapping(expr, str(target), result, target.nested, sql)


def _parses(ice: IceType) -> bool:
    """Whether a text may have to be read to get a value of this type."""
    return any(map(_parses, ice.parts)) if ice.nested else ice.kind not in ("string", "binary")


def _strict(x: str, ice: IceType, depth: int = 0) -> str:
    """The SQL of `x` as `ice`, element by element: in one CAST of the whole, unreadable texts would become NULL."""
    if ice.kind == "list":
        return f"arrayMap(__v{depth} -> {_strict(f'__v{depth}', ice.parts[0], depth + 1)}, {x})"
    if ice.kind == "map":
        key, value = ice.parts
        keys = f"arrayMap(__v{depth} -> {_exactly(f'__v{depth}', key, key.clickhouse())}, mapKeys({x}))"
        values = f"arrayMap(__v{depth} -> {_strict(f'__v{depth}', value, depth + 1)}, mapValues({x}))"
        return _cast(f"({keys}, {values})", ice.clickhouse())
    if ice.kind == "struct":
        return f"tuple({', '.join(_strict(f'tupleElement({x}, {i})', p, depth) for i, p in enumerate(ice.parts, 1))})"
    converted = _exactly(x, ice, ice.clickhouse_element())
    return _or_fail(x, converted, str(ice)) if _parses(ice) else converted


def _exactly(x: str, ice: IceType, result: str) -> str:
    if ice.kind in ("int", "long"):
        return _checked(x, result)
    return _cast(x, result.replace("DateTime64(6)", "DateTime64(6, 'UTC')"))
