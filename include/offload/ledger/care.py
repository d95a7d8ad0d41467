"""What maintenance asks of the ledger. An offload never waits for any of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from include.offload.errors import MAINTENANCE_RUNNING, OffloadError
from include.offload.ledger.store import Ledger

CARE_KEY = 0x0FF10AE
"""The first key of the advisory lock; the second is a hash of the table's name, as the ledger may not know it yet."""


@contextmanager
def alone(ledger: Ledger, table: str) -> Iterator[None]:
    """Of all maintenance runs with this ledger only one at a time is in here for a table. Raises OFL-603 for another.

    The lock goes with its connection: a process that dies holds nobody up.
    """
    with ledger.begin(table) as c:
        free = c.execute(
            text("SELECT pg_try_advisory_xact_lock(:key, hashtext(:identity))"), {"key": CARE_KEY, "identity": table}
        ).scalar_one()
        if not free:
            raise OffloadError(MAINTENANCE_RUNNING, "it holds the ledger's lock", table=table)
        yield


def offload_runs(ledger: Ledger, table: str, longest_s: int) -> bool:
    """Whether an offload of the table may be at work: a plan that moves rows is open, and no job runs as long as it."""
    with ledger.begin(table) as c:
        found = c.execute(
            text(
                "SELECT EXISTS (SELECT FROM offload.plans JOIN offload.tables USING (table_id)"
                " WHERE identity = :identity AND status = 'open' AND windows > 0"
                " AND plans.created_at > now() - make_interval(secs => :longest))"
            ),
            {"identity": table, "longest": longest_s},
        ).scalar_one()
    return bool(found)
