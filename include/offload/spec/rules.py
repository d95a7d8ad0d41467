"""Rules across the fields of one spec. Each problem names the key it is shown at and the keys it depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.offload.spec import human
from include.offload.spec.fields import TIME_TRANSFORMS, quote_if_needed, split_transform

if TYPE_CHECKING:
    from include.offload.spec.model import ColumnOverride, TableSpec

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule. `key`: where to show it; `needs`: other keys that took part in the verdict."""

    key: Key
    message: str
    instead: str
    needs: tuple[Key, ...] = ()


def problems(spec: TableSpec) -> tuple[Problem, ...]:
    """Every broken rule of a spec whose single fields are valid."""
    return (*_times(spec), *_columns(spec), *_partition(spec), *_sort(spec), *_target(spec), *_ttl(spec), *_care(spec))


def _times(spec: TableSpec) -> Iterator[Problem]:
    window, show = spec.window_us, human.format_duration
    if human.DAY_US % window and window % human.DAY_US:
        below = (
            max(d for d in _day_divisors() if d < window)
            if window < human.DAY_US
            else window // human.DAY_US * human.DAY_US
        )
        yield Problem(
            ("window",),
            f"a window of {show(window)} neither divides a day nor is a multiple of one",
            f"window: {show(below)}",
        )
    if spec.horizon_us < window:
        yield Problem(
            ("horizon",),
            f"the horizon {show(spec.horizon_us)} is shorter than one window of {show(window)}",
            f"horizon: {show(max(window, human.DAY_US))} or more",
            (("window",),),
        )
    if spec.period_us is not None and window % spec.period_us:
        multiple = -(-window // spec.period_us) * spec.period_us
        yield Problem(
            ("window",),
            f"rows span {show(spec.period_us)} (period), and a window of {show(window)} is no multiple of that: "
            "it would be shipped half-built",
            f"window: {show(multiple)}",
            (("period",),),
        )
    if spec.start_us is not None and spec.start_us % window:
        aligned = spec.start_us - spec.start_us % window
        yield Problem(
            ("start",),
            f"start is inside a window of {show(window)}",
            f"start: {human.format_instant(aligned)} or {human.format_instant(aligned + window)}",
            (("window",),),
        )


def _day_divisors() -> Iterator[int]:
    for unit, count in ((human.SECOND_US, 60), (human.MINUTE_US, 60), (human.HOUR_US, 24)):
        yield from (n * unit for n in range(1, count) if human.DAY_US % (n * unit) == 0)


def _columns(spec: TableSpec) -> Iterator[Problem]:
    columns = spec.columns
    if columns.include is not None and columns.exclude:
        yield Problem(
            ("columns", "exclude"),
            "include and exclude are both given",
            "one of them: include names all columns, exclude takes some away",
            (("columns", "include"),),
        )
    if columns.include is not None and not columns.include:
        yield Problem(("columns", "include"), "no column is included", "names, or leave include out for all columns")
    for key, names in (("include", columns.include or ()), ("exclude", columns.exclude)):
        for i, name in enumerate(names):
            if name in names[:i]:
                yield Problem(("columns", key, i), f"{name} stands twice", "each name once")
    for name, override in columns.overrides.items():
        at: Key = ("columns", "overrides", name)
        if not offloaded(spec, name):
            yield Problem(
                at,
                f"{name} has an override but is not offloaded",
                f"the column in include, or no override for {name}",
                (("columns", "include"), ("columns", "exclude")),
            )
        if override.expr is None and override.type is None:
            yield Problem(at, "the override is empty", "type: or expr: and type:")
        elif override.type is None:
            yield Problem(
                (*at, "expr"), "an expr needs the Iceberg type of its result", "type: string (or what the expr gives)"
            )
        if override.type is not None:
            yield from _override_type((*at, "type"), override.type)
        if override.expr is not None:
            yield from _override_expr((*at, "expr"), override.expr)
    for key, column in (("cursor", spec.cursor), ("sequence", spec.sequence)):
        if column is not None and not offloaded(spec, column):
            yield Problem(
                (key,),
                f"the {key} {column} is not among the offloaded columns",
                f"{column} in columns.include" if columns.include is not None else f"columns.exclude without {column}",
                (("columns",),),
            )
    if spec.cursor in columns.overrides and not _cuts_at_microseconds(spec.cursor, columns.overrides[spec.cursor]):
        yield Problem(
            ("columns", "overrides", spec.cursor),
            "the cursor is offloaded by its own value",
            f"no override for {spec.cursor}, or, for a DateTime64 with more than 6 digits, "
            f"expr: \"toDateTime64({quote_if_needed(spec.cursor)}, 6, 'UTC')\" and type: timestamptz",
            (("cursor",),),
        )


def _cuts_at_microseconds(cursor: str, override: ColumnOverride) -> bool:
    """The one override a cursor may have: windows are counted in microseconds, so no row changes its window by it."""
    names = {cursor, quote_if_needed(cursor), f"`{cursor}`"}
    wanted = {_squeezed(f"toDateTime64({name}, 6, 'UTC')") for name in names}
    return override.type == "timestamptz" and _squeezed(override.expr or "") in wanted


def _squeezed(sql: str) -> str:
    return "".join(sql.split())


def _override_type(key: Key, text: str) -> Iterator[Problem]:
    from include.offload.source.icetypes import parse

    try:
        parse(text)
    except ValueError as error:
        yield Problem(
            key, str(error), "an Iceberg type: string, binary, long, decimal(38, 0), timestamptz, list<string>, …"
        )


def _override_expr(key: Key, text: str) -> Iterator[Problem]:
    from include.offload.source.expressions import check_expression

    try:
        check_expression(text)
    except ValueError as error:
        yield Problem(key, str(error), "one ClickHouse expression over the row's own columns")


def offloaded(spec: TableSpec, name: str) -> bool:
    """Whether the spec, by its include and exclude lists, offloads the column `name`."""
    if spec.columns.include is not None:
        return name in spec.columns.include
    return name not in spec.columns.exclude


def _partition(spec: TableSpec) -> Iterator[Problem]:
    names: set[str] = set()
    times: dict[str, str] = {}
    for i, field in enumerate(spec.target.partition):
        at: Key = ("target", "partition", i)
        if not offloaded(spec, field.column):
            yield Problem(
                at, f"{field.column} is not among the offloaded columns", "an offloaded column", (("columns",),)
            )
        if field.name in names:
            yield Problem(at, f"two partition fields are named {field.name}", f"{field} as another_name")
        names.add(field.name)
        kind, _ = split_transform(field.transform)
        if kind in TIME_TRANSFORMS:
            if field.column in times:
                yield Problem(
                    at,
                    f"{kind}({field.column}) beside {times[field.column]}({field.column}) is redundant",
                    "the finer of the two alone",
                )
            times.setdefault(field.column, kind)


def _sort(spec: TableSpec) -> Iterator[Problem]:
    seen: set[str] = set()
    for i, field in enumerate(spec.target.sort):
        at: Key = ("target", "sort", i)
        if not offloaded(spec, field.column):
            yield Problem(
                at, f"{field.column} is not among the offloaded columns", "an offloaded column", (("columns",),)
            )
        if field.column in seen:
            yield Problem(at, f"{quote_if_needed(field.column)} stands twice", "each column once")
        seen.add(field.column)


def _target(spec: TableSpec) -> Iterator[Problem]:
    for name, value in spec.target.properties.items():
        at: Key = ("target", "properties", name)
        if name.startswith("offload."):
            yield Problem(at, "properties under offload. belong to the commit marker", "another name")
        if name == "format-version" and value != "2":
            yield Problem(at, f"Iceberg format version {value} is not supported", "format-version: 2")
        if name == "write.format.default" and value != "parquet":
            yield Problem(at, f"files are Parquet, not {value}", "write.format.default: parquet, or nothing")


def _ttl(spec: TableSpec) -> Iterator[Problem]:
    if spec.ttl is None:
        return
    try:
        human.parse_duration(spec.ttl)
    except ValueError:
        from include.offload.source.expressions import check_expression

        try:
            check_expression(spec.ttl)
        except ValueError as error:
            yield Problem(
                ("ttl",),
                str(error),
                "a duration after the cursor, such as 7d, or a ClickHouse expression giving a time",
            )


def _care(spec: TableSpec) -> Iterator[Problem]:
    if spec.maintenance.strategy == "sort" and not spec.target.sort:
        yield Problem(
            ("maintenance", "strategy"),
            "sorting files again needs an order, and target.sort gives none",
            "strategy: binpack, or a target.sort",
            (("target", "sort"),),
        )
