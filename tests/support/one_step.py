"""One step of a run in a process of its own, so that a crash point can kill it without killing the tests.

The processes are forked off a server that has imported the domain and done nothing else: a step costs no start-up, and
inherits no thread or connection.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

LIMIT_S = 120
PRELOAD = [
    "include.offload.steps",
    "tests.support.domain",
    # what the domain imports when it is first needed
    "include.offload.lake.commit",
    "include.offload.spec.load",
    "pyiceberg.catalog.rest",
    "pyiceberg.io.pyarrow",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlglot.dialects.clickhouse",
]


def run(environment: Mapping[str, str], step: str, *arguments: str) -> None:
    """`check IDENTITY RUN_ID`, `ship PLAN_ID` or `watermark IDENTITY PLAN_ID`, as three tasks would."""
    from include.offload.settings import load
    from include.offload.spec.load import load_spec
    from include.offload.steps import RunRequest, check_extent, open_context, ship, update_watermark
    from tests.support.domain import inline

    os.environ.update(environment)
    settings = load()
    ctx = open_context(settings)
    if step == "ship":
        ship(ctx, uuid.UUID(arguments[0]), inline)
        return
    spec = load_spec(arguments[0], settings.tables)
    if step == "check":
        check_extent(ctx, spec, RunRequest(arguments[1]))
    else:
        update_watermark(ctx, spec, uuid.UUID(arguments[1]))


def one_step(crash_dir: Path, *arguments: str) -> int:
    """Run a step with its crash points armed in `crash_dir`; the exit code, negative for a signal."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    environment = {k: v for k, v in os.environ.items() if k.startswith(("OFFLOAD_", "PYICEBERG_"))}
    process = context.Process(target=run, args=({**environment, "OFFLOAD_CRASH_DIR": str(crash_dir)}, *arguments))
    process.start()
    process.join(LIMIT_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{arguments} took more than {LIMIT_S} s")
    sys.stderr.flush()
    return process.exitcode
