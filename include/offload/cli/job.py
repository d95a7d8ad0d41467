"""One Spark job started from the command line: its arguments, its progress lines, its end.

The job's stdout is its contract: `OFFLOAD_PROGRESS {…}` while it works, then `OFFLOAD_RESULT {…}` or
`OFFLOAD_ERROR {…}`. Everything else on stdout and stderr is its log and is kept for the case of a failure.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from include.offload.errors import JOB_FAILED, SETTING_MISSING, OffloadError
from include.offload.jobwords import ERROR, PROGRESS, RESULT, Place, refusal
from include.offload.settings import ROOT, home

LOG_LINES = 25
STOP_TIMEOUT_S = 20
"""How long a job may take to end after SIGTERM before it is killed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `seconds`: since it began to read."""

    slices_done: int
    slices: int
    rows: int
    rows_planned: int
    bytes: int
    seconds: float


def command(plan_id: UUID, place: Place) -> list[str]:
    """The spark-submit call of a plan, whose slices `place` ships. It holds no secret: the job reads its settings.

    `OFFLOAD_SPARK_MASTER` names the master; without it Spark's own configuration decides.
    """
    master = os.environ.get("OFFLOAD_SPARK_MASTER")
    where = ["--master", master] if master else []
    job = ROOT / "spark_jobs" / "offload.py"
    what = ["--plan", str(plan_id), "--place", place]
    return ["spark-submit", *where, "--name", f"offload-{plan_id}", str(job), *what]


def environment() -> dict[str, str]:
    """The environment of the job: ours, plus where Spark, its Python and its Java are. Raises OFL-102.

    `SPARK_HOME` wins; without it the one-machine stack says where its own Spark is.
    """
    env = dict(os.environ)
    env["OFFLOAD_HOME"] = str(home())
    env["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), env.get("PYTHONPATH", "")) if p)
    if "SPARK_HOME" in env:
        env["PATH"] = os.pathsep.join((str(Path(env["SPARK_HOME"]) / "bin"), env.get("PATH", "")))
        return env
    try:
        spark = importlib.import_module("local.spark")
        paths = importlib.import_module("local.paths")
    except ModuleNotFoundError as error:
        raise OffloadError(SETTING_MISSING, "SPARK_HOME is not set, and there is no one-machine stack") from error
    try:
        spark.write_conf(paths.home().make())
        return env | dict(spark.spark_env())
    except (FileNotFoundError, RuntimeError) as error:
        raise OffloadError(SETTING_MISSING, str(error)) from error


def run_job(
    argv: list[str], env: Mapping[str, str], table: str, on_progress: Callable[[Progress], None]
) -> dict[str, Any]:
    """Runs the job to its end; its `OFFLOAD_RESULT`. Raises the job's own OFL error, or OFL-504 with its last lines.

    An interrupt stops the job and everything it started before it is passed on.
    """
    program = shutil.which(argv[0], path=env.get("PATH"))
    if program is None:
        raise OffloadError(SETTING_MISSING, f"there is no program {argv[0]}", table=table)
    log: deque[str] = deque(maxlen=LOG_LINES)
    result: dict[str, Any] | None = None
    failure: OffloadError | None = None
    with subprocess.Popen(
        [program, *argv[1:]],
        env=dict(env),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or ():
                if line.startswith(PROGRESS):
                    on_progress(_progress(json.loads(line.removeprefix(PROGRESS))))
                elif line.startswith(RESULT):
                    result = json.loads(line.removeprefix(RESULT))
                elif line.startswith(ERROR):
                    failure = refusal(json.loads(line.removeprefix(ERROR)), table)
                else:
                    log.append(line.rstrip())
            code = process.wait()
        except BaseException:
            _stop(process)
            raise
    if failure is not None:
        raise failure
    if code != 0 or result is None:
        tail = "\n".join(log)
        raise OffloadError(JOB_FAILED, f"it ended with code {code} and these lines:\n{tail}", table=table)
    return result


def _progress(said: Mapping[str, Any]) -> Progress:
    """The fields of a progress line that the bar shows; a job may say more."""
    return Progress(**{f.name: said[f.name] for f in dataclasses.fields(Progress)})


def _stop(process: subprocess.Popen[str]) -> None:
    """Ends the job's whole session: the JVM and its Python workers."""
    for wave in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, wave)
        except ProcessLookupError:
            return
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
        return
