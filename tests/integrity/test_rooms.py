"""Which room may look into which, and that parsing DAGs does no work."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.airflow_bag import ROOT

ORCHESTRATION = ROOT / "include" / "orchestration"


def _python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(p for p in (ROOT / folder).rglob("*.py"))


def _imports(file: Path) -> set[str]:
    out: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            out |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out.add(node.module)
    return out


def _run(code: str, *env: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **dict(env)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_only_orchestration_imports_airflow() -> None:
    guilty = [
        str(f.relative_to(ROOT))
        for f in _python_files("include", "spark_jobs")
        if not f.is_relative_to(ORCHESTRATION) and any(i.split(".")[0] == "airflow" for i in _imports(f))
    ]
    assert guilty == []


def test_dag_files_only_import_the_bundle() -> None:
    for file in (ROOT / "dags").glob("*.py"):
        assert {i.split(".")[0] for i in _imports(file)} <= {"pathlib", "include"}, file


def test_the_rooms_keep_their_contracts() -> None:
    """`.importlinter` holds the contracts; this also catches an import through a third module."""
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--config", ROOT / ".importlinter"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


BLOCKED = """
import importlib, pkgutil, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"airflow", "pyspark"}:
            raise ImportError(f"{name} is not for the domain")
sys.meta_path.insert(0, Wall())
import include.offload
seen = 0
for module in pkgutil.walk_packages(include.offload.__path__, "include.offload."):
    if ".migrations." in module.name or module.name.endswith("__main__"):
        continue  # run by Alembic and by the shell, not importable on their own
    importlib.import_module(module.name)
    seen += 1
print(seen)
"""


def test_the_domain_lives_without_airflow_and_spark() -> None:
    done = _run(BLOCKED)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10


def test_the_wall_of_that_test_stands() -> None:
    done = _run(BLOCKED.replace("import include.offload\n", "import airflow\n", 1))
    assert done.returncode != 0
    assert "is not for the domain" in done.stderr


PARSE = """
import socket, sys, time
import airflow.sdk, airflow.providers.apache.spark.operators.spark_submit
def refuse(*_, **__):
    raise AssertionError("a network call while parsing")
socket.socket.connect = socket.create_connection = refuse
from airflow.sdk import BaseHook, Variable
BaseHook.get_connection = Variable.get = refuse
opened = set()
def audit(event, args):
    if event == "open" and isinstance(args[0], str):
        opened.add(args[0])
sys.addaudithook(audit)
started = time.process_time()
import runpy
runpy.run_path("dags/offload.py")
runpy.run_path("dags/spec_errors.py")
seconds = time.process_time() - started
heavy = sorted({"pyiceberg", "pyarrow", "clickhouse_connect", "psycopg", "pyspark", "alembic"} & set(sys.modules))
secrets = sorted(f for f in opened if "/secrets/" in f)
print(f"{seconds:.3f};{heavy};{secrets}")
"""


def test_parsing_is_quick_and_talks_to_nobody() -> None:
    """Every task start parses the bundle again: CPU seconds here are paid three times a run."""
    done = _run(PARSE)
    assert done.returncode == 0, done.stderr
    seconds, heavy, secrets = done.stdout.strip().splitlines()[-1].split(";")
    assert heavy == "[]", f"imported at parse time: {heavy}"
    assert secrets == "[]", f"read at parse time: {secrets}"
    assert float(seconds) < 4.0


def test_plugins_have_names_of_their_own() -> None:
    """Airflow loads plugins by bare file stem: `utils.py` would collide with anybody's."""
    assert [p.name for p in (ROOT / "plugins").glob("*.py") if not p.name.startswith("offload_")] == []
