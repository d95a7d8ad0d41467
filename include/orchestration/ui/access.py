"""Who may see which table, what Airflow knows of its DAG, and where the ledger is: asked inside the API server."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.batch_apis import IsAuthorizedDagRequest
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.errors import ParseImportError
from airflow.utils.session import create_session
from croniter import croniter  # type: ignore[import-untyped]
from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import Session

from include.offload.ledger.store import Ledger, Patience
from include.offload.overview import Dag, dag_id
from include.offload.redact import without_logins
from include.offload.windows import to_us
from include.orchestration.context import connection, ledger_uri
from include.orchestration.ui.permissions import Permissions, sifted

CONNECTION = "offload_ledger"
CONNECTION_KEPT_S = 60.0
"""How long a changed connection may go unnoticed."""


MISTAKE_SHOWN = 200
"""Characters of the mistake in a spec that the page shows."""
_FILE = re.compile(r"^(?:.*/)?(?P<database>[^/\s]+)/(?P<table>[^/.\s]+)(?:\.[^/.\s]+)?\.yaml$")


def readable_dags(user: BaseUser) -> dict[str, Dag]:
    """The offload DAGs whose runs this user may read, with those that nothing runs any more: nobody else says so."""
    with create_session() as session:
        found = _dags(session, user, DagModel.dag_id.startswith("offload__", autoescape=True))
        dags = frozenset(found)
        allowed = permissions.of(str(user.get_id()), dags, lambda: _runs_readable(session, user, dags))
    return {dag: known for dag, known in found.items() if dag in allowed}


permissions = Permissions()


def one_dag(user: BaseUser, dag: str) -> Dag | None:
    """What Airflow knows of one DAG, None when it knows none of this name. Whether the user may is checked before."""
    with create_session() as session:
        return _dags(session, user, DagModel.dag_id == dag).get(dag)


def _runs_readable(session: Session, user: BaseUser, dags: Iterable[str]) -> set[str]:
    """Those of the DAGs whose runs the user may read: what the page shows is what runs did."""
    teams = DagModel.get_dag_id_to_team_name_mapping(list(dags), session=session)
    asked: dict[str, IsAuthorizedDagRequest] = {
        dag: {
            "method": "GET",
            "access_entity": DagAccessEntity.RUN,
            "details": DagDetails(id=dag, team_name=teams.get(dag)),
        }
        for dag in dags
    }
    manager = get_auth_manager()
    return set(sifted(list(asked), lambda part: manager.batch_is_authorized_dag([asked[d] for d in part], user=user)))


def _dags(session: Session, user: BaseUser, which: ColumnElement[bool]) -> dict[str, Dag]:
    since = (
        select(DagVersion.dag_id, func.min(DagVersion.created_at).label("since"))
        .where(DagVersion.dag_id.startswith("offload__", autoescape=True))
        .group_by(DagVersion.dag_id)
        .subquery()
    )
    rows = session.execute(
        select(
            DagModel.dag_id,
            DagModel.is_paused,
            DagModel.is_stale,
            DagModel.has_import_errors,
            DagModel.timetable_summary,
            since.c.since,
        )
        .outerjoin(since, since.c.dag_id == DagModel.dag_id)
        .where(which)
    ).all()
    mistakes = _mistakes(session, user)
    return {str(r.dag_id): _dag(r, mistakes.get(str(r.dag_id))) for r in rows}


def _dag(row: Row[Any], mistake: str | None) -> Dag:
    # Airflow takes two minutes to see that a spec makes no DAG any more
    stopped = mistake
    if row.has_import_errors:
        stopped = "the file of its DAG can't be imported"
    elif row.is_stale and mistake is None:
        stopped = "its spec is broken, or was taken away"
    return Dag(
        paused=bool(row.is_paused),
        stopped=stopped,
        retired=bool(row.is_stale) and not row.has_import_errors and mistake is None,
        schedule=row.timetable_summary if _is_cron(row.timetable_summary or "") else None,
        since_us=None if row.since is None else to_us(row.since),
    )


@lru_cache(maxsize=1024)
def _is_cron(text: str) -> bool:
    """Remembered: asked of 1,000 tables with a handful of schedules at every look at the page."""
    return bool(croniter.is_valid(text))


def _mistakes(session: Session, user: BaseUser) -> dict[str, str]:
    """What is wrong with the specs of tables, by DAG; without the text for who may not read import errors."""
    errors = session.scalars(select(ParseImportError.stacktrace).where(ParseImportError.stacktrace.contains("OFL-101")))
    shown = get_auth_manager().is_authorized_view(access_view=AccessView.IMPORT_ERRORS, user=user)
    found: dict[str, str] = {}
    for text in errors:
        found |= spec_mistakes(text or "")
    return found if shown else dict.fromkeys(found, "its spec is broken")


def spec_mistakes(text: str) -> dict[str, str]:
    """The first mistake of each spec file, by DAG, out of the import error of `dags/spec_errors.py`."""
    found: dict[str, str] = {}
    of: str | None = None
    for line in text.splitlines():
        file = _FILE.match(line)
        if file:
            of = dag_id(f"{file['database']}.{file['table']}")
        elif of is not None and line.startswith("  line "):
            found.setdefault(of, f"its spec is broken, {without_logins(line.strip())[:MISTAKE_SHOWN]}")
        elif not line.strip():
            of = None
    return found


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
                # a page that waits keeps one of the API server's threads from everybody else
                self._ledger, self._uri = Ledger(uri, Patience()), uri
            self._checked = time.monotonic()
            return self._ledger


ledger_at_hand = LedgerAtHand()
