"""The repository as an Airflow Git bundle, from a local remote: a run keeps its version of the code, cleared or not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from include.offload.airflow_rest import DagRun
from tests.support.airflow_bag import ROOT
from tests.support.airflow_driver import TASKS, Driver, poll
from tests.support.stack import PORT_BASE, Servers, own_stack
from tests.support.tables import Table

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

BESIDE = 400
"""Ports of this stack, counted from those of the one that a session shares."""
SERVERS = [
    "postgres",
    "clickhouse",
    "seaweedfs",
    "statsd-exporter",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
]
SPOKEN_BY = Path("include") / "orchestration" / "tasks.py"
BEFORE = "    quiet_libraries()\n    bind_log("
TRAP = 'raise RuntimeError("no DAG file: Airflow must not run it")  # airflow dag\n'


@dataclass(frozen=True)
class Repository:
    """A work tree of this repository's files, and the bare remote that it is pushed to."""

    work: Path
    remote: Path

    def publish(self, words: str) -> str:
        """A commit whose tasks say these words first. Returns its hash."""
        original = (ROOT / SPOKEN_BY).read_text()
        assert original.count(BEFORE) == 1
        (self.work / SPOKEN_BY).write_text(original.replace(BEFORE, f'    log.info("code of {words}")\n{BEFORE}'))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", words)
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD")

    def git(self, *words: str) -> str:
        return _git(self.work, *words)


def _git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The files as they are here, with one table instead of the ten, and two traps for a wrong `.airflowignore`."""
    folder = tmp_path_factory.mktemp("git")
    made = Repository(folder / "work", folder / "remote.git")
    for name in _git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (made.work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, made.work / name)
    shutil.rmtree(made.work / "dags" / "tables" / "k2")
    for trap in (made.work / "spark_jobs" / "trap.py", made.work / "dags" / "tables" / "trap.py"):
        trap.write_text(TRAP)
    made.remote.mkdir()
    _git(made.remote, "init", "--quiet", "--bare", "--initial-branch=main")
    made.git("init", "--quiet", "--initial-branch=main")
    made.git("remote", "add", "origin", str(made.remote))
    return made


@pytest.fixture(scope="module")
def servers(repository: Repository) -> Iterator[Servers]:
    """A stack whose Airflow knows this code from the remote alone, but for the plugin, which lies in this checkout."""
    repository.publish("nobody yet")
    bundle = {
        "name": "offload",
        "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
        "kwargs": {"repo_url": str(repository.remote), "tracking_ref": "main", "refresh_interval": 5},
    }
    port = int(os.environ.get("OFFLOAD_TEST_PORT_BASE", PORT_BASE)) + BESIDE
    config = {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle])}
    with own_stack(SERVERS, str(port), **config) as running:
        tables = repository.work / "dags" / "tables"
        yield Servers(running.home.root, tables, running.home.root / "crash")


@pytest.fixture(scope="module")
def driver(servers: Servers) -> Iterator[Driver]:
    found = servers.airflow()
    yield found
    found.close()


@pytest.fixture
def table(servers: Servers) -> Iterator[Table]:
    made = Table(servers, "git_bundle").create().insert(200)
    yield made
    made.close()


def _at_version(driver: Driver, dag_id: str, version: str) -> None:
    """Wait until Airflow parsed the DAG from this commit."""

    def look() -> bool:
        return dag_id in driver.dags() and driver._call("GET", f"/dags/{dag_id}")["bundle_version"] == version

    poll(look, 240, f"Airflow did not take {dag_id} from {version}")


def _run(driver: Driver, table: Table) -> DagRun:
    run = driver.ask(table.dag_id)
    driver.green(run)
    return run


def test_a_cleared_old_run_executes_its_own_version(repository: Repository, driver: Driver, table: Table) -> None:
    table.write_spec()
    first = repository.publish("release one")
    _at_version(driver, table.dag_id, first)
    driver.pause(table.dag_id, False)
    old = _run(driver, table)
    assert driver.details(old)["bundle_version"] == first
    # the same commit of everything: DAG file, domain, and the job that Spark runs
    assert f"/versions/{first}/spark_jobs/offload.py" in driver.log(old, "offload")
    for task in ("check_extent", "update_watermark"):
        assert "code of release one" in driver.log(old, task)

    # nothing else of the repository was taken for a DAG file, and nothing of the checkout beside it
    assert set(driver.dags()) == {table.dag_id}
    assert driver.import_errors() == []

    second = repository.publish("release two")
    _at_version(driver, table.dag_id, second)
    table.insert(50, hours_ago=3)
    new = _run(driver, table)
    assert driver.details(new)["bundle_version"] == second
    assert "code of release two" in driver.log(new, "check_extent")

    driver.clear_only(old, [t for t in TASKS if t != "check_extent"])
    driver.green(old)
    driver.clear_only(old, ["check_extent"])
    driver.green(old)
    assert driver.details(old)["bundle_version"] == first
    assert f"/versions/{first}/spark_jobs/offload.py" in driver.log(old, "offload", 2)
    for task in ("check_extent", "update_watermark"):
        again = driver.log(old, task, 2)
        assert "code of release one" in again
        assert "code of release two" not in again
    table.whole()
