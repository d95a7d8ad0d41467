"""TableSpec: everything that one YAML file says, with defaults, as one frozen value.

Durations end in `_us` (microseconds) or `_s` (seconds), sizes are bytes, instants microseconds since the epoch,
UTC. `model_dump_json()` gives the human forms back and `model_validate_json()` reads them again: a plan stores that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from include.offload.spec import human
from include.offload.spec.fields import PartitionFieldSpec, SortFieldSpec, check_cron

IDENTITY = re.compile(r"[A-Za-z][A-Za-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*")
SAMPLE_PATTERN = r"^(full|([1-9][0-9]?|100)%)$"
TARGET_NAME = r"^[a-z_][a-z0-9_]{0,126}$"


def _schema(pattern: str, **number: Any) -> WithJsonSchema:
    """The human form by its pattern, or a number of the given schema."""
    text: dict[str, Any] = {"type": "string", "pattern": pattern}
    return WithJsonSchema({"anyOf": [text, number]} if number else text)


_WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
_ZERO: dict[str, Any] = {"const": 0}


def _seconds(value: object) -> int:
    us = human.parse_duration(value)
    if us % human.SECOND_US:
        raise ValueError(f"{value!r} is no whole number of seconds; write for example 30s")
    return us // human.SECOND_US


DurationUs = Annotated[
    int,
    BeforeValidator(human.parse_duration),
    PlainSerializer(human.format_duration, return_type=str),
    _schema(human.DURATION_PATTERN, **_ZERO),
]
DurationS = Annotated[
    int,
    BeforeValidator(_seconds),
    PlainSerializer(lambda s: human.format_duration(s * human.SECOND_US), return_type=str),
    _schema(human.DURATION_PATTERN, **_ZERO),
]
Size = Annotated[
    int,
    BeforeValidator(human.parse_size),
    PlainSerializer(human.format_size, return_type=str),
    _schema(human.SIZE_PATTERN, **_WHOLE),
]
Count = Annotated[int, BeforeValidator(human.parse_count), _schema(human.COUNT_PATTERN, **_WHOLE)]
InstantUs = Annotated[
    int,
    BeforeValidator(human.parse_instant),
    PlainSerializer(human.format_instant, return_type=str),
    _schema(human.INSTANT_PATTERN),
]


def _property(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Property = Annotated[
    str,
    BeforeValidator(_property),
    WithJsonSchema({"type": ["string", "integer", "number", "boolean"]}),
]
ColumnName = Annotated[str, Field(min_length=1, max_length=255)]
TargetName = Annotated[str, Field(pattern=TARGET_NAME)]
ConnectionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


def _texts(data: Any) -> Iterator[str]:
    """Every string in a document, keys too."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _texts(value)


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", serialize_by_alias=True, validate_default=False, hide_input_in_errors=True
    )


class Limits(_Part):
    """What one query may take from ClickHouse."""

    threads: int = Field(2, ge=1, le=256, description="`max_threads` of each query")
    memory: Size = Field(4 * 2**30, ge=64 * 2**20, description="`max_memory_usage` of each query")
    timeout_s: DurationS = Field(1800, alias="timeout", ge=1, description="`max_execution_time` of each query")


class Source(_Part):
    """The ClickHouse table. Database and table default to the file's path."""

    database: str = Field("", min_length=1, max_length=255, description="ClickHouse database; default: the directory")
    table: str = Field("", min_length=1, max_length=255, description="ClickHouse table; default: the file name")
    final: bool = Field(False, description="read with FINAL: engines that merge rows, such as SummingMergeTree")
    limits: Limits = Field(Limits(), description="bounds of each query")


class Target(_Part):
    """The Iceberg table. Namespace and table default to the file's path."""

    namespace: TargetName = Field("", description="Iceberg namespace; default: the directory")
    table: TargetName = Field("", description="Iceberg table; default: the file name")
    partition: tuple[PartitionFieldSpec, ...] = Field(
        (),
        description="partition fields: `column`, `year|month|day|hour(column)`, `bucket(16, column)`, "
        "`truncate(4, column)`, `void(column)`, each with an optional `as name`",
        examples=[["day(timestamp)", "exchange"]],
    )
    sort: tuple[SortFieldSpec, ...] = Field(
        (),
        description="order of the rows in each file: `column [desc] [nulls first|last]`",
        examples=[["symbol", "timestamp desc"]],
    )
    properties: dict[str, Property] = Field(
        default_factory=dict, description="Iceberg table properties, set when the table is created"
    )


class ColumnOverride(_Part):
    """How one column is written when the type map is not what you want."""

    expr: str | None = Field(None, min_length=1, description="ClickHouse SQL over the source's columns; needs `type`")
    type: str | None = Field(
        None, min_length=1, description="Iceberg type, such as `binary`, `long`, `decimal(38, 0)`, `list<string>`"
    )


class Columns(_Part):
    """Which columns are offloaded: all by default."""

    include: tuple[ColumnName, ...] | None = Field(None, description="only these, in this order")
    exclude: tuple[ColumnName, ...] = Field((), description="all but these")
    overrides: dict[ColumnName, ColumnOverride] = Field(
        default_factory=dict, description="per column: an expression, an Iceberg type, or both"
    )


class SliceLimits(_Part):
    """Bounds of one slice: one query, one Parquet file."""

    rows: Count = Field(2_000_000, ge=1_000, le=1_000_000_000, description="most rows of a file")
    bytes: Size = Field(512 * 2**20, ge=2**20, description="most bytes of a file, estimated from the source's columns")
    concurrency: int = Field(2, ge=1, le=1024, description="queries that one job runs on ClickHouse at a time")


class PlanLimits(_Part):
    """Bounds of one plan: of a backlog a run ships so much, the next run goes on."""

    rows: Count = Field(200_000_000, ge=1, le=100_000_000_000, description="most rows of a run; at least one window")
    bytes: Size = Field(
        64 * 2**30, ge=2**20, description="most bytes of a run, uncompressed, estimated from the source's parts"
    )
    driver_rows: Count = Field(
        250_000,
        ge=0,
        le=100_000_000,
        description="most rows that Spark's driver ships itself, without the start of executors; 0: executors always",
    )


class Alerts(_Part):
    """Limits of this table's alerts. What is not given is in monitoring/values.yaml."""

    lag_s: DurationS | None = Field(
        None, alias="lag", ge=1, description="critical above this lag; the warning comes at two thirds of it"
    )
    cycle_s: DurationS | None = Field(
        None, alias="cycle", ge=1, description="critical above this mean duration of a run; the warning at half of it"
    )
    ttl_headroom_s: DurationS | None = Field(
        None,
        alias="ttl_headroom",
        ge=1,
        description="critical when an unshipped row expires within this; the warning at four times it",
    )


class Maintenance(_Part):
    """Care for the Iceberg table: a DAG of its own compacts files, rewrites manifests, expires snapshots."""

    enabled: bool = Field(True, description="`false`: this table has no maintenance DAG")
    schedule: Annotated[str, AfterValidator(check_cron)] = Field("17 3 * * *", description="cron, UTC")
    pool: str = Field(
        "offload_maintenance", pattern=r"^[A-Za-z0-9_.-]{1,250}$", description="Airflow pool of the maintenance jobs"
    )
    strategy: Literal["binpack", "sort"] = Field(
        "binpack", description="`binpack`: join small files; `sort`: and sort the rows again by `target.sort`"
    )
    file_size: Size = Field(
        256 * 2**20,
        ge=2**20,
        description="most bytes of a compacted file; it also never holds more rows or bytes than `slice` allows",
    )
    bytes_per_run: Size = Field(
        20 * 2**30, ge=2**20, description="most bytes that one run rewrites; the next run goes on with the rest"
    )
    snapshot_age_us: DurationUs = Field(
        5 * human.DAY_US, alias="snapshot_age", ge=human.HOUR_US, description="older snapshots expire"
    )
    snapshots: int = Field(20, ge=1, le=10_000, description="so many of the newest snapshots never expire")
    orphan_age_us: DurationUs | None = Field(
        3 * human.DAY_US,
        alias="orphan_age",
        ge=human.HOUR_US,
        description="files that no snapshot names are deleted at this age, and at no less than four times the longest "
        "job; `null`: never",
    )
    statistics: bool = Field(False, description="count the distinct values of the columns for query planners")


def _check_verify_schedule(text: str) -> str:
    return text if text == "off" else check_cron(text)


def _check_sample(value: object) -> object:
    """A share in whole percent, a number of windows, or `full`. Raises ValueError with what to write."""
    if value == "full" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    if isinstance(value, str) and re.fullmatch(SAMPLE_PATTERN, value):
        return value
    raise ValueError(f"{value!r} is no sample; write for example 25%, 500 (windows) or full")


class Verify(_Part):
    """A habit of comparing Iceberg with ClickHouse: a DAG of its own looks at a sample of the windows."""

    schedule: Annotated[str, AfterValidator(_check_verify_schedule)] = Field(
        "41 4 * * 0", description="cron, UTC; `off`: this table has no verify DAG"
    )
    sample: Annotated[
        str | int,
        BeforeValidator(_check_sample),
        WithJsonSchema({"anyOf": [{"type": "string", "pattern": SAMPLE_PATTERN}, {"type": "integer", "minimum": 1}]}),
    ] = Field(
        "25%",
        description="how much one verification compares: a share of the windows that have not expired, a number of "
        "windows, or `full`; those that waited longest come first, the newest is always among them",
    )
    pool: str = Field(
        "offload_verify", pattern=r"^[A-Za-z0-9_.-]{1,250}$", description="Airflow pool of the verifications"
    )

    @property
    def enabled(self) -> bool:
        return self.schedule != "off"


class Connections(_Part):
    """Airflow connection ids."""

    clickhouse: ConnectionId = Field("offload_clickhouse", description="type `clickhouse`")
    ledger: ConnectionId = Field("offload_ledger", description="type `postgres`")
    spark: ConnectionId = Field("offload_spark", description="type `spark`")


class TableSpec(_Part):
    """One table's spec. `identity` is `<db>.<table>` from the file's path and can't be written in the file."""

    identity: str = Field(description="from the path", pattern=f"^{IDENTITY.pattern}$")
    source: Source = Field(Source(), description="the ClickHouse table")
    target: Target = Field(Target(), description="the Iceberg table")
    cursor: ColumnName = Field(
        description="the time column that orders the rows: Date, DateTime or DateTime64, not Nullable"
    )
    sequence: ColumnName | None = Field(None, description="a number that grows with the rows; its maximum is recorded")
    window_us: DurationUs = Field(
        5 * human.MINUTE_US, alias="window", ge=human.SECOND_US, description="width of a window, the unit of accounting"
    )
    settle_us: DurationUs = Field(
        2 * human.MINUTE_US, alias="settle", ge=0, description="how long a window is over before it is offloaded"
    )
    period_us: DurationUs | None = Field(
        None,
        alias="period",
        ge=1,
        description="span of one row of an aggregate table; the window must be a multiple of it",
    )
    horizon_us: DurationUs = Field(
        24 * human.HOUR_US,
        alias="horizon",
        description="how far back windows are compared again for late or changed rows",
    )
    start_us: InstantUs | None = Field(None, alias="start", description="rows before this instant are never offloaded")
    columns: Columns = Field(Columns(), description="which columns, and how")
    slice: SliceLimits = Field(SliceLimits(), description="bounds of one file")
    plan: PlanLimits = Field(PlanLimits(), description="bounds of one run")
    deletes: Literal["keep", "follow"] = Field(
        "keep", description="`keep`: rows deleted in ClickHouse stay in Iceberg; `follow`: they are removed there too"
    )
    ttl: str | None = Field(
        None,
        min_length=1,
        description="when ClickHouse deletes a row, if its own TTL can't be read: a duration after the cursor or SQL",
        examples=["7d"],
    )
    ttl_guard: Literal["warn", "stop"] = Field(
        "warn",
        description="when unshipped rows are about to expire: `warn`: say so; `stop`: also stop the TTL merges of the "
        "table until they are shipped",
    )
    ttl_guard_headroom_us: DurationUs = Field(
        6 * human.HOUR_US,
        alias="ttl_guard_headroom",
        ge=human.MINUTE_US,
        description="how long before its expiry an unshipped row counts as about to expire; well below the TTL",
    )
    schedule: Annotated[str, AfterValidator(check_cron)] = Field(
        "*/15 * * * *", description="cron, UTC; with a longer one the lag limit grows, see [alerts.md](alerts.md)"
    )
    pool: str = Field(
        "offload_spark", pattern=r"^[A-Za-z0-9_.-]{1,250}$", description="Airflow pool of the Spark slots"
    )
    retries: int = Field(3, ge=0, le=20, description="tries after a failed one, with growing pauses")
    connections: Connections = Field(Connections(), description="Airflow connection ids")
    alerts: Alerts = Field(Alerts(), description="limits of this table's alerts")
    maintenance: Maintenance = Field(Maintenance(), description="care for the Iceberg table")
    verify: Verify = Field(Verify(), description="a habit of comparing")
    owner: str = Field("data-platform", min_length=1, max_length=100, description="who is asked about this table")
    tags: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field((), description="tags of the DAG")
    doc: str = Field("", description="Markdown; shown as the DAG's documentation")

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, data: Any) -> Any:
        """No text that UTF-8 or PostgreSQL can not hold: the plan stores the spec."""
        bad = next(
            (text for text in _texts(data) if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)), None
        )
        if bad is not None:
            raise PydanticCustomError("text", "{text}", {"text": f"{bad!r} holds a character that can't be stored"})
        return data

    @model_validator(mode="before")
    @classmethod
    def _names_from_identity(cls, data: Any) -> Any:
        """Fill in the names that default to the path; leave every malformed part to its own field's error."""
        if not isinstance(data, dict) or not isinstance(data.get("identity"), str):
            return data
        database, _, table = data["identity"].partition(".")
        out = dict(data)
        for part, names in (
            ("source", {"database": database, "table": table}),
            ("target", {"namespace": database, "table": table}),
        ):
            given = out.get(part, {})
            if isinstance(given, dict):
                out[part] = names | given
        return out

    @model_validator(mode="after")
    def _rules(self) -> TableSpec:
        from include.offload.spec.rules import problems

        found = problems(self)
        if found:
            text = "; ".join(p.message for p in found)
            raise PydanticCustomError("rules", "{text}", {"text": text, "problems": found})
        return self

    @property
    def database(self) -> str:
        """The directory of the spec's file."""
        return self.identity.partition(".")[0]

    @property
    def table_name(self) -> str:
        """The spec's file name without `.yaml`."""
        return self.identity.partition(".")[2]

    @property
    def dag_id(self) -> str:
        return f"offload__{self.database}__{self.table_name}"

    @property
    def maintenance_dag_id(self) -> str:
        return f"maintain__{self.database}__{self.table_name}"

    @property
    def verify_dag_id(self) -> str:
        return f"verify__{self.database}__{self.table_name}"
