"""Who may see which table, and where the ledger is: both asked of Airflow, inside its API server."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import select

from include.offload.ledger.store import Ledger
from include.orchestration.context import connection, ledger_uri

CONNECTION = "offload_ledger"
CONNECTION_KEPT_S = 60.0
"""How long a changed connection may go unnoticed."""


def readable_dags(user: BaseUser) -> dict[str, bool]:
    """The offload DAGs that this user may read, and whether each is paused."""
    with create_session() as session:
        found = session.execute(
            select(DagModel.dag_id, DagModel.is_paused).where(
                DagModel.dag_id.startswith("offload__", autoescape=True), DagModel.is_stale.is_(False)
            )
        )
        all_of_them = {str(r.dag_id): bool(r.is_paused) for r in found}
        allowed = get_auth_manager().get_authorized_dag_ids(user=user, method="GET", session=session)
    return {dag: asleep for dag, asleep in all_of_them.items() if dag in allowed}


def is_paused(dag_id: str) -> bool | None:
    """Whether a DAG is paused, None when Airflow does not know it."""
    with create_session() as session:
        return session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id))


@dataclass
class LedgerAtHand:
    """The ledger of Airflow's connection `offload_ledger`, opened once and again when the connection changes."""

    _lock: Lock = field(default_factory=Lock)
    _ledger: Ledger | None = None
    _uri: str = ""
    _checked: float = 0.0

    def get(self) -> Ledger:
        """Raises OFL-102 when Airflow has no such connection."""
        with self._lock:
            if self._ledger is not None and time.monotonic() - self._checked < CONNECTION_KEPT_S:
                return self._ledger
            uri = ledger_uri(connection(CONNECTION))
            if self._ledger is None or uri != self._uri:
                if self._ledger is not None:
                    self._ledger.close()
                self._ledger, self._uri = Ledger(uri), uri
            self._checked = time.monotonic()
            return self._ledger


ledger_at_hand = LedgerAtHand()
