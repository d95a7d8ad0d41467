"""Which data blocks a table still holds: how a dropped partition is told from rows that somebody deleted (rule 18).

Merges and mutations carry the numbers of the blocks that a part was made of; DROP PARTITION, TRUNCATE, DETACH and a
part that expired as a whole take them away. So a block that was seen and is in no part any more is rows that nobody
deleted one by one.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from include.offload.model import SourceTable
from include.offload.source.client import Client
from include.offload.source.ttl import reaching
from include.offload.spec.model import TableSpec

_DELETE = re.compile(r"\(?(?:DELETE|UPDATE _row_exists = 0) WHERE (?P<where>.+?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """The block numbers `lo` to `hi` of one part. `expired_us`: when its last row expires, µs UTC; None: never."""

    partition: str
    lo: int
    hi: int
    expired_us: int | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What `system.parts` says of a table. `bytes`: uncompressed."""

    rows: int
    bytes: int
    blocks: tuple[Block, ...]

    @property
    def bytes_per_row(self) -> float:
        """Uncompressed bytes of a row, 0 when there is none."""
        return self.bytes / self.rows if self.rows else 0.0


def read_parts(client: Client, database: str, table: str) -> Parts:
    """The active parts with rows; a part that a delete emptied is about to go, so it counts as gone."""
    found = client.query(
        "SELECT partition_id, min_block_number, max_block_number, toUnixTimestamp(delete_ttl_info_max), rows,"
        " data_uncompressed_bytes FROM system.parts"
        " WHERE active AND rows > 0 AND NOT startsWith(partition_id, 'patch-')"
        " AND database = {db:String} AND table = {table:String}",
        {"db": database, "table": table},
    )
    blocks = tuple(
        Block(str(p), int(lo), int(hi), int(expired) * 1_000_000 or None) for p, lo, hi, expired, _, _ in found
    )
    return Parts(sum(int(r[4]) for r in found), sum(int(r[5]) for r in found), blocks)


def bytes_per_row(client: Client, database: str, table: str) -> float:
    """Uncompressed bytes of a row of the active parts, 0 when there is none: a bound needs no more than a mean."""
    ((rows, size),) = client.query(
        "SELECT sum(rows), sum(data_uncompressed_bytes) FROM system.parts"
        " WHERE active AND NOT startsWith(partition_id, 'patch-')"
        " AND database = {db:String} AND table = {table:String}",
        {"db": database, "table": table},
    )
    return int(size) / int(rows) if int(rows) else 0.0


def lost(before: Iterable[Block], now: Sequence[Block], now_us: int) -> tuple[Block, ...]:
    """The blocks of `before` that no part of `now` covers, but for those of which every row had expired."""
    parts: dict[str, list[Block]] = defaultdict(list)
    for block in sorted(now, key=lambda b: b.lo):
        parts[block.partition].append(block)
    starts = {name: [b.lo for b in blocks] for name, blocks in parts.items()}

    def covered(block: Block) -> bool:
        # parts of one partition never overlap: only the last that begins at or before it can hold it
        at = bisect_right(starts.get(block.partition, []), block.lo) - 1
        return at >= 0 and block.hi <= parts[block.partition][at].hi

    return tuple(b for b in before if not covered(b) and not (b.expired_us is not None and b.expired_us <= now_us))


def deletes_since(client: Client, database: str, table: str, since_us: int) -> tuple[str, ...]:
    """The conditions of the deletes that were ordered at or after `since_us`, as ClickHouse prints them."""
    found = client.query(
        "SELECT command FROM system.mutations WHERE database = {db:String} AND table = {table:String}"
        " AND create_time >= toDateTime({since:UInt32}) AND NOT is_killed",
        {"db": database, "table": table, "since": max(0, since_us // 1_000_000 - 1)},
    )
    return tuple(c for (text,) in found if (c := condition(str(text))) is not None)


def condition(command: str) -> str | None:
    """What a mutation deletes, None when it deletes nothing or only in one partition."""
    match = _DELETE.fullmatch(command[:-1] if command.startswith("(") and command.endswith(")") else command)
    return match["where"] if match else None


def ttl_text(source: SourceTable, spec: TableSpec) -> str:
    """All TTLs that can touch an offloaded row, as text: another text means that expiries must be asked again."""
    columns = [f"{c.name}: {c.ttl}" for c in reaching(source, spec) if c.ttl is not None]
    # other words than before conditions counted as true: what was shipped then is asked again, once
    rows = "table, whatever its conditions" if "WHERE" in (source.ttl or "").upper() else "table"
    return "\n".join([f"{rows}: {source.ttl}", *columns, f"spec: {spec.ttl}"])


def materialized_us(client: Client, database: str, table: str) -> int:
    """When a TTL was last applied to old rows (`MATERIALIZE TTL`, which MODIFY TTL does by itself); 0: not known."""
    ((at,),) = client.query(
        "SELECT toUnixTimestamp(max(create_time)) FROM system.mutations WHERE database = {db:String}"
        " AND table = {table:String} AND command LIKE '%MATERIALIZE TTL%'",
        {"db": database, "table": table},
    )
    return int(at) * 1_000_000
