"""`.airflowignore`: with the repository root as bundle, Airflow must read `dags/*.py` and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.airflow_bag import ROOT


# Airflow 3.3 asks pathspec for the pattern class by its old name
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_only_dag_files_are_parsed(airflow_home: Path) -> None:
    from airflow.utils.file import list_py_file_paths

    found = {Path(p).relative_to(ROOT) for p in list_py_file_paths(ROOT, safe_mode=True)}
    assert found == {Path(f"dags/{name}.py") for name in ("maintenance", "offload", "spec_errors", "verify")}
