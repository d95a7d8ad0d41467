"""The JSON Schema for editors and the reference page, both made from the models.

`python -m include.offload.spec.schema` writes them; a test fails when the committed files differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from include.offload.settings import ROOT
from include.offload.spec.model import TableSpec

SCHEMA_FILE = Path(__file__).with_name("schema.json")
DOC_FILE = ROOT / "docs" / "spec.md"


def schema() -> dict[str, Any]:
    """The schema of one YAML file. Nothing is required: any key may come from another layer."""
    out = TableSpec.model_json_schema(by_alias=True, mode="validation")
    out.pop("required", None)
    out["properties"].pop("identity")
    _strip(out)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Table spec of the offload",
        "description": "One ClickHouse table, one Iceberg table, one DAG. The file's path is its identity.",
        **{k: v for k, v in out.items() if k not in ("title", "description")},
    }


def _strip(node: Any) -> None:
    """Without generated titles, and without defaults, which pydantic gives in microseconds and bytes."""
    if isinstance(node, dict):
        node.pop("default", None)
        if isinstance(node.get("title"), str):
            node.pop("title")
        for value in node.values():
            _strip(value)
    elif isinstance(node, list):
        for value in node:
            _strip(value)


def schema_text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """`docs/spec.md`."""
    lines = [_HEAD, *_table(TableSpec, ()), _TAIL]
    return "\n".join(lines)


def _table(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    title = f"## `{'.'.join(path)}`" if path else "## Keys"
    doc = " ".join((model.__doc__ or "").split()) if path else ""
    rows = [title, "", *([doc, ""] if doc else []), "| key | default | meaning |", "| --- | --- | --- |"]
    nested: list[str] = []
    dump = _defaults(model)
    for name, info in model.model_fields.items():
        key = info.alias or name
        if key == "identity":
            continue
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows.append(
                f"| `{key}` | | {info.description}, see [`{'.'.join((*path, key))}`](#{''.join((*path, key))}) |"
            )
            nested += ["", *_table(kind, (*path, key))]
        else:
            rows.append(f"| `{key}` | {_default(info, dump.get(key))} | {_meaning(info)} |")
    return [*rows, *nested]


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults as a spec writes them."""
    values = {n: i.get_default(call_default_factory=True) for n, i in model.model_fields.items()}
    known = {n: v for n, v in values.items() if v is not PydanticUndefined}
    return model.model_construct(**known).model_dump(mode="json", by_alias=True, warnings=False)


def _default(info: FieldInfo, value: Any) -> str:
    if info.is_required():
        return "**needed**"
    if value in (None, "", [], {}):
        return ""
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def _meaning(info: FieldInfo) -> str:
    text = (info.description or "").replace("|", "\\|")
    if info.examples:
        example = info.examples[0]
        text += f". Example: `{json.dumps(example, ensure_ascii=False) if isinstance(example, list) else example}`"
    return text


def write() -> None:
    """Write both files."""
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    DOC_FILE.write_text(reference(), encoding="utf-8")


_HEAD = """\
# Table specs

<!-- Made by `python -m include.offload.spec.schema`; do not edit. -->

One YAML file is one ClickHouse table, one Iceberg table, one DAG: `dags/tables/<db>/<table>.yaml` becomes the DAG
`offload__<db>__<table>`. Only `cursor` has no default. `bin/offload spec new DB.TABLE` drafts a file from ClickHouse,
`bin/offload spec check` reads all files and lists every error with file, line and what to write instead.

```yaml
# yaml-language-server: $schema=../../../include/offload/spec/schema.json
cursor: timestamp
target:
  partition: ["day(timestamp)", exchange]
```

## Layers

Later ones win: `_defaults.yaml` and `_defaults.<env>.yaml` in `dags/tables/`, both in `dags/tables/<db>/`, the table's
file, `<table>.<env>.yaml`. `<env>` is `OFFLOAD_ENV`. Mappings merge key by key; lists and single values replace; `null`
takes away what an earlier layer set.

## Values

| kind | write | not |
| --- | --- | --- |
| duration | `5m`, `1h30m`, `500ms`, `7d`, `0` | `300`: a number needs a unit |
| size | `4GiB`, `512MiB`, `100MB`, bytes as a number | `1.5GiB` |
| count | `2000000`, `2_000_000`, `2M` | |
| instant | `2026-01-01T00:00:00Z`, `2026-01-01` (midnight, UTC) | `2026-01-01 00:00:00`: no time zone |
| column name | `price`, or `` `odd name` `` inside a partition or sort field | |

Plain words are text, except `true`, `false`, `null` and numbers; `no`, `on` and `5:30` are text. Keys stand once;
anchors, merge keys and tags are refused.
"""

_TAIL = """
## Rules across keys

- `window` divides a day or is a multiple of one, and is a multiple of `period`. Windows are counted from 1970 in UTC.
- `horizon` is at least one window. `start` lies on the edge of a window.
- `cursor`, `sequence` and the columns in `partition` and `sort` are among the offloaded columns.
- `include` and `exclude` are not given together. An `expr` needs a `type`. `expr` and `ttl` are one expression over the
  row's own columns that gives the same value every time: no `now()`, no aggregates, no subqueries, no comments.
- Two specs never write one Iceberg table. Names of the target are lower-case letters, digits and `_`.
- The `cursor` keeps its own value. Only a DateTime64 with more than 6 digits needs an override, since Iceberg holds
  microseconds: `expr: "toDateTime64(ts, 6, 'UTC')"`, `type: timestamptz`.

## Partition fields

| transform | Iceberg types | note |
| --- | --- | --- |
| `column` | all but `float`, `double`, `uuid` and nested ones | nobody reads partitions of single UUIDs |
| `year(c)`, `month(c)`, `day(c)` | `date`, `timestamp`, `timestamptz` | |
| `hour(c)` | `timestamp`, `timestamptz` | |
| `bucket(16, c)` | all but `boolean`, `float`, `double` and nested ones | |
| `truncate(4, c)` | `int`, `long`, `string`, `decimal` up to 18 digits | ClickHouse reads no wider decimals here |
| `void(c)` | optional columns | |

ClickHouse 26.9 prunes partitions of times before 1970 wrongly when it reads an Iceberg table with a filter on them; the
rows are there, and other readers find them.

## Types

[types.md](types.md) has every type with its edge values, as tested, and an override for each refusal.

| ClickHouse | Iceberg | note |
| --- | --- | --- |
| Int8, Int16, Int32, UInt8, UInt16 | `int` | |
| Int64, UInt32 | `long` | |
| UInt64 | `decimal(20, 0)` | `type: long` fails on a value that does not fit |
| Int128, UInt128, Int256, UInt256 | `string` | `type: decimal(38, 0)` fails on a value that does not fit |
| Float32, BFloat16; Float64 | `float`; `double` | |
| Decimal(P, S), P up to 38 | `decimal(P, S)` | more digits are refused: `type: string` |
| Bool | `boolean` | |
| String | `string` | must be UTF-8; `type: binary` keeps any bytes |
| FixedString(N) | `fixed[N]` | `type: string` for text padded with zero bytes |
| Enum8, Enum16 | `string` | the name |
| UUID | `uuid` | |
| IPv4, IPv6 | `string` | |
| Date, Date32 | `date` | |
| DateTime, DateTime64(0…6), any time zone | `timestamptz` | `type: timestamp` for one without time zone |
| DateTime64(7…9) | refused | the message gives two overrides: every digit as `long`, or cut at microseconds |
| Time; Time64 | `int` (seconds); refused | |
| Interval… | `long` | the count |
| Array(T) | `list<T>` | |
| Map(K, V) | `map<K, V>` | a key that stands twice is refused: Spark would read one value of it |
| Tuple, Nested | `struct<…>`, `list<struct<…>>` | unnamed elements become `_1`, `_2`, … |
| Point, Ring, LineString, Polygon, Multi… | `struct`, `list` of `struct` | as ClickHouse nests them |
| Nullable(T), LowCardinality(T), SimpleAggregateFunction(f, T) | as T | a column that is not Nullable is `required` |
| QBit(T, n) | `list<float>` or `list<double>` | the vector |
| AggregateFunction | refused | `expr: toString(finalizeAggregation(column))`, `type: string` |
| JSON, Variant, Dynamic, Geometry | refused | `type: string` for the text |
"""

if __name__ == "__main__":
    write()
