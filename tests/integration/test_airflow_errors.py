"""Bad input under Airflow: the task fails within seconds, says what to do, commits nothing, and heals when mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from local import ports
from tests.support.airflow_bag import TEN
from tests.support.airflow_driver import TASKS, Driver, poll
from tests.support.fixtures import SESSION
from tests.support.tables import MakeTable, Table

pytestmark = pytest.mark.timeout(1500)
GREEN = dict.fromkeys(TASKS, "success")


def fails(airflow: Driver, table: Table, task: str, id: str) -> str:
    """Run the table's DAG; its `task` must fail on the first try with this error. Its log."""
    run = airflow.ask(table.dag_id)
    states = airflow.finished(run)
    assert states[task] == "failed", states
    assert airflow.tasks(run)[task][1] == 1, "a mistake that waiting can not mend was tried again"
    log = airflow.log(run, task)
    assert f"{id} " in log
    assert "next:  " in log
    assert "cause: " in log
    return log


@pytest.fixture
def connection(airflow: Driver) -> Iterator[Any]:
    """Makes Airflow connections that vanish with the test."""
    made: list[str] = []

    def make(name: str, **fields: Any) -> str:
        # a kept stack may hold the connections of a session that was killed
        conn_id = f"{name}_{SESSION}"
        airflow.connect(conn_id, **fields)
        made.append(conn_id)
        return conn_id

    yield make
    for conn_id in made:
        airflow.disconnect(conn_id)


def test_a_missing_source_table_and_its_return(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("missing").write_spec(retries=2)
    airflow.discover(table.dag_id)
    log = fails(airflow, table, "check_extent", "OFL-203")
    assert "restore it in ClickHouse, or name the right one in the spec" in log
    table.create().insert(100)
    assert airflow.green(airflow.ask(table.dag_id)) == GREEN
    table.whole()


def test_a_wrong_password(airflow: Driver, make_table: MakeTable, connection: Any) -> None:
    wrong = connection(
        "it_wrong_password",
        conn_type="clickhouse",
        host="127.0.0.1",
        port=ports.port("CLICKHOUSE"),
        login="offload",
        password="not-the-pass-word",
    )
    table = make_table("locked").create().insert(10)
    table.write_spec(retries=2, more=f"connections: {{clickhouse: {wrong}}}")
    airflow.discover(table.dag_id)
    log = fails(airflow, table, "check_extent", "OFL-202")
    assert "not-the-pass-word" not in log


def test_a_server_that_is_away_is_asked_again(airflow: Driver, make_table: MakeTable, connection: Any) -> None:
    away = connection("it_away", conn_type="clickhouse", host="127.0.0.1", port=1, login="offload")
    table = make_table("away").create().insert(10)
    table.write_spec(retries=1, more=f"connections: {{clickhouse: {away}}}")
    airflow.discover(table.dag_id)
    run = airflow.ask(table.dag_id)
    assert airflow.finished(run)["check_extent"] == "failed"
    assert airflow.tasks(run)["check_extent"][1] == 2, "a server that is away may come back: one retry was due"
    assert "OFL-201" in airflow.log(run, "check_extent")


@pytest.mark.parametrize(("kind", "task"), [("ledger", "check_extent"), ("spark", "offload")])
def test_a_missing_connection(airflow: Driver, make_table: MakeTable, kind: str, task: str) -> None:
    """A missing Spark connection would silently mean YARN."""
    table = make_table(f"no_{kind}").create().insert(10)
    table.write_spec(retries=2, more=f"connections: {{{kind}: it_nobody}}")
    airflow.discover(table.dag_id)
    assert "it_nobody" in fails(airflow, table, task, "OFL-102")


def test_a_cursor_that_can_not_order(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("cursorless").create().insert(10).write_spec(retries=2)
    table.spec_file.write_text(
        table.spec_file.read_text().replace("cursor: ts", "cursor: note").replace("day(ts), ", "")
    )
    table.spec_file.write_text(table.spec_file.read_text().replace('"day(ts)", ', ""))
    airflow.discover(table.dag_id)
    fails(airflow, table, "check_extent", "OFL-206")


def test_a_broken_spec_is_an_import_error_and_the_others_stay(airflow: Driver, make_table: MakeTable) -> None:
    table = make_table("broken").write_spec()
    good = table.spec_file.read_text()
    table.spec_file.write_text(good.replace("window: 5m", "window: five minutes"))

    def error() -> str | None:
        return next((e for e in airflow.import_errors() if table.name in e), None)

    shown = poll(error, 120, "no import error appeared")
    for part in ("OFL-101", f"{table.name}.yaml", "line 4: window", "bin/offload spec check"):
        assert part in shown
    assert airflow.dags().keys() >= TEN
    table.create().insert(20)
    table.spec_file.write_text(good)
    poll(lambda: error() is None, 120, "the import error stayed")
    airflow.discover(table.dag_id)
    assert airflow.green(airflow.ask(table.dag_id)) == GREEN
    table.whole()
