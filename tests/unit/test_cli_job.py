"""Starting a job and reading its lines: the contract of its stdout, its failures, its end on an interrupt."""

import os
import sys
import threading
from pathlib import Path

import psutil
import pytest

from include.offload.cli import job
from include.offload.errors import JOB_FAILED, OffloadError
from include.offload.jobwords import Place

PROGRESS = 'OFFLOAD_PROGRESS {"slices_done": 1, "slices": 2, "rows": 5, "rows_planned": 9, "bytes": 77, "seconds": 0.5}'


def script(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(("import sys, time, os", *lines))]


def run(argv: list[str], seen: list[job.Progress] | None = None) -> dict[str, object]:
    return job.run_job(argv, dict(os.environ), "k2.a", (seen if seen is not None else []).append)


def test_progress_and_result_are_read_and_the_log_is_not() -> None:
    seen: list[job.Progress] = []
    result = run(
        script("print('WARN something')", f"print({PROGRESS!r})", "print('OFFLOAD_RESULT {\"rows\": 9}')"), seen
    )
    assert result == {"rows": 9}
    assert seen == [job.Progress(1, 2, 5, 9, 77, 0.5)]


def test_the_jobs_own_error_is_raised_with_its_id() -> None:
    with pytest.raises(OffloadError) as raised:
        run(script("""print('OFFLOAD_ERROR {"id": "OFL-403", "message": "8 rows, not 9"}')""", "sys.exit(1)"))
    assert raised.value.id == "OFL-403"
    assert raised.value.cause == "8 rows, not 9"
    assert raised.value.table == "k2.a"


def test_a_job_that_dies_shows_its_last_lines() -> None:
    with pytest.raises(OffloadError) as raised:
        run(script("print('first')", "print('java.lang.OutOfMemoryError', file=sys.stderr)", "sys.exit(3)"))
    assert raised.value.kind is JOB_FAILED
    assert "code 3" in raised.value.cause
    assert "OutOfMemoryError" in raised.value.cause


def test_a_job_without_a_result_is_a_failure_though_it_ends_well() -> None:
    with pytest.raises(OffloadError) as raised:
        run(script("print('done')"))
    assert raised.value.kind is JOB_FAILED


def test_an_interrupt_ends_the_job_and_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(600)"
    argv = script(
        "import subprocess",
        f"subprocess.Popen([sys.executable, '-c', {child!r}])",
        f"print({PROGRESS!r}, flush=True)",
        "time.sleep(600)",
    )
    started = threading.Event()

    def interrupt(_: job.Progress) -> None:
        for _ in range(100):
            if pid_file.exists() and pid_file.read_text():
                break
            started.wait(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run_job(argv, dict(os.environ), "k2.a", interrupt)
    pid = int(pid_file.read_text())
    gone, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_no_secret_is_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import uuid

    monkeypatch.setenv("OFFLOAD_SPARK_MASTER", "local[2]")
    plan = uuid.uuid4()
    argv = job.command(plan, Place.DRIVER)
    assert argv[:3] == ["spark-submit", "--master", "local[2]"]
    assert argv[-4:] == ["--plan", str(plan), "--place", "driver"]
    assert not any("password" in a.lower() or "://" in a for a in argv)


def test_the_named_spark_comes_first_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_HOME", "/opt/spark")
    env = job.environment()
    assert env["PATH"].split(os.pathsep)[0] == "/opt/spark/bin"
    assert env["PYTHONPATH"].split(os.pathsep)[0] == str(job.ROOT)
