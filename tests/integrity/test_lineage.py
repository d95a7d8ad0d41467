"""What OpenLineage is told, piece by piece, and that without a receiver nothing of it is even loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.airflow import options
from local.paths import Home
from tests.support.airflow_bag import ROOT

RESULT = {
    "status": "committed",
    "rows": 12,
    "bytes": 345,
    "files": 2,
    "snapshot_id": "6789012345678901234",
    "location": "s3://lake/k2/silver_trades-1/",
}


@pytest.fixture
def spec(bag: Any) -> Any:
    """A spec as its task carries it."""
    return bag.dags["offload__k2__silver_trades"].get_task("offload")._spec


def test_only_the_job_that_committed_tells_of_tables(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from include.orchestration.lineage import lineage

    for result in (None, {}, RESULT | {"status": "already-committed"}, RESULT | {"status": "nothing"}):
        assert lineage(spec, result) is None
    uri = "clickhouse://offload:hush-hush@ch1.example.com:8443/?secure=true&replicas=ch1.example.com,ch2.example.com"
    monkeypatch.setenv("AIRFLOW_CONN_OFFLOAD_CLICKHOUSE", uri)
    found = lineage(spec, RESULT)
    assert found is not None
    assert (len(found.inputs), len(found.outputs)) == (1, 1)
    assert "hush-hush" not in repr(found)


@pytest.mark.parametrize(
    ("uri", "namespace"),
    [
        ("http://offload:pw@ch1:8123/,http://offload:pw@ch2:8123/", "clickhouse://ch1:8123"),
        ("https://offload:pw@[2001:db8::1]:8443/?verify=false", "clickhouse://[2001:db8::1]:8443"),
    ],
)
def test_the_source_is_named_as_openlineage_names_clickhouse(uri: str, namespace: str, spec: Any) -> None:
    """As `ClickHouseJdbcExtractor` of OpenLineage's Java client does: host and port, then database and table."""
    from include.orchestration.lineage import source_dataset

    named = source_dataset(spec, uri)
    assert (named.namespace, named.name) == (namespace, "k2.silver_trades")


def test_the_target_carries_rows_bytes_and_snapshot(spec: Any) -> None:
    from include.orchestration.lineage import CatalogFacts, target_dataset

    told = target_dataset(spec, RESULT, CatalogFacts("lake", "rest", "https://catalog/api", "lake"))
    assert (told.namespace, told.name) == ("s3://lake", "k2/silver_trades-1")
    statistics: Any = (told.outputFacets or {})["outputStatistics"]
    assert (statistics.rowCount, statistics.size, statistics.fileCount) == (12, 345, 2)
    facets: Any = told.facets
    assert facets["version"].datasetVersion == "6789012345678901234"
    (known_as,) = facets["symlinks"].identifiers
    assert (known_as.namespace, known_as.name) == ("https://catalog/api", "k2.silver_trades")


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("s3a://lake/a/b", ("s3://lake", "a/b")),
        ("gs://lake/a/b/", ("gs://lake", "a/b")),
        ("abfss://lake@account.dfs.core.windows.net/a", ("abfss://lake@account.dfs.core.windows.net", "a")),
        ("hdfs://name:8020/a/b", ("hdfs://name:8020", "/a/b")),
        ("file:///srv/lake/a", ("file", "/srv/lake/a")),
    ],
)
def test_a_location_is_named_as_openlineage_s_spark_listener_does(location: str, named: tuple[str, str]) -> None:
    from include.orchestration.lineage import location_name

    assert location_name(location) == named


@pytest.mark.parametrize(
    ("configured", "told"),
    [
        ({"type": "rest", "uri": "https://me:pw@c.example.com/api/", "warehouse": "lake"}, "https://c.example.com/api"),
        ({"uri": "postgresql+psycopg2://me:pw@db:5432/ice?sslmode=require"}, "postgresql+psycopg2://db:5432/ice"),
        ({"type": "glue", "warehouse": "s3://lake/x"}, None),
    ],
)
def test_a_catalog_is_told_without_its_login(
    configured: dict[str, str], told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration.lineage import catalog_facts

    (tmp_path / ".pyiceberg.yaml").write_text(yaml.safe_dump({"catalog": {"lake": configured}}))
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    facts = catalog_facts("lake")
    assert facts.uri == told
    assert "pw" not in repr(facts)


def test_without_a_receiver_it_is_off_and_not_loaded(airflow_home: Path) -> None:
    """Airflow's own word for it, and every module that parsing the DAGs and building their tasks loads."""
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.support.airflow_bag import parse\n"
        "from airflow.providers.openlineage import conf\n"
        "from airflow.providers.openlineage.plugins.openlineage import OpenLineageProviderPlugin as plugin\n"
        "assert len(parse(Path(sys.argv[1])).dags) == 30\n"
        "print(conf.is_disabled(), plugin.listeners, [m for m in sys.modules if m.split('.')[0] == 'openlineage'])\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENLINEAGE", "AIRFLOW__OPENLINEAGE"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(ROOT / "dags")],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True [] []"


def test_the_one_machine_stack_sends_only_where_a_file_says(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    for name in ("airflow_fernet_key", "airflow_db_uri", "airflow_api_secret_key", "airflow_jwt_secret"):
        (home.secrets / name).write_text("postgresql://x")
    assert "openlineage" not in options(home)
    file = home.secrets / "openlineage.yml"
    file.write_text("transport: {type: console}\n")
    assert options(home)["openlineage"]["config_path"] == str(file)
