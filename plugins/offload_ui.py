"""The Offload page in Airflow's navigation, a tab on each DAG, and links from tasks. All of it is in `include/`.

Every process of Airflow loads this file, tasks of other DAGs too: it imports next to nothing, and the application
only when somebody opens the page. It leaves neither a path nor a module of `include` behind: a task imports those of
its own bundle, which may be another version than the checkout that this file lies in.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

ROOT = Path(__file__).resolve().parents[1]


def _links() -> list[Any]:
    """The links, from the modules that are loaded already, else from this checkout without a trace."""
    known = set(sys.modules)
    sys.path.insert(0, str(ROOT))
    try:
        from include.orchestration.links import EventLogLink, RunbookLink, SnapshotLink

        return [SnapshotLink(), EventLogLink(), RunbookLink()]
    finally:
        sys.path.remove(str(ROOT))
        for name in set(sys.modules) - known:
            if name.partition(".")[0] == "include":
                del sys.modules[name]


PREFIX = "/offload"


async def offload(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application, imported at the first request: only the API server gets here, and it runs no bundle."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from include.orchestration.ui.app import app

    await app(scope, receive, send)


class OffloadPlugin(AirflowPlugin):
    """What Airflow shows of the offload."""

    name = "offload"
    fastapi_apps = [{"app": offload, "url_prefix": PREFIX, "name": "Offload"}]
    external_views = [
        {
            "name": "Offload",
            "href": f"{PREFIX}/",
            "destination": "nav",
            "url_route": "offload",
            "icon": f"{PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{PREFIX}/static/icon-dark.svg",
            "nav_top_level": True,
        },
        {
            "name": "Offload",
            "href": f"{PREFIX}/dags/{{DAG_ID}}",
            "destination": "dag",
            "url_route": "offload_table",
            "icon": f"{PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{PREFIX}/static/icon-dark.svg",
        },
    ]
    global_operator_extra_links = _links()
