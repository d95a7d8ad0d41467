"""What each connection of docs/scaling.md becomes: the command line of spark-submit, and what stays out of it.

A shell script stands where `spark-submit` stands: it writes down how it was called. No cluster is asked for anything.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.offload.errors import SETTING_MISSING, OffloadError
from include.offload.settings import ROOT
from include.offload.spec.load import load_spec

PAGE = ROOT / "docs" / "scaling.md"
PLAN = "0f4a7d5e-2f65-4d8e-9d3c-6f4f1c1d2e3f"
CLICKHOUSE, LEDGER = "clickhouse-Pa55", "ledger-Pa55"
SUBMIT = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > "{folder}/argv"
env > "{folder}/environment"
stat -c %a "$OFFLOAD_SECRETS_FILE" > "{folder}/mode"
cp "$OFFLOAD_SECRETS_FILE" "{folder}/secrets"
echo 'OFFLOAD_RESULT {{"status": "committed"}}'
"""


@dataclass(frozen=True)
class Called:
    """How spark-submit was called. `secrets`: the file that it was told of, as it was then."""

    argv: list[str]
    environment: dict[str, str]
    mode: str
    secrets: str
    conf: dict[str, str]

    def option(self, name: str) -> str | None:
        """The value of an option, None where it is not given."""
        return self.argv[self.argv.index(name) + 1] if name in self.argv else None


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch, airflow_home: Path, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """The other two connections, each with a password, and a `spark-submit` that tells."""
    monkeypatch.setenv("OFFLOAD_HOME", str(tmp_path / "home"))
    for name, port, password in (("clickhouse", 8123, CLICKHOUSE), ("postgres", 5432, LEDGER)):
        conn = {"conn_type": name, "host": "h", "port": port, "login": "u", "password": password}
        conn_id = "OFFLOAD_LEDGER" if name == "postgres" else "OFFLOAD_CLICKHOUSE"
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", json.dumps(conn))
    program = tmp_path / "bin" / "spark-submit"
    program.parent.mkdir()
    program.write_text(SUBMIT.format(folder=tmp_path))
    program.chmod(0o700)
    monkeypatch.delenv("SPARK_HOME", raising=False)
    monkeypatch.delenv("OFFLOAD_SPARK_EVENTS", raising=False)
    monkeypatch.delenv("OFFLOAD_SECRETS_FILE", raising=False)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    # what the provider needs for k8s:// is a package of its own; to write a command line it is not asked
    from airflow.providers.apache.spark.hooks import spark_submit

    monkeypatch.setattr(spark_submit, "kube_client", object(), raising=False)
    yield monkeypatch


def operator() -> Any:
    from include.orchestration.spark import APPLICATION, JobOperator

    spec = load_spec("k2.silver_trades", ROOT / "dags" / "tables")
    return JobOperator(
        task_id="offload",
        spec=spec,
        application=APPLICATION,
        arguments=["--plan", PLAN],
        name="offload k2.silver_trades",
    )


def submitted(airflow: pytest.MonkeyPatch, folder: Path, connection: str) -> Called:
    """Submit a job through this connection, a URI or JSON."""
    airflow.setenv("AIRFLOW_CONN_OFFLOAD_SPARK", connection)
    assert operator().submit({}) == {"status": "committed"}
    argv = (folder / "argv").read_text().splitlines()
    lines = (folder / "environment").read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    pairs = (argv[i + 1].split("=", 1) for i, word in enumerate(argv) if word == "--conf")
    return Called(
        argv,
        environment,
        (folder / "mode").read_text().strip(),
        (folder / "secrets").read_text(),
        dict(pairs),
    )


def documented() -> list[str]:
    """The connections of the page, in its order."""
    return re.findall(r"^AIRFLOW_CONN_OFFLOAD_SPARK='(.+)'$", PAGE.read_text(), re.MULTILINE)


EXPECTED: list[tuple[str, dict[str, str | None]]] = [
    ("local[2]", {"--deploy-mode": None}),
    ("spark://spark-master.example.com:7077", {"--deploy-mode": "client"}),
    ("spark://master-1.example.com:7077,master-2.example.com:7077", {"--deploy-mode": "client"}),
    ("yarn", {"--deploy-mode": "client", "--queue": "offload"}),
    ("k8s://https://kubernetes.example.com:6443", {"--deploy-mode": "client"}),
]


def test_the_page_shows_as_many_connections_as_are_tried_here() -> None:
    assert len(documented()) == len(EXPECTED)


@pytest.mark.parametrize("number", range(len(EXPECTED)), ids=[master for master, _ in EXPECTED])
def test_a_connection_of_the_page_becomes_the_command_line(
    airflow: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    master, options = EXPECTED[number]
    called = submitted(airflow, tmp_path, documented()[number])
    assert called.option("--master") == master
    assert {name: called.option(name) for name in options} == options
    assert called.argv[-3:] == [str(ROOT / "spark_jobs" / "offload.py"), "--plan", PLAN]
    if master.startswith("k8s"):
        assert called.conf["spark.kubernetes.namespace"] == "offload"
    file = called.environment["OFFLOAD_SECRETS_FILE"]
    assert called.mode == "600", "the driver is told of a file that its owner alone reads"
    assert CLICKHOUSE in called.secrets
    assert LEDGER in called.secrets
    assert not Path(file).exists(), "it is gone with the job"
    seen = " ".join(called.argv) + " ".join(
        f"{k}={v}" for k, v in called.environment.items() if "AIRFLOW_CONN" not in k
    )
    for secret in (CLICKHOUSE, LEDGER):
        assert secret not in seen, "`ps` and /proc show it to others"


def test_secrets_that_the_site_mounts_are_named_and_not_written(airflow: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted.env"
    mounted.write_text("")
    mounted.chmod(0o400)
    extra = {"deploy-mode": "client", "offload-secrets-file": str(mounted)}
    called = submitted(airflow, tmp_path, json.dumps({"conn_type": "spark", "host": "yarn", "extra": extra}))
    assert called.environment["OFFLOAD_SECRETS_FILE"] == str(mounted)
    assert mounted.exists()
    assert not (tmp_path / "home" / "jobs").exists()


def test_a_driver_in_the_cluster_is_refused(airflow: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plan that landed would count as failed: the job's last line is in a log of the cluster's."""
    airflow.setenv("AIRFLOW_CONN_OFFLOAD_SPARK", documented()[-2].replace('"client"', '"cluster"'))
    with pytest.raises(OffloadError, match="deploy-mode cluster") as refused:
        operator().submit({})
    assert refused.value.kind is SETTING_MISSING
    assert not (tmp_path / "argv").exists(), "nothing was submitted"


def test_kubernetes_without_its_package_is_said(airflow: pytest.MonkeyPatch) -> None:
    from airflow.providers.apache.spark.hooks import spark_submit

    airflow.delattr(spark_submit, "kube_client")
    airflow.setenv("AIRFLOW_CONN_OFFLOAD_SPARK", documented()[-1])
    with pytest.raises(OffloadError, match="apache-airflow-providers-cncf-kubernetes") as refused:
        operator().submit({})
    assert refused.value.kind is SETTING_MISSING
