"""Which sessions of PostgreSQL hold the ledger up, and how they are ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from include.offload.ledger.store import Ledger

IDLE = "idle in transaction"
LEAST_S = 30
"""A transaction of ours is idle for a moment between two of its statements; one that is forgotten is idle for long."""

_BLOCKERS = text(
    "SELECT b.pid, b.usename AS user, b.application_name AS application, host(b.client_addr) AS address, b.state,"
    " b.xact_start AS since, extract(epoch FROM now() - b.state_change)::float AS for_s,"
    # its shape, not what stands in it: literals may be anybody's data
    r" left(regexp_replace(regexp_replace(b.query, '''[^'']*''', '?', 'g'), '\y\d+\y', '?', 'g'), 120) AS query,"
    " pg_has_role(current_user, b.usesysid, 'USAGE') AS ours,"
    " count(DISTINCT w.pid) AS waiting"
    " FROM pg_stat_activity w CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS by(pid)"
    " JOIN pg_stat_activity b ON b.pid = by.pid"
    " WHERE w.datname = current_database()"
    # who waits in a queue holds up those behind it: only its head is to blame
    " AND cardinality(pg_blocking_pids(b.pid)) = 0 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 ORDER BY b.xact_start"
)


@dataclass(frozen=True, slots=True)
class Session:
    """A session that others wait for. `since`: when its transaction began, UTC; `waiting`: how many wait for it.

    for_s: how long it has been in its state; query: its last one, with `?` for each literal. state, since, for_s and
    query are None for a session of another user; `ours`: whether the ledger's user may end it.
    """

    pid: int
    user: str | None
    application: str
    address: str | None
    state: str | None
    since: datetime | None
    for_s: float | None
    query: str | None
    ours: bool
    waiting: int

    @property
    def idle_s(self) -> float | None:
        """How long it has done nothing and kept its locks: somebody forgot to commit, or their program hangs."""
        return self.for_s if (self.state or "").startswith(IDLE) else None


def blockers(ledger: Ledger) -> tuple[Session, ...]:
    """The sessions that others in the ledger's database wait for, the oldest first. Raises OFL-501."""
    with ledger.begin() as c:
        return tuple(Session(**row) for row in c.execute(_BLOCKERS).mappings())


def end(ledger: Ledger, pid: int) -> bool:
    """End a session; what it had not committed is undone. False: it had gone already. Raises OFL-501."""
    with ledger.begin() as c:
        return bool(c.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid}).scalar_one())
