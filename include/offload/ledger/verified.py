"""What verify saw of each window, and when: what the page shows, and what a sample chooses its windows by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from include.offload.ledger.store import Ledger

KEPT = 100
"""So many of the newest verifications of a table stay."""

_WINDOW = text(
    "INSERT INTO offload.verified (table_id, lo, source_rows, lake_rows, equal, verified_at)"
    " SELECT :id, lo, source_rows, lake_rows, equal, :began FROM unnest(CAST(:lo AS bigint[]),"
    " CAST(:source_rows AS bigint[]), CAST(:lake_rows AS bigint[]), CAST(:equal AS boolean[]))"
    " AS seen (lo, source_rows, lake_rows, equal) ORDER BY lo"
    " ON CONFLICT (table_id, lo) DO UPDATE SET source_rows = excluded.source_rows, lake_rows = excluded.lake_rows,"
    " equal = excluded.equal, verified_at = excluded.verified_at WHERE verified.verified_at <= excluded.verified_at"
)
_RUN = text(
    "INSERT INTO offload.verifications (table_id, began_at, windows, differing, equal, snapshot_id)"
    " VALUES (:id, :began, :windows, :differing, :equal, :snapshot)"
)
_PRUNE = text(
    "DELETE FROM offload.verifications WHERE table_id = :id AND verification_id NOT IN (SELECT verification_id"
    " FROM offload.verifications WHERE table_id = :id ORDER BY began_at DESC, verification_id DESC LIMIT :kept)"
)
_CANDIDATES = text(
    # what was shipped again since is as good as never seen
    "SELECT lower(w.span) AS lo, w.expiry_us, v.verified_at, v.equal FROM offload.windows w"
    " LEFT JOIN offload.verified v ON v.table_id = w.table_id AND v.lo = lower(w.span)"
    " AND v.verified_at >= w.recorded_at"
    " WHERE w.table_id = :id AND w.fingerprint IS NOT NULL ORDER BY lower(w.span)"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One window as verify compared it. lo: where it begins, µs UTC; rows as ClickHouse counts both sides."""

    lo: int
    source_rows: int
    lake_rows: int
    equal: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shipped window that may be verified. expiry_us: when its first row expires, None: never.

    verified_at, equal: its last comparison since it was shipped, None when there was none.
    """

    lo: int
    expiry_us: int | None
    verified_at: datetime | None
    equal: bool | None


@dataclass(frozen=True, slots=True)
class Verification:
    """One verification. equal: nothing at all differed; differing: windows that did."""

    began_at: datetime
    windows: int
    differing: int
    equal: bool
    snapshot_id: int | None


def now(ledger: Ledger) -> datetime:
    """The ledger's clock, by which it dates what is shipped."""
    with ledger.begin() as c:
        moment: datetime = c.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment


def record(ledger: Ledger, table_id: int, run: Verification, windows: Iterable[Seen]) -> None:
    """Keep what a verification saw of each window; an older one that ends later takes nothing back."""
    seen = list(windows)
    with ledger.begin() as c:
        c.execute(
            _WINDOW,
            {
                "id": table_id,
                "began": run.began_at,
                "lo": [w.lo for w in seen],
                "source_rows": [w.source_rows for w in seen],
                "lake_rows": [w.lake_rows for w in seen],
                "equal": [w.equal for w in seen],
            },
        )
        c.execute(
            _RUN,
            {
                "id": table_id,
                "began": run.began_at,
                "windows": run.windows,
                "differing": run.differing,
                "equal": run.equal,
                "snapshot": run.snapshot_id,
            },
        )
        c.execute(_PRUNE, {"id": table_id, "kept": KEPT})


def candidates(ledger: Ledger, table_id: int) -> list[Candidate]:
    """All shipped windows in the order of time, each with its last verification."""
    with ledger.begin() as c:
        return [Candidate(**row) for row in c.execute(_CANDIDATES, {"id": table_id}).mappings()]


def verifications(ledger: Ledger, table_id: int) -> list[Verification]:
    """The last verifications, newest first."""
    with ledger.begin() as c:
        rows = c.execute(
            text(
                "SELECT began_at, windows, differing, equal, snapshot_id FROM offload.verifications"
                " WHERE table_id = :id ORDER BY began_at DESC, verification_id DESC"
            ),
            {"id": table_id},
        )
        return [Verification(**row) for row in rows.mappings()]
