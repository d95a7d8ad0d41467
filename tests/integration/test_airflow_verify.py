"""A verification through a real Airflow: green and recorded on a sound table, red for good on a spoiled one."""

from __future__ import annotations

import pytest

from tests.support.airflow_driver import Driver
from tests.support.tables import MakeTable

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


def test_a_verification_after_an_offload_is_green(airflow: Driver, make_table: MakeTable) -> None:
    table = (
        make_table("verified").create().insert(900).write_spec(more="verify: {schedule: '0 0 29 2 *', sample: full}")
    )
    habit = table.spec.verify_dag_id
    airflow.discover(table.dag_id)
    airflow.discover(habit)
    airflow.green(airflow.ask(table.dag_id))
    run = airflow.ask(habit)
    assert airflow.green(run) == {"verify": "success"}
    assert airflow.xcom(run, "verify", "return_value")["rows"] > 0
    table.whole()

    # `deletes: keep`: no run mends this, and trying again helps nobody
    table.command(f"ALTER TABLE {table.identity} DELETE WHERE seq % 90 = 0 SETTINGS mutations_sync = 2")
    red = airflow.ask(habit)
    assert airflow.finished(red) == {"verify": "failed"}
    assert airflow.tasks(red)["verify"][1] == 1
    assert "OFL-409" in airflow.log(red, "verify")
    table.spec_file.unlink()
