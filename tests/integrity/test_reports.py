"""What a failed try leaves in the ledger: the run's last one counts, those before it do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.offload.ledger.store import Ledger
from include.offload.settings import ROOT
from include.offload.spec.load import load_specs
from include.orchestration.dag import build_dag

SPEC = load_specs(ROOT / "dags" / "tables").specs[0]


def test_of_a_run_with_retries_only_the_last_try_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setenv("AIRFLOW_CONN_OFFLOAD_LEDGER", "postgres://u:p@127.0.0.1:1/offload")
    monkeypatch.setattr(Ledger, "failed", lambda self, table, message, *, final: told.append(final))
    for task in build_dag(SPEC).tasks:
        told.clear()
        context: Any = {"ti": SimpleNamespace(task_id=task.task_id), "exception": RuntimeError("by design")}
        (again,) = _listed(task.on_retry_callback)
        for _ in range(SPEC.retries):
            again(context)
        _listed(task.on_failure_callback)[0](context)
        assert told == [*[False] * SPEC.retries, True]


def _listed(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
