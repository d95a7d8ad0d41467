"""`bin/offload` on a Docker Compose host: the commands that a `docker` gets. No Docker is run here, or was at hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deploy.compose import host
from local.paths import ROOT
from local.runbooks.pages import Step, pages
from local.services import GROUPS

FAKE = """#!{python}
import json, os, sys
words = sys.argv[4:]
with open(os.environ["SAID"], "a") as file:
    file.write(json.dumps(sys.argv[1:3] + words) + "\\n")
if "ps" in words:
    print(os.environ["SERVICES"] if "--services" in words else os.environ["DOCUMENTS"])
sys.exit(int(os.environ.get("CODE", "0")))
"""
Call = Callable[..., tuple[subprocess.CompletedProcess[str], list[list[str]]]]
UP = "\n".join(
    json.dumps({"Service": name, "State": state, "Health": health})
    for name, state, health in (
        ("airflow-api-server", "running", "healthy"),
        ("airflow-scheduler", "exited", ""),
        ("airflow-dag-processor", "running", "unhealthy"),
        ("airflow-triggerer", "restarting", ""),
    )
)


@pytest.fixture
def call(tmp_path: Path) -> Call:
    (tmp_path / "docker").write_text(FAKE.format(python=sys.executable))
    (tmp_path / "docker").chmod(0o755)

    def run(*words: str, **more: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        said = tmp_path / "said"
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(said), "SERVICES": "", "DOCUMENTS": UP}
        done = subprocess.run(
            [str(ROOT / "bin" / "offload"), *words],
            env=env | {"OFFLOAD_COMPOSE": "1"} | more,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        return done, [json.loads(line) for line in said.read_text().splitlines()]

    return run


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["stop", "airflow"], ["stop", *host.AIRFLOW]),
        (["stop"], ["stop"]),
        (["log", "clickhouse", "-n", "15"], ["logs", "--no-log-prefix", "--tail", "15", "clickhouse"]),
        (
            ["start", "postgres"],
            ["--profile", "monitoring", "up", "--detach", "--no-build", "--no-recreate", "--wait", "postgres"],
        ),
    ],
)
def test_stack_is_docker_compose(call: Call, words: list[str], wanted: list[str]) -> None:
    _, said = call("stack", *words)
    assert said[0] == ["compose", "--project-directory", *wanted]


REPAIRS = [
    step
    for page in pages()
    for fence in page.fences
    if fence.kind == "resolve"
    for step in fence.steps
    if re.fullmatch(r"bin/offload stack (start|stop)( [\w-]+)*", step.command)
]


@pytest.mark.parametrize("step", REPAIRS, ids=lambda step: step.command.removeprefix("bin/offload "))
def test_what_a_runbook_starts_and_stops_says_what_the_page_says(call: Call, step: Step) -> None:
    well = "\n".join(
        json.dumps({"Service": name, "State": "running", "Health": "healthy"}) for name in host.GROUPS["all"]
    )
    done, _ = call(*step.command.split()[1:], DOCUMENTS=well)
    assert done.returncode == 0
    assert step.matches(done.stdout), done.stdout


def test_servers_stand_in_one_order(call: Call) -> None:
    done, _ = call("stack", "status", "statsd-exporter", "airflow-scheduler", "postgres")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        "postgres",
        "statsd-exporter",
        "airflow-scheduler",
    ]


def test_status_speaks_as_on_one_machine(call: Call) -> None:
    done, _ = call("stack", "status", "airflow")
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "server                 state     answers",
        "airflow-api-server     RUNNING   yes",
        "airflow-scheduler      STOPPED   no",
        "airflow-dag-processor  RUNNING   no",
        "airflow-triggerer      BACKOFF   no",
    ]
    done, _ = call("stack", "status", "airflow-api-server", DOCUMENTS=f"[{UP.splitlines()[0]}]")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("running", "way"), [("postgres\nairflow-scheduler", ["exec"]), ("postgres", ["run", "--rm", "--no-deps"])]
)
def test_other_commands_run_in_a_container_also_while_the_scheduler_is_down(
    call: Call, running: str, way: list[str]
) -> None:
    _, said = call("dag", "pause", "k2.silver_trades", SERVICES=running)
    command = ["airflow-scheduler", "bin/offload", "dag", "pause", "k2.silver_trades"]
    assert said[1] == ["compose", "--project-directory", *way, "-T", *command]


def test_what_docker_refuses_ends_with_its_code(call: Call) -> None:
    for words in (["stack", "start", "postgres"], ["status"]):
        done, _ = call(*words, CODE="17")
        assert done.returncode == 17


def test_the_names_are_those_of_the_compose_file_and_of_the_one_machine_stack() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    assert {name for names in host.GROUPS.values() for name in names} <= services.keys()
    assert host.GROUPS.keys() == GROUPS.keys()
    for group, names in GROUPS.items():
        assert set(names) <= set(host.GROUPS[group]), group
