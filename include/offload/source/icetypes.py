"""Iceberg types as text, the way a spec writes them and PyIceberg prints them.

`decimal(18, 8)`, `fixed[16]`, `list<string>`, `map<string, long>`, `struct<a: int, b: list<string>>`. Elements, values
and struct fields are optional, map keys required: the text carries no ids and no nullability below the column.
Only `to_iceberg` and `text_of` import PyIceberg; parsing a spec does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.types import IcebergType

PRIMITIVES = (
    "boolean", "int", "long", "float", "double", "date", "timestamp", "timestamptz", "string", "uuid", "binary",
)  # fmt: skip
MAX_DECIMAL_PRECISION = 38

_TOKEN = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*|[0-9]+|`(?:[^`]|``)+`)|([<>,:()\[\]]))")


@dataclass(frozen=True, slots=True)
class IceType:
    """A type: `kind` is a primitive's name, `decimal`, `fixed`, `list`, `map` or `struct`.

    numbers: precision and scale, or the length. parts: element; key and value; the fields' types. names: the fields'.
    """

    kind: str
    numbers: tuple[int, ...] = ()
    parts: tuple[IceType, ...] = ()
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind == "decimal":
            return f"decimal({self.numbers[0]}, {self.numbers[1]})"
        if self.kind == "fixed":
            return f"fixed[{self.numbers[0]}]"
        if self.kind == "struct":
            return f"struct<{', '.join(f'{_name(n)}: {p}' for n, p in zip(self.names, self.parts, strict=True))}>"
        return f"{self.kind}<{', '.join(map(str, self.parts))}>" if self.parts else self.kind

    @property
    def nested(self) -> bool:
        return self.kind in ("list", "map", "struct")

    def clickhouse(self) -> str:
        """The ClickHouse type as which ClickHouse reads this Iceberg type back (seen on 26.9, each hash equal)."""
        if self.kind == "decimal":
            return f"Decimal({self.numbers[0]}, {self.numbers[1]})"
        if self.kind == "fixed":
            return f"FixedString({self.numbers[0]})"
        if self.kind == "list":
            return f"Array({self.parts[0].clickhouse_element()})"
        if self.kind == "map":
            return f"Map({self.parts[0].clickhouse()}, {self.parts[1].clickhouse_element()})"
        if self.kind == "struct":
            from include.offload.source.sql import quote

            fields = zip(self.names, self.parts, strict=True)
            return f"Tuple({', '.join(f'{quote(n)} {p.clickhouse_element()}' for n, p in fields)})"
        return _CLICKHOUSE[self.kind]

    def clickhouse_element(self) -> str:
        """Like `clickhouse()`, Nullable where ClickHouse allows it."""
        return self.clickhouse() if self.nested else f"Nullable({self.clickhouse()})"


_CLICKHOUSE = {
    "boolean": "Bool", "int": "Int32", "long": "Int64", "float": "Float32", "double": "Float64", "date": "Date32",
    "timestamp": "DateTime64(6)", "timestamptz": "DateTime64(6, 'UTC')", "string": "String", "binary": "String",
    "uuid": "UUID",
}  # fmt: skip


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+", name) else "`" + name.replace("`", "``") + "`"


def parse(text: str) -> IceType:
    """The type that a text names. Raises ValueError with what is wrong."""
    tokens = list(_tokens(text))
    found, rest = _type(tokens, text)
    if rest:
        raise ValueError(f"{text!r} goes on after the type: {rest[0]!r}")
    return found


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} is no Iceberg type: unexpected {text[at:].strip()[0]!r}")
        yield match[1] or match[2]
        at = match.end()


def _take(tokens: list[str], wanted: str, text: str) -> list[str]:
    if not tokens or tokens[0] != wanted:
        raise ValueError(f"{text!r} is no Iceberg type: {wanted!r} is missing")
    return tokens[1:]


def _number(tokens: list[str], text: str) -> tuple[int, list[str]]:
    if not tokens or not tokens[0].isdigit():
        raise ValueError(f"{text!r} is no Iceberg type: a number is missing")
    return int(tokens[0]), tokens[1:]


def _type(tokens: list[str], text: str) -> tuple[IceType, list[str]]:
    if not tokens:
        raise ValueError(f"{text!r} is no Iceberg type: a type is missing")
    kind, rest = tokens[0], tokens[1:]
    if kind in PRIMITIVES:
        return IceType(kind), rest
    if kind == "decimal":
        precision, rest = _number(_take(rest, "(", text), text)
        scale, rest = _number(_take(rest, ",", text), text)
        if not 1 <= precision <= MAX_DECIMAL_PRECISION or scale > precision:
            raise ValueError(f"decimal({precision}, {scale}): precision is 1 to 38, scale 0 to precision")
        return IceType(kind, (precision, scale)), _take(rest, ")", text)
    if kind == "fixed":
        length, rest = _number(_take(rest, "[", text), text)
        if length < 1:
            raise ValueError("fixed[0]: the length is 1 or more")
        return IceType(kind, (length,)), _take(rest, "]", text)
    if kind == "list":
        element, rest = _type(_take(rest, "<", text), text)
        return IceType(kind, parts=(element,)), _take(rest, ">", text)
    if kind == "map":
        key, rest = _type(_take(rest, "<", text), text)
        value, rest = _type(_take(rest, ",", text), text)
        return IceType(kind, parts=(key, value)), _take(rest, ">", text)
    if kind == "struct":
        return _struct(rest, text)
    hint = {"time": "ClickHouse reads `time` back wrong; write long or string", "decimal128": "write decimal(38, 0)"}
    raise ValueError(
        f"{kind!r} is no Iceberg type that is supported; {hint.get(kind, 'known: ' + ', '.join(PRIMITIVES))}"
    )


def _struct(tokens: list[str], text: str) -> tuple[IceType, list[str]]:
    rest = _take(tokens, "<", text)
    names: list[str] = []
    parts: list[IceType] = []
    while True:
        if not rest or rest[0] in "<>,:()[]":
            raise ValueError(f"{text!r} is no Iceberg type: a field name is missing")
        name = rest[0][1:-1].replace("``", "`") if rest[0].startswith("`") else rest[0]
        if name in names:
            raise ValueError(f"{text!r}: two fields are named {name}")
        part, rest = _type(_take(rest[1:], ":", text), text)
        names.append(name)
        parts.append(part)
        if rest and rest[0] == ",":
            rest = rest[1:]
            continue
        return IceType("struct", parts=tuple(parts), names=tuple(names)), _take(rest, ">", text)


def to_iceberg(text: str, next_id: Iterator[int]) -> IcebergType:
    """The PyIceberg type of a text; nested fields take their ids from `next_id` (a new table renumbers them)."""
    return _build(parse(text), next_id)


def _build(kind: IceType, ids: Iterator[int]) -> IcebergType:
    from pyiceberg import types as t

    if kind.kind == "decimal":
        return t.DecimalType(kind.numbers[0], kind.numbers[1])
    if kind.kind == "fixed":
        return t.FixedType(kind.numbers[0])
    if kind.kind == "list":
        return t.ListType(next(ids), _build(kind.parts[0], ids), element_required=False)
    if kind.kind == "map":
        key_id, value_id = next(ids), next(ids)
        key, value = _build(kind.parts[0], ids), _build(kind.parts[1], ids)
        return t.MapType(key_id, key, value_id, value, value_required=False)
    if kind.kind == "struct":
        taken = [next(ids) for _ in kind.names]
        return t.StructType(
            *(
                t.NestedField(i, n, _build(p, ids), required=False)
                for i, n, p in zip(taken, kind.names, kind.parts, strict=True)
            )
        )
    simple: dict[str, IcebergType] = {
        "boolean": t.BooleanType(), "int": t.IntegerType(), "long": t.LongType(), "float": t.FloatType(),
        "double": t.DoubleType(), "date": t.DateType(), "timestamp": t.TimestampType(), "string": t.StringType(),
        "timestamptz": t.TimestamptzType(), "uuid": t.UUIDType(), "binary": t.BinaryType(),
    }  # fmt: skip
    return simple[kind.kind]


def text_of(kind: IcebergType) -> str:
    """The text of a PyIceberg type, without ids: equal texts, equal types (up to nullability below the column)."""
    from pyiceberg import types as t

    if isinstance(kind, t.ListType):
        return f"list<{text_of(kind.element_type)}>"
    if isinstance(kind, t.MapType):
        return f"map<{text_of(kind.key_type)}, {text_of(kind.value_type)}>"
    if isinstance(kind, t.StructType):
        return f"struct<{', '.join(f'{_name(f.name)}: {text_of(f.field_type)}' for f in kind.fields)}>"
    return str(kind)
