"""Which event log belongs to a Spark application, and that old ones go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from include.orchestration import event_log


def test_without_a_directory_no_job_writes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(event_log.FOLDER, raising=False)
    assert event_log.conf() == {}
    assert event_log.log_of("local-1") is None


def test_a_log_is_found_by_its_application_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where = tmp_path / "events"
    monkeypatch.setenv(event_log.FOLDER, str(where))
    assert event_log.conf()["spark.eventLog.dir"] == where.as_uri()
    assert where.stat().st_mode & 0o777 == 0o700
    (tmp_path / "secret").write_text("x")
    (where / "local-1").write_text("done")
    (where / "local-2.inprogress").write_text("running")
    assert event_log.log_of("local-1") == where / "local-1"
    assert event_log.log_of("local-2") == where / "local-2.inprogress"
    for wrong in ("local-3", "../secret", "", ".", "local-1/../local-1"):
        assert event_log.log_of(wrong) is None, wrong
    old = time.time() - event_log.KEPT_S - 1
    os.utime(where / "local-1", (old, old))
    event_log.conf()
    assert event_log.log_of("local-1") is None
    assert event_log.log_of("local-2") is not None
