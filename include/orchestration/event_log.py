"""Spark's event log of a job: one file in a directory that Airflow's workers and its API server share.

`OFFLOAD_SPARK_EVENTS` names the directory; without it no job writes one. Spark itself takes secrets out of it, and a
test searches it for those of the stack.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

FOLDER = "OFFLOAD_SPARK_EVENTS"
KEPT_S = 86_400
"""How long a log is kept, seconds: what looks back further is for a history server and a store of its own."""
_APPLICATION = re.compile(r"[A-Za-z0-9_-]+")


def folder() -> Path | None:
    """Where the logs are; None: jobs write none."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else None


def conf() -> dict[str, str]:
    """Spark's settings for a job that writes its log as one plain file; makes the directory, and room in it."""
    where = folder()
    if where is None:
        return {}
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in where.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > KEPT_S:
                old.unlink()
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": where.absolute().as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }


def log_of(application: str) -> Path | None:
    """The log of a Spark application, also while it runs or after it was killed; None: there is none, or no more."""
    where = folder()
    if where is None or not _APPLICATION.fullmatch(application):
        return None
    found = (where / name for name in (application, f"{application}.inprogress"))
    return next((path for path in found if path.is_file()), None)
