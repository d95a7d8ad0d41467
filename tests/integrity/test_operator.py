"""How the operator drives a process: what it believes of it, and that nothing of it outlives the task.

A shell script stands where `spark-submit` stands; the integration tests run the real one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.offload.errors import OffloadError


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, airflow_home: Path) -> Any:
    """A hook whose connection is `local[1]`."""
    monkeypatch.setenv("AIRFLOW_CONN_OFFLOAD_SPARK", json.dumps({"conn_type": "spark", "host": "local[1]"}))
    from include.orchestration.spark import JobHook

    return JobHook(conn_id="offload_spark")


def submit(hook: Any, tmp_path: Path, script: str) -> None:
    file = tmp_path / "spark-submit"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o700)
    hook._connection["spark_binary"] = str(file)
    hook.submit("job.py")


def test_the_result_is_kept_and_the_rest_logged(hook: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    submit(hook, tmp_path, """echo working; echo 'OFFLOAD_RESULT {"status": "committed", "rows": 3}'""")
    assert hook.result == {"status": "committed", "rows": 3}
    assert hook.error is None


def test_progress_reads_like_a_sentence() -> None:
    from include.orchestration.spark import progress_line

    seen = {
        "slices_done": 3,
        "slices": 12,
        "rows": 1_200_000,
        "rows_planned": 4_000_000,
        "bytes": 45_600_000,
        "rows_per_second": 310_000,
        "eta_seconds": 9,
    }
    assert progress_line(seen) == "3 of 12 slices, 1,200,000 of 4,000,000 rows, 45.6 MB, 310,000 rows/s, 9 s to go"


def test_windows_that_stay_pending_are_counted_and_the_oldest_is_named() -> None:
    from include.orchestration.spark import pending_line

    assert pending_line([6, 5], 300_000_000) == (
        "2 windows changed while they were read and are not shipped, the oldest 1970-01-01T00:25:00Z:"
        " the next run reads them again"
    )


@pytest.mark.parametrize(
    ("id", "retried"),
    [("OFL-203", False), ("OFL-208", True), ("OFL-402", False)],
)
def test_the_jobs_own_word_decides_about_retries(hook: Any, tmp_path: Path, id: str, retried: bool) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from include.offload.errors import REGISTRY
    from include.offload.jobwords import error_document
    from include.orchestration.failures import as_airflow
    from include.orchestration.spark import _refusal

    said = OffloadError(REGISTRY[id], "the facts", table="k2.t")
    line = json.dumps(error_document(said))
    with pytest.raises(AirflowException):
        submit(hook, tmp_path, f"cat <<'X'\nOFFLOAD_ERROR {line}\nX\nexit 1")
    refusal = _refusal(hook, "k2.t", "failed")
    assert str(refusal) == str(said)
    assert isinstance(as_airflow(refusal), AirflowFailException) is not retried


def test_a_job_that_dies_without_a_word_is_retried(hook: Any, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowException

    from include.orchestration.spark import _refusal

    with pytest.raises(AirflowException):
        submit(hook, tmp_path, "echo the last words; kill -9 $$")
    refusal = _refusal(hook, "k2.t", "failed")
    assert refusal.id == "OFL-504"
    assert refusal.kind.retry
    assert "the last words" in refusal.cause
    assert "-9" in refusal.cause


def test_killing_leaves_no_process(hook: Any, tmp_path: Path) -> None:
    """The JVM's Python child would otherwise live on and commit."""
    from airflow.sdk.exceptions import AirflowException

    children: list[psutil.Process] = []

    def kill_soon() -> None:
        end = time.monotonic() + 20
        while len(children) < 3 and time.monotonic() < end:
            me = psutil.Process(os.getpid())
            children[:] = [p for p in me.children(recursive=True) if p.name() in {"spark-submit", "sh", "sleep"}]
            time.sleep(0.05)
        hook.on_kill()

    killer = threading.Thread(target=kill_soon)
    killer.start()
    with pytest.raises(AirflowException):
        submit(hook, tmp_path, "sh -c 'sleep 300; true' & sleep 300; true")
    killer.join()
    assert len(children) >= 3
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_missing_spark_connection_is_said(monkeypatch: pytest.MonkeyPatch, airflow_home: Path) -> None:
    """The provider would log a line and submit to YARN."""
    monkeypatch.delenv("AIRFLOW_CONN_OFFLOAD_SPARK", raising=False)
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    def unknown(conn_id: str) -> Any:
        raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(unknown))
    from include.orchestration.context import connection

    with pytest.raises(OffloadError, match="OFL-102") as caught:
        connection("offload_spark", table="k2.t")
    assert "AIRFLOW_CONN_OFFLOAD_SPARK" in caught.value.cause
