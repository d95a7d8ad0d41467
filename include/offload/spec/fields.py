"""The small languages of a spec: `day(timestamp)`, `seq desc nulls last`, cron.

Column names are ClickHouse's, compared with case; a name that is no plain identifier is written in backticks.
"""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError, core_schema

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLAIN_TRANSFORMS = ("identity", "year", "month", "day", "hour", "void")
SIZED_TRANSFORMS = ("bucket", "truncate")
TIME_TRANSFORMS = ("year", "month", "day", "hour")

_NAME = r"(?:[A-Za-z_][A-Za-z0-9_]*|`(?:[^`\\]|``)+`)"
_PARTITION = re.compile(
    rf"\s*(?:(?P<transform>[A-Za-z]+)\s*\(\s*(?:(?P<size>\d+)\s*,\s*)?(?P<inner>{_NAME})\s*\)|(?P<bare>{_NAME}))"
    rf"(?:\s+as\s+(?P<alias>[A-Za-z_][A-Za-z0-9_]*))?\s*"
)
_SORT = re.compile(rf"\s*(?P<name>{_NAME})(?:\s+(?P<way>asc|desc))?(?:\s+nulls\s+(?P<nulls>first|last))?\s*", re.I)


def unquote(name: str) -> str:
    """The column's name without the spec's backticks."""
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def quote_if_needed(name: str) -> str:
    """The name as a spec writes it: bare when it is a plain identifier, else in backticks."""
    return name if IDENTIFIER.fullmatch(name) else "`" + name.replace("`", "``") + "`"


def yaml_text(text: str) -> str:
    """A YAML scalar: bare when it is a plain word, else in double quotes."""
    if IDENTIFIER.fullmatch(text) and text.lower() not in ("true", "false", "null"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def refuse(kind: str, message: str, instead: str = "") -> PydanticCustomError:
    """An error that carries what to write instead; the loader shows both."""
    return PydanticCustomError(kind, "{text}", {"text": message, "instead": instead})


class _TextField(BaseModel):
    """A value that a spec writes as one string."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string"}


class PartitionFieldSpec(_TextField):
    """One partition field. `transform` as Iceberg writes it: `identity`, `day`, `bucket[16]`, `truncate[4]`, …"""

    column: str
    transform: str
    alias: str | None = None

    @property
    def name(self) -> str:
        """The partition field's name: the alias, else Iceberg's customary one (`timestamp_day`, `id_bucket_16`)."""
        if self.alias:
            return self.alias
        kind, size = split_transform(self.transform)
        if kind == "identity":
            return self.column
        short = {"truncate": "trunc", "void": "null"}.get(kind, kind)
        return f"{self.column}_{short}" + (f"_{size}" if size is not None else "")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            if isinstance(value, dict) and {"column", "transform"} <= set(value):
                return value
            raise refuse("partition", f"{value!r} is no partition field", "a string such as day(timestamp) or exchange")
        match = _PARTITION.fullmatch(value)
        if match is None:
            raise refuse(
                "partition",
                f"{value!r} is no partition field",
                "column, year|month|day|hour(column), bucket(16, column) or truncate(4, column)",
            )
        if match["bare"]:
            return {"column": unquote(match["bare"]), "transform": "identity", "alias": match["alias"]}
        kind, column, size = match["transform"].lower(), unquote(match["inner"]), match["size"]
        kind = kind.removesuffix("s") if kind.removesuffix("s") in TIME_TRANSFORMS else kind
        if kind in SIZED_TRANSFORMS:
            if size is None or int(size) < 1:
                raise refuse("partition", f"{kind} needs a number above 0", f"{kind}(16, {match['inner']})")
            if int(size) > 2**31 - 1:
                raise refuse(
                    "partition",
                    f"{size} is above the largest Iceberg {kind}, 2147483647",
                    f"{kind}(16, {match['inner']})",
                )
            return {"column": column, "transform": f"{kind}[{int(size)}]", "alias": match["alias"]}
        if kind in PLAIN_TRANSFORMS and size is None:
            return {"column": column, "transform": kind, "alias": match["alias"]}
        if kind in PLAIN_TRANSFORMS:
            raise refuse("partition", f"{kind} takes no number", f"{kind}({match['inner']})")
        known = ", ".join((*PLAIN_TRANSFORMS, *SIZED_TRANSFORMS))
        raise refuse("partition", f"Iceberg has no transform {match['transform']!r}", f"one of {known}")

    @model_serializer
    def _text(self) -> str:
        return str(self)

    def __str__(self) -> str:
        kind, size = split_transform(self.transform)
        name = quote_if_needed(self.column)
        inner = f"{size}, {name}" if size is not None else name
        text = name if kind == "identity" else f"{kind}({inner})"
        return f"{text} as {self.alias}" if self.alias else text


def split_transform(transform: str) -> tuple[str, int | None]:
    """`bucket[16]` → (`bucket`, 16); `day` → (`day`, None)."""
    kind, _, rest = transform.partition("[")
    return kind, int(rest[:-1]) if rest else None


class SortFieldSpec(_TextField):
    """One sort field. Without a word, nulls come first when ascending and last when descending, as in Iceberg."""

    column: str
    descending: bool = False
    nulls_last: bool = False

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            if isinstance(value, dict) and "column" in value:
                return value
            raise refuse("sort", f"{value!r} is no sort field", "a string such as timestamp or seq desc")
        match = _SORT.fullmatch(value)
        if match is None:
            raise refuse("sort", f"{value!r} is no sort field", "column, column desc, or column asc nulls last")
        descending = (match["way"] or "asc").lower() == "desc"
        nulls_last = match["nulls"].lower() == "last" if match["nulls"] else descending
        return {"column": unquote(match["name"]), "descending": descending, "nulls_last": nulls_last}

    @model_serializer
    def _text(self) -> str:
        return str(self)

    def __str__(self) -> str:
        text = quote_if_needed(self.column) + (" desc" if self.descending else "")
        if self.nulls_last != self.descending:
            text += " nulls last" if self.nulls_last else " nulls first"
        return text

    def with_column(self, column: str) -> Self:
        """The same order on another column."""
        return self.model_copy(update={"column": column})


_CRON_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def check_cron(text: str) -> str:
    """The cron expression with single spaces. Raises ValueError naming the bad field.

    Five fields, `*`, numbers, names, ranges, steps and lists: what every cron understands, and no `@hourly`.
    """
    fields = text.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(f"{text!r} has {len(fields)} fields, cron has five; write for example */15 * * * *")
    for field, (label, low, high, names) in zip(fields, _CRON_FIELDS, strict=True):
        for part in field.split(","):
            _check_cron_part(part.lower(), label, low, high, names)
    return " ".join(fields)


def _check_cron_part(part: str, label: str, low: int, high: int, names: tuple[str, ...]) -> None:
    body, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdigit() and 1 <= int(step) <= max(high, 1)):
        raise ValueError(f"{part!r} is no {label} of cron: a step is a number from 1 to {high}")
    if body == "*":
        return
    ends = []
    for end in body.split("-"):
        if end in names:
            ends.append(names.index(end) + (low if label == "month" else 0))
        elif end.isascii() and end.isdigit() and low <= int(end) <= high:
            ends.append(int(end))
        else:
            raise ValueError(f"{part!r} is no {label} of cron: write * or a number from {low} to {high}")
    if len(ends) > 2 or (len(ends) == 2 and ends[0] > ends[1]):
        raise ValueError(f"{part!r} is no {label} of cron: a range goes from low to high")
    if slash and len(ends) == 1:
        raise ValueError(f"{part!r} is no {label} of cron: a step needs a range or *, such as */{step}")
