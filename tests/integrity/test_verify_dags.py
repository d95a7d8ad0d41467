"""What every verify DAG of the bundle must be, checked on the parsed bundle."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_bag import TEN, copy_bundle, parse

VERIFY = {name.replace("offload__", "verify__") for name in TEN}


@pytest.fixture(params=sorted(VERIFY))
def dag(request: pytest.FixtureRequest, bag: Any) -> Any:
    return bag.dags[request.param]


def test_it_is_weekly_never_twice_at_once_and_in_a_pool_of_its_own(dag: Any) -> None:
    assert dag.timetable.expression == "41 4 * * 0"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    (task,) = dag.tasks
    assert (task.pool, task.retries) == ("offload_verify", 1)
    assert timedelta(minutes=1) <= task.execution_timeout <= timedelta(hours=2)


def test_it_tells_what_it_is_and_where_to_read_on(dag: Any) -> None:
    for word in ("two readers", "When it is red", "docs/howto-verify.md", "bin/offload repair"):
        assert word in dag.doc_md


def test_a_spec_that_wants_none_has_none(tmp_path: Path) -> None:
    dags = copy_bundle(tmp_path)
    spec = dags / "tables" / "k2" / "ohlcv_1m.yaml"
    spec.write_text(spec.read_text() + "\nverify: {schedule: off}\n")
    names = set(parse(dags).dags)
    assert "verify__k2__ohlcv_1m" not in names
    assert "offload__k2__ohlcv_1m" in names
