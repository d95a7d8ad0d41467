"""An auth manager that looks at DAG ids, as a company's does: Airflow's simple one lets every user read every DAG."""

from __future__ import annotations

import os
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

from tests.support.api_server import DENIED, NOBODY


class DenyingAuthManager(SimpleAuthManager):
    """The simple auth manager, with some DAGs denied."""

    def is_authorized_dag(self, *, details: DagDetails | None = None, **rest: Any) -> bool:
        user: SimpleAuthManagerUser = rest["user"]
        named = details is not None and details.id is not None
        if details is not None and named and (user.username == NOBODY or details.id in os.environ[DENIED].split()):
            return False
        return super().is_authorized_dag(details=details, **{**rest, "user": user})
