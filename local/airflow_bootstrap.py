"""Metadata migration, connections and pool in one process; reads what to make from standard input (JSON).

One import of Airflow instead of one for each of its commands, and no password on a command line.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Migrate, then make the connections and the pool, or make them again as they should be."""
    from airflow.models import Connection, Pool
    from airflow.utils.db import upgradedb
    from airflow.utils.session import create_session

    wanted: dict[str, Any] = json.load(sys.stdin)
    upgradedb()
    with create_session() as session:
        for fields in wanted["connections"]:
            known = session.query(Connection).filter(Connection.conn_id == fields["conn_id"]).one_or_none()
            if known is not None:
                session.delete(known)
                session.flush()
            session.add(Connection(**fields))
        pool = wanted["pool"]
        Pool.create_or_update_pool(pool["name"], pool["slots"], pool["description"], False, session=session)


if __name__ == "__main__":
    main()
