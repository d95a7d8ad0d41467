"""What every DAG of the bundle must be, checked on the parsed bundle."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_bag import ROOT, TEN, copy_bundle, parse

DAG_FILES = {"maintenance.py", "offload.py", "spec_errors.py", "verify.py"}
TASKS = ("check_extent", "offload", "update_watermark")


@pytest.fixture(params=sorted(TEN))
def dag(request: pytest.FixtureRequest, bag: Any) -> Any:
    return bag.dags[request.param]


def test_the_bundle_imports_without_errors(bag: Any) -> None:
    assert bag.import_errors == {}


def test_there_are_exactly_the_ten_dags(bag: Any) -> None:
    assert {i for i in bag.dags if i.startswith("offload__")} == TEN


def test_one_dag_a_spec_file(bag: Any) -> None:
    files = {p for p in (ROOT / "dags" / "tables").rglob("*.yaml") if not p.name.startswith("_")}
    names = {f"{p.parent.name}__{p.stem}" for p in files}
    assert {f"{kind}__{name}" for kind in ("offload", "maintain", "verify") for name in names} == set(bag.dags)


def test_no_unlisted_dag_file() -> None:
    """A DAG file beside the loops would be code that no spec describes: list it here only with its own tests."""
    assert {p.name for p in (ROOT / "dags").rglob("*.py")} == DAG_FILES


def test_an_unlisted_file_would_be_seen(tmp_path: Path) -> None:
    dags = copy_bundle(tmp_path)
    (dags / "extra.py").write_text("import airflow  # dag\n")
    assert {p.name for p in dags.rglob("*.py")} != DAG_FILES


def test_tasks_and_their_order(dag: Any) -> None:
    assert sorted(dag.task_ids) == sorted(TASKS)
    for before, after in zip(TASKS, TASKS[1:], strict=False):
        assert dag.get_task(before).downstream_task_ids == {after}
    assert dag.get_task(TASKS[-1]).downstream_task_ids == set()


def test_the_watermark_moves_only_after_the_commit(dag: Any) -> None:
    """`none_failed` with `offload` as only parent: skipped is fine, failed or not run is not."""
    watermark = dag.get_task("update_watermark")
    assert watermark.upstream_task_ids == {"offload"}
    assert watermark.trigger_rule == "none_failed"
    assert dag.get_task("offload").trigger_rule == "all_success"


def test_only_the_offload_is_short_circuited(dag: Any) -> None:
    check = dag.get_task("check_extent")
    assert check.ignore_downstream_trigger_rules is False
    assert check.inherits_from_skipmixin


def test_schedule(dag: Any) -> None:
    """A cron timetable with zero-width intervals would be Airflow's default for a plain string."""
    from airflow.sdk import CronDataIntervalTimetable

    assert type(dag.timetable) is CronDataIntervalTimetable
    assert str(dag.timezone) == "UTC"
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert dag.start_date is not None


def test_offload_takes_a_slot_of_the_pool(dag: Any) -> None:
    assert dag.get_task("offload").pool == "offload_spark"
    assert dag.get_task("check_extent").pool == dag.get_task("update_watermark").pool == "default_pool"


def test_offload_never_answers_a_clear_with_the_old_job(dag: Any) -> None:
    assert dag.get_task("offload").durable is False


def test_one_check_at_a_time(dag: Any) -> None:
    """Runs of a backfill go side by side, whatever `max_active_runs` says; of two that plan at once one fails."""
    assert dag.get_task("check_extent").max_active_tis_per_dag == 1


def test_retries_back_off_and_every_task_ends(dag: Any) -> None:
    for task in dag.tasks:
        assert task.retries >= 1
        assert task.retry_delay == timedelta(seconds=30)
        assert task.retry_exponential_backoff > 1
        assert task.max_retry_delay <= timedelta(minutes=15)
        assert timedelta(minutes=1) <= task.execution_timeout <= timedelta(hours=2)


def test_no_secret_and_no_connection_in_the_arguments(dag: Any) -> None:
    offload = dag.get_task("offload")
    assert offload.application_args[0] == "--plan"
    assert offload.env_vars is None
    assert offload.conf is None


def test_one_asset_as_outlet_of_the_last_task(dag: Any) -> None:
    asset, alias = dag.get_task("update_watermark").outlets
    _, db, table = dag.dag_id.split("__")
    assert asset.name == f"lake.{db}.{table}"
    assert asset.uri == f"iceberg://lake/{db}/{table}"
    assert alias.name == f"{asset.name} (recorded late)"
    assert not dag.get_task("check_extent").outlets
    assert not dag.get_task("offload").outlets


def test_params_of_the_trigger_form(dag: Any) -> None:
    assert set(dag.params) == {"from", "to", "force"}
    for name in ("from", "to"):
        param = dag.params.get_param(name)
        assert param.value is None
        assert param.schema["format"] == "date-time"
        assert param.description
    assert dag.params["force"] is False
    assert "TTL" in dag.params.get_param("force").description


def test_documentation_says_what_to_do(dag: Any) -> None:
    for word in ("source", "target", "cursor", "window", "settle", "horizon", "columns", "When it is red", "OFL-"):
        assert word in dag.doc_md
    assert "offload" in dag.tags
    assert dag.get_task("offload").owner
    assert dag.description


def test_dags_survive_serialization_unchanged(dag: Any) -> None:
    """The scheduler and the UI see only the serialized form; two parses must give the same one, or versions pile up."""
    from airflow.serialization.serialized_objects import DagSerialization

    once = DagSerialization.to_dict(dag)
    again = DagSerialization.to_dict(parse(ROOT / "dags").dags[dag.dag_id])
    assert once == again


BROKEN = "cursor: exchange_timestamp\nwindow: five minutes\nsurprise: true\n"


def test_a_broken_spec_is_readable_and_stops_nobody_else(tmp_path: Path) -> None:
    dags = copy_bundle(tmp_path)
    (dags / "tables" / "k2" / "bronze_trades_kraken.yaml").write_text(BROKEN)
    bag = parse(dags)
    assert {i for i in bag.dags if i.startswith("offload__")} == TEN - {"offload__k2__bronze_trades_kraken"}
    assert "maintain__k2__bronze_trades_kraken" not in bag.dags
    ((file, error),) = bag.import_errors.items()
    assert file.endswith("spec_errors.py")
    for part in ("OFL-101", "bronze_trades_kraken.yaml", "line 2: window", "surprise", "bin/offload spec check"):
        assert part in error


def test_every_broken_spec_is_listed_at_once(tmp_path: Path) -> None:
    dags = copy_bundle(tmp_path)
    for table in ("ohlcv_1m", "silver_trades"):
        (dags / "tables" / "k2" / f"{table}.yaml").write_text(BROKEN)
    bag = parse(dags)
    assert len(bag.dags) == 24
    (error,) = bag.import_errors.values()
    assert "ohlcv_1m.yaml" in error
    assert "silver_trades.yaml" in error


def test_a_mended_spec_clears_the_error(tmp_path: Path) -> None:
    dags = copy_bundle(tmp_path)
    file = dags / "tables" / "k2" / "ohlcv_1m.yaml"
    good = file.read_text()
    file.write_text(BROKEN)
    assert parse(dags).import_errors
    file.write_text(good)
    assert parse(dags).import_errors == {}
