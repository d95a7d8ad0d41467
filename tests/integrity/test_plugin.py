"""The plugin as Airflow loads it: in every process, so it must cost nothing until somebody opens the page."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.airflow_bag import ROOT

LOAD = """
import runpy, sys, time
import airflow.plugins_manager, airflow.sdk
before, started = set(sys.modules), time.process_time()
sys.path[:] = [p for p in sys.path if p not in ("", sys.argv[1])]
plugin = runpy.run_path(sys.argv[1] + "/plugins/offload_ui.py")["OffloadPlugin"]
heavy = {"jinja2", "markdown_it", "pyiceberg", "pyarrow", "psycopg", "include.orchestration.ui.app"}
print(sorted(heavy & (set(sys.modules) - before)))
print([v["destination"] + " " + v["href"] for v in plugin.external_views])
print([a["url_prefix"] for a in plugin.fastapi_apps], len(plugin.global_operator_extra_links))
print(time.process_time() - started < 1)
print([m for m in sys.modules if m.split(".")[0] == "include"], sys.argv[1] in sys.path)
"""


def test_it_loads_without_the_application() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, str(ROOT)],
        cwd="/",
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-5:] == [
        "[]",
        "['nav /offload/', 'dag /offload/dags/{DAG_ID}']",
        "['/offload'] 3",
        "True",
        # or the tasks of a Git bundle would run this checkout's code instead of their own version's
        "[] False",
    ]
