"""The values that walk between the rooms: source table, projection, extent, plan, slice, shipped file.

All frozen. Instants are integers in microseconds since the epoch, UTC; hashes are ClickHouse UInt64.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from include.offload.windows import Span

PartitionValue = int | str | bool | None
EXPIRED_LONG_AGO = 0
"""The expiry (µs) of a window that must never be replaced: its source rows are gone, or when they go can't be told."""


def earliest(*instants: int | None) -> int | None:
    """The smallest of the given instants, None (never) counting as the end of time."""
    return min((i for i in instants if i is not None), default=None)


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of the source as ClickHouse describes it. `position` starts at 1; `default`: SQL, empty for none."""

    name: str
    type: str
    position: int
    default_kind: str = ""
    ttl: str | None = None
    default: str = ""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """What ClickHouse says of a table. `identity`: the ZooKeeper path of a replicated table, else its UUID."""

    database: str
    table: str
    engine: str
    identity: str
    columns: tuple[SourceColumn, ...]
    sorting_key: tuple[str, ...]
    partition_key: str
    ttl: str | None
    """The table's TTL clause as ClickHouse prints it, None when it has none."""
    ttl_group_by: bool = False
    do_not_merge_across_partitions_select_final: bool = False


@dataclass(frozen=True, slots=True)
class ProjectedColumn:
    """One column of the lake. `expr`: the ClickHouse SQL that yields it, identifiers quoted.

    `iceberg_type`: as PyIceberg prints it, e.g. `decimal(18, 8)`, `timestamptz`, `list<string>`.
    """

    name: str
    source_type: str
    expr: str
    iceberg_type: str
    required: bool


@dataclass(frozen=True, slots=True)
class Projection:
    """The columns in lake order, and how ClickHouse hashes a row of them."""

    columns: tuple[ProjectedColumn, ...]
    fingerprint: str
    """Hex digest over names, expressions and types: hashes compare only under one fingerprint (rule 10)."""

    @property
    def hash_sql(self) -> str:
        """The UInt64 hash of one projected row. The tuple matters: a bare NULL would swallow the hash."""
        return f"cityHash64(tuple({', '.join(c.expr for c in self.columns)}))"


@dataclass(frozen=True, slots=True)
class PartitionColumn:
    """One field of the Iceberg partition spec and the ClickHouse SQL of its transform's result."""

    source: str
    transform: str
    name: str
    expr: str
    """Yields Int64, String, Bool or NULL: the value that Iceberg's metadata holds (day: days since 1970)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Rows of one window in one Iceberg partition, as counted and hashed by ClickHouse."""

    window: int
    partition: tuple[PartitionValue, ...]
    rows: int
    hash: int
    expiry_us: int | None = None
    """When ClickHouse may delete the first of these rows or zero one of their columns; None: never."""
    ttl_us: int | None = None
    """The shortest time from a row's cursor to its expiry; None: they never expire."""


@dataclass(frozen=True, slots=True)
class WindowState:
    """A window's content: rows and the sum (mod 2**64) of its row hashes, and its first expiry, µs UTC."""

    window: int
    rows: int
    hash: int
    expiry_us: int | None = None

    def __add__(self, other: WindowState) -> WindowState:
        if other.window != self.window:
            raise ValueError(f"windows {self.window} and {other.window} do not add up")
        return WindowState(
            self.window,
            self.rows + other.rows,
            (self.hash + other.hash) % 2**64,
            earliest(self.expiry_us, other.expiry_us),
        )


@dataclass(frozen=True, slots=True)
class Extent:
    """What ClickHouse holds in `spans`, seen at `now_us` (ClickHouse's clock) on the pinned replica."""

    now_us: int
    replica: str
    spans: tuple[Span, ...]
    cells: tuple[Cell, ...]
    max_sequence: int | None
    rows_total: int
    rows_before_start: int
    rows_in_future: int
    tail_expiry_us: int | None = None
    """The first expiry of a row that stays unshipped when this extent is shipped; None: none expires."""

    def windows(self) -> dict[int, WindowState]:
        """The cells summed per window."""
        out: dict[int, WindowState] = {}
        for c in self.cells:
            out[c.window] = out.get(c.window, WindowState(c.window, 0, 0)) + WindowState(
                c.window, c.rows, c.hash, c.expiry_us
            )
        return out


class Action(StrEnum):
    APPEND = "append"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """A window that a plan ships: what ClickHouse held when planned, and what the ledger held before.

    `expiry_us`: the earliest of the expiries of its rows now and of the rows shipped before, None: never.
    """

    window: int
    action: Action
    rows: int
    hash: int
    ledger_rows: int | None = None
    expiry_us: int | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """One query, one Parquet file: spans of cursor time inside one Iceberg partition."""

    number: int
    partition: tuple[PartitionValue, ...]
    spans: tuple[Span, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Target:
    """The Iceberg table as it was frozen into the plan; `uuid` None: it did not exist yet."""

    namespace: str
    table: str
    uuid: str | None
    schema_id: int | None
    partition_spec_id: int | None

    @property
    def identifier(self) -> tuple[str, str]:
        return (self.namespace, self.table)


class ChangeKind(StrEnum):
    """In what the Iceberg table differs from spec and source."""

    ADDED = "added"
    WIDENED = "widened"
    OPTIONAL = "may be NULL now"
    DROPPED = "dropped"
    RENAMED = "renamed"
    NARROWED = "narrowed"
    INCOMPATIBLE = "another type"
    PARTITION = "partition fields"
    SORT = "sort order"


class Verdict(StrEnum):
    """What happens with a difference."""

    ITSELF = "by itself"
    ACCEPT = "needs accept"
    CANNOT = "can not"


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One difference between the Iceberg table and what spec and source want.

    column: its name in Iceberg, or in the source when Iceberg lacks it. source: the ClickHouse type, None when the
    source lacks it. iceberg, wanted: Iceberg types now and after the change. new_name: of a renamed column.
    """

    kind: ChangeKind
    verdict: Verdict
    column: str
    source: str | None
    iceberg: str | None
    wanted: str | None
    what: str
    """What happens, or what to write, as a sentence without its full stop."""
    new_name: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.column}: {self.what}"


@dataclass(frozen=True, slots=True)
class Evolution:
    """Changes of the Iceberg schema that a plan's commit makes together with its data, and the schema they lead to."""

    changes: tuple[SchemaChange, ...]
    schema_json: str
    """Iceberg's JSON: the field ids are fixed when the plan is frozen, because files are written with them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The windows that one run will append or replace: immutable once the ledger holds it (rule 8)."""

    plan_id: uuid.UUID
    pipeline: uuid.UUID
    table: str
    """The identity `db.table` of the spec."""
    run_id: str
    generation: int
    predecessor: uuid.UUID | None
    source_identity: str
    replica: str
    """`host:port` that was looked at; the job reads from the same (rule 11)."""
    target: Target
    projection: Projection
    partition: tuple[PartitionColumn, ...]
    sort: tuple[str, ...]
    """ClickHouse `ORDER BY` items for each slice, empty for none."""
    cursor: str
    cursor_type: str
    width_us: int
    append: tuple[Span, ...]
    """Settled cursor time that the ledger does not know yet. Windows in it without rows were seen empty."""
    scan: Span
    """All that was looked at; clearing the run looks at it again."""
    windows: tuple[PlannedWindow, ...]
    slices: tuple[Slice, ...]
    origin_us: int | None
    """Where the table's accounting begins; the watermark counts gaplessly from here. None: no row was ever seen."""
    watermark_before: int | None
    watermark_after: int | None
    max_sequence: int | None
    spec_json: str
    """The validated spec, so that the job ships what was planned, not what the file says by now."""
    created_us: int
    evolution: Evolution | None = None
    """How the commit changes the Iceberg schema; None: it stays."""
    force: bool = False
    """Windows are replaced also where nothing changed, and whatever else the lake holds in them goes."""

    @property
    def touches_lake(self) -> bool:
        return bool(self.windows)

    @property
    def rows(self) -> int:
        return sum(w.rows for w in self.windows)


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """What one task did: a Parquet file in the store, and what it counted while writing it."""

    slice_number: int
    path: str
    bytes: int
    rows: int
    windows: tuple[WindowState, ...]
    seconds: float
    partition: tuple[PartitionValue, ...]
    statistics: dict[str, Any]
    """Keyword arguments of PyIceberg's DataFile: column sizes, counts and bounds by field id."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job reports, and what the ledger keeps of an attempt before it commits."""

    plan_id: uuid.UUID
    status: str
    """`committed`, `already-committed` or `nothing`."""
    snapshot_id: int | None
    rows: int
    files: int
    bytes: int
    windows: tuple[WindowState, ...]
    """What was shipped per window, as counted while it was written."""
    pending: tuple[int, ...]
    """Windows that changed while they were read: left for the next run."""
    watermark: int | None
    seconds: float
    """Of the copy: from the first read until the commit was answered; Spark's start is not part of it."""
    location: str | None = None
    """Where the table lies, of the job that made the commit; None of any other, and in the ledger."""
