"""An auth manager that looks at DAG ids, as a company's does: Airflow's simple one lets every user read every DAG."""

from __future__ import annotations

import os
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

from tests.support.api_server import DENIED, DENIED_RUNS, NO_ERRORS, NOBODY


class DenyingAuthManager(SimpleAuthManager):
    """The simple auth manager, with some DAGs denied, the runs of others, and import errors to one user."""

    def is_authorized_dag(self, *, details: DagDetails | None = None, **rest: Any) -> bool:
        user: SimpleAuthManagerUser = rest["user"]
        named = details is not None and details.id is not None
        if details is not None and named and (user.username == NOBODY or details.id in os.environ[DENIED].split()):
            return False
        of_runs = rest.get("access_entity") is DagAccessEntity.RUN
        if details is not None and of_runs and details.id in os.environ[DENIED_RUNS].split():
            return False
        return super().is_authorized_dag(details=details, **{**rest, "user": user})

    def is_authorized_view(self, *, access_view: AccessView, user: SimpleAuthManagerUser) -> bool:
        if access_view is AccessView.IMPORT_ERRORS and user.username == NO_ERRORS:
            return False
        return super().is_authorized_view(access_view=access_view, user=user)
