"""Whether a job could start: what is installed, and with `--deep` a real start of Spark with one Python worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from include.offload.errors import JOB_FAILED, SETTING_MISSING, OffloadError
from include.offload.health.lines import Line, State, good
from include.offload.jobwords import RESULT
from include.offload.settings import ROOT, Settings

JAVA_LIMIT_S = 5
START_LIMIT_S = 19.0
"""For the probe; what it started is ended then."""
SLOW_S = 12.0
LAST_LINES = 3
PROBE = ROOT / "spark_jobs" / "probe.py"


def installed(settings: Settings) -> list[Line]:
    """spark-submit and the Java that it would use. Raises OFL-102."""
    env = _environment()
    program = _spark_submit(env)
    java = str(Path(env["JAVA_HOME"]) / "bin" / "java") if env.get("JAVA_HOME") else "java"
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=JAVA_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise OffloadError(SETTING_MISSING, f"{java} -version: {type(error).__name__}") from error
    version = (said.stderr or said.stdout).splitlines()[0]
    return [good("Spark", f"{program}, {version}; --deep starts it")]


def starts(settings: Settings) -> list[Line]:
    """A Spark session with one worker of Python, started the way a job is. Raises OFL-102, OFL-504."""
    env = _environment()
    master = os.environ.get("OFFLOAD_SPARK_MASTER")
    argv = [_spark_submit(env), *(["--master", master] if master else []), str(PROBE)]
    began = time.monotonic()
    with subprocess.Popen(
        argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=START_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise OffloadError(JOB_FAILED, f"it had not started after {START_LIMIT_S:.0f} s: busy or hung") from error
        finally:
            # JVM and workers are one group
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    seconds = time.monotonic() - began
    lines = said.splitlines()
    result = next((line.removeprefix(RESULT) for line in lines if line.startswith(RESULT)), None)
    if result is None:
        tail = " | ".join(line.strip() for line in lines[-LAST_LINES:])
        raise OffloadError(JOB_FAILED, f"Spark ended with code {process.returncode}: {tail}")
    told = json.loads(result)
    text = f"version {told['version']}, master {told['master']}, started and ended in {seconds:.1f} s"
    if seconds > SLOW_S:
        return [Line("Spark start-up", State.WARN, f"{text}: slow", "bin/offload stack status")]
    return [good("Spark start-up", text)]


def _environment() -> dict[str, str]:
    from include.offload.cli.job import environment

    return environment()


def _spark_submit(env: dict[str, str]) -> str:
    program = shutil.which("spark-submit", path=env.get("PATH"))
    if program is None:
        raise OffloadError(SETTING_MISSING, "there is no program spark-submit; SPARK_HOME says where Spark is")
    return program
