"""The leaves of a column: every number, text and identifier in it, however deep in lists, maps and structs.

Each leaf has a checksum that two readers which share no code compute alike, whatever the order of the rows: ClickHouse
by the SQL of this module, PyIceberg's Arrow batches by `sums`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from include.offload.model import ProjectedColumn
from include.offload.source.icetypes import IceType, parse
from include.offload.source.sql import literal


class Into(StrEnum):
    """A step from a value into what it holds."""

    ELEMENT = "element"
    KEY = "key"
    VALUE = "value"
    FIELD = "field"


@dataclass(frozen=True, slots=True)
class Step:
    """`name`: the field's, of a step into a struct."""

    into: Into
    name: str = ""

    def __str__(self) -> str:
        return (
            f".{self.name}"
            if self.into is Into.FIELD
            else {"element": "[]", "key": ".key", "value": ".value"}[self.into]
        )


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of `column`. kind: its type; that of a list or map stands for how many elements each holds."""

    column: ProjectedColumn
    path: tuple[Step, ...]
    kind: IceType

    def __str__(self) -> str:
        return self.column.name + "".join(map(str, self.path)) + (".size" if self.kind.nested else "")

    @property
    def floating(self) -> bool:
        """Whether its sum depends on the order of adding."""
        return self.kind.kind in ("float", "double")

    @property
    def summed(self) -> str:
        """What is added up, in a word."""
        texts = ("string", "binary", "fixed")
        return "checksums" if self.kind.kind in texts else "sizes" if self.kind.nested else "values"

    def sum_sql(self) -> str:
        """The sum over the rows in ClickHouse, as text without rounding; NULL where nothing is counted."""
        one = _through(self.column.expr, self.path, lambda x: f"ifNull({_number(x, self.kind)}, {_nothing(self.kind)})")
        return f"toString(sum({one}))"

    def count_sql(self) -> str:
        """How many values there are."""
        return f"toString(sum({_through(self.column.expr, self.path, lambda x: f'toInt256(isNotNull({x}))')}))"


def leaves(columns: Sequence[ProjectedColumn]) -> tuple[Leaf, ...]:
    """The leaves of these columns, in their order."""
    return tuple(Leaf(c, path, kind) for c in columns for path, kind in _leaves(parse(c.iceberg_type), ()))


def _leaves(kind: IceType, path: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], IceType]]:
    if kind.kind == "struct":
        for name, part in zip(kind.names, kind.parts, strict=True):
            yield from _leaves(part, (*path, Step(Into.FIELD, name)))
        return
    yield path, kind
    if kind.kind == "list":
        yield from _leaves(kind.parts[0], (*path, Step(Into.ELEMENT)))
    if kind.kind == "map":
        yield from _leaves(kind.parts[0], (*path, Step(Into.KEY)))
        yield from _leaves(kind.parts[1], (*path, Step(Into.VALUE)))


def _through(x: str, path: Sequence[Step], leaf: Callable[[str], str]) -> str:
    """What one row adds: the sum over all that the path leads to."""
    if not path:
        return leaf(x)
    step, rest = path[0], path[1:]
    if step.into is Into.FIELD:
        return _through(f"tupleElement({x}, {literal(step.name)})", rest, leaf)
    inside = {Into.ELEMENT: x, Into.KEY: f"mapKeys({x})", Into.VALUE: f"mapValues({x})"}[step.into]
    name = f"e{len(path)}"
    return f"arrayReduce('sum', arrayMap({name} -> {_through(name, rest, leaf)}, {inside}))"


def _number(x: str, kind: IceType) -> str:
    """A value as a number that its sum can not overflow."""
    match kind.kind:
        case "float" | "double":
            return f"toFloat64({x})"
        case "decimal":
            return f"toDecimal256({x}, {kind.numbers[1]})"
        case "boolean":
            return f"toInt256(toUInt8({x}))"
        case "date":
            return f"toInt256(toInt32({x}))"
        case "timestamp" | "timestamptz":
            return f"toInt256(toUnixTimestamp64Micro({x}))"
        case "uuid":
            # big-endian, as Iceberg stores it
            return f"toInt256(reinterpretAsUInt128(reverse(UUIDToNum({x}))))"
        case "string" | "binary" | "fixed":
            return f"toInt256(CRC32({x}))"
        case "list" | "map":
            return f"toInt256(length({x}))"
    return f"toInt256({x})"


def _nothing(kind: IceType) -> str:
    if kind.kind in ("float", "double"):
        return "toFloat64(0)"
    return f"toDecimal256(0, {kind.numbers[1]})" if kind.kind == "decimal" else "toInt256(0)"
