"""One step of a run in a process of its own, so that it can be killed without killing the tests.

The processes are forked off a server that has imported the domain and done nothing else: a step costs no start-up, and
inherits no thread or connection.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import uuid
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

LIMIT_S = 120
OURS = ("OFFLOAD_", "PYICEBERG_")
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
    """`check IDENTITY RUN_ID`, `ship PLAN_ID`, `watermark IDENTITY PLAN_ID`, as three tasks would; `rebuild IDENTITY`,
    `adopt IDENTITY`, `retire IDENTITY`.

    `measure PLAN_ID FILE` ships too, and writes into FILE by how many bytes this process grew at its peak.
    """
    from include.offload.adoption import adopt
    from include.offload.recovery import rebuild
    from include.offload.retiring import retire
    from include.offload.settings import load
    from include.offload.spec.load import load_spec
    from include.offload.steps import RunRequest, check_extent, open_context, ship, update_watermark
    from tests.support.domain import inline

    # the server that this process is forked off was started by whichever test came first, with that test's settings
    for name in [n for n in os.environ if n.startswith(OURS)]:
        del os.environ[name]
    os.environ.update(environment)
    settings = load()
    ctx = open_context(settings)
    if step == "ship":
        ship(ctx, uuid.UUID(arguments[0]), inline)
        return
    if step == "measure":
        before = _memory("VmRSS")
        ship(ctx, uuid.UUID(arguments[0]), inline)
        Path(arguments[1]).write_text(json.dumps(_memory("VmHWM") - before))
        return
    spec = load_spec(arguments[0], settings.tables)
    if step == "check":
        check_extent(ctx, spec, RunRequest(arguments[1]))
    elif step == "rebuild":
        rebuild(ctx, spec)
    elif step == "adopt":
        adopt(ctx, spec, apply=True)
    elif step == "retire":
        retire(ctx, spec)
    else:
        update_watermark(ctx, spec, uuid.UUID(arguments[1]))


def _memory(name: str) -> int:
    """One of this process's memory figures, bytes: VmRSS is now, VmHWM the most it ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (x for x in lines if x.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def start_step(crash_dir: Path, *arguments: str, **more: str) -> BaseProcess:
    """Start a step with its crash points armed in `crash_dir`; `more` is added to its environment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    environment = {k: v for k, v in os.environ.items() if k.startswith(OURS)}
    process = context.Process(
        target=run, args=({**environment, "OFFLOAD_CRASH_DIR": str(crash_dir), **more}, *arguments)
    )
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """Wait for a step's end; the exit code, negative for a signal. Raises TimeoutError, and then it is dead."""
    process.join(LIMIT_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"a step took more than {LIMIT_S} s")
    sys.stderr.flush()
    return process.exitcode


def one_step(crash_dir: Path, *arguments: str, **more: str) -> int:
    """Run a step in a process of its own; the exit code, negative for a signal."""
    return ended(start_step(crash_dir, *arguments, **more))


def kill(process: BaseProcess) -> None:
    """SIGKILL, and wait until it is gone."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL
