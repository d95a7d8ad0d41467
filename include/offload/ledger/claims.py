"""Who backfills a table: one at a time, by a lock that PostgreSQL lets go when its holder dies.

The lock keeps two people from working against each other and no more. That no row is written twice is the chain's
doing (rule 1), so a lock that was lost on the way, with its session, fails nobody whose plan has landed.

It is held by an open transaction and not by the session: behind PgBouncer a session belongs to everybody.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from include.offload.errors import BACKFILL_RUNNING, LEDGER_UNREACHABLE, OffloadError
from include.offload.ledger.store import Ledger

log = logging.getLogger(__name__)

CLAIM_KEY = 0x0FF10AE
"""The first key of the advisory lock; the second is made of the table's name, for a table may not be known yet."""
NAME_BYTES = 63
"""PostgreSQL cuts `application_name` there."""
KEEPALIVE_S = 30
"""After so many seconds of silence PostgreSQL asks whether the holder's machine is still there."""

_TAKE = text("SELECT pg_try_advisory_xact_lock(:key, hashtext(:table))")
_SETTINGS = text(
    # it is idle for as long as the Spark job runs, and holds nothing but the lock
    "SELECT set_config('application_name', :name, true), set_config('idle_in_transaction_session_timeout', '0', true),"
    " set_config('statement_timeout', '0', true)"
)
_KEEPALIVES = text("SELECT set_config('tcp_keepalives_idle', :seconds, true)")
_HOLDER = text(
    "SELECT a.application_name AS name, host(a.client_addr) AS address, a.pid, a.xact_start AS since"
    " FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    # two keys: PostgreSQL shows the second, which may be negative, as an unsigned number
    " AND l.classid::bigint = :key AND l.objid::bigint = hashtext(:table)::bigint & 4294967295 AND l.objsubid = 2"
)


@dataclass
class Claim:
    """A table that this process backfills. `sure()` between two plans: it is still ours."""

    ledger: Ledger
    table: str
    _open: ExitStack = field(default_factory=ExitStack, repr=False)
    _session: Connection | None = field(default=None, repr=False)

    def sure(self) -> None:
        """Take the lock again when its session has died. Raises OFL-413 when somebody else has it by now, OFL-501."""
        if self._session is not None and self._alive(self._session):
            return
        self.release()
        self._take()

    def _alive(self, session: Connection) -> bool:
        try:
            session.execute(text("SELECT 1"))
        except DBAPIError as error:
            log.warning("%s: the session that held the lock of this backfill died: %s", self.table, error)
            return False
        return True

    def _take(self) -> None:
        with ExitStack() as opening:
            session = opening.enter_context(self.ledger.begin(self.table))
            key = {"key": CLAIM_KEY, "table": self.table}
            session.execute(_SETTINGS, {"name": _own_name()})
            session.execute(_KEEPALIVES, {"seconds": str(KEEPALIVE_S)})
            if not session.execute(_TAKE, key).scalar_one():
                raise OffloadError(BACKFILL_RUNNING, _holder(session, key), table=self.table)
            self._session = session
            self._open = opening.pop_all()

    def release(self) -> None:
        """Give the lock back. A session that has died gave it back already."""
        self._session = None
        try:
            self._open.close()
        except (OffloadError, PendingRollbackError) as error:
            if isinstance(error, OffloadError) and error.kind is not LEDGER_UNREACHABLE:
                raise
            log.warning("%s: the lock of this backfill had gone with its session: %s", self.table, error)


@contextmanager
def claimed(ledger: Ledger, table: str) -> Iterator[Claim]:
    """Of all processes with this ledger only one at a time is in here for a table; others are refused.

    Raises OFL-413, which names the one that is, and OFL-501.
    """
    claim = Claim(ledger, table)
    claim.sure()
    try:
        yield claim
    finally:
        claim.release()


def _own_name() -> str:
    name = f"offload backfill, process {os.getpid()} on {socket.gethostname()}"
    return name.encode()[:NAME_BYTES].decode(errors="ignore")


def _holder(session: Connection, key: dict[str, object]) -> str:
    found = session.execute(_HOLDER, key).mappings().one_or_none()
    if found is None:
        return "it ended just now"
    since = "" if found["since"] is None else f" since {found['since']:%Y-%m-%dT%H:%M:%S%z}"
    address = f" from {found['address']}" if found["address"] else ""
    return f"{found['name'] or 'somebody'}{address}{since}, session {found['pid']} of the ledger"
